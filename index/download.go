package index

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

const (
	// smallestPartial is the size in bytes of the smallest blob that is kept while it comes: others are fetched again in no
	// time.
	smallestPartial = 64 << 10
	// partialRoom is how many times a blob's size the store's file system must have free for it to be kept besides: files
	// are two to four times as large as they are compressed.
	partialRoom = 6
)

// download reads a layer's blob: what an earlier process got of it, then from its source what is left, which is kept for a
// later process should this one not come to the end.
type download struct {
	src     oci.Source
	desc    ocispec.Descriptor
	partial *store.Partial // nil: nothing is kept
	resumed int64          // bytes that an earlier process got
	at      int64          // bytes given
	ctx     context.Context
	from    io.ReadCloser // nil until the source is asked
	err     error         // of the source, unless it was told to stop
}

// readBlob has a blob read, again from its start if it was wrong and somebody else may have it right. abort ends the source's
// work on it.
func readBlob(ctx context.Context, src oci.Source, desc ocispec.Descriptor, read func(blob io.Reader, abort func()) error) error {
	for {
		d := &download{src: src, desc: desc}
		if err := d.readOnce(ctx, read); err == nil || ctx.Err() != nil || !d.elsewhere(err) {
			return err
		}
	}
}

func (d *download) readOnce(ctx context.Context, read func(blob io.Reader, abort func()) error) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	if err := d.open(ctx); err != nil {
		return err
	}
	defer d.Close()
	return read(d, abort)
}

func (im *importer) newDownload(l *importedLayer) *download {
	d := &download{src: im.src, desc: l.Descriptor, partial: im.takePartial(l)}
	if d.partial != nil {
		d.resumed = d.partial.Size()
	}
	return d
}

// open asks the source, unless an earlier process got something: then it is asked once that is read.
func (d *download) open(ctx context.Context) error {
	if d.ctx = ctx; d.resumed > 0 {
		return nil
	}
	d.from, d.err = d.src.OpenBlob(ctx, d.desc)
	return d.err
}

// takePartial opens what is kept of a layer's blob. Whatever is wrong with that is no reason to fail: then nothing is kept.
func (im *importer) takePartial(l *importedLayer) *store.Partial {
	if l.partial != nil || !im.wantsPartial(l) {
		return l.partial
	}
	if p, err := im.s.OpenPartial(l.Descriptor.Digest.String()); err == nil {
		l.partial = p
	}
	return l.partial
}

// wantsPartial tells whether a blob is to be kept while it comes: from a source on a network, where there is plenty of room.
func (im *importer) wantsPartial(l *importedLayer) bool {
	if _, remote := im.src.(oci.NetworkSource); !remote || im.s == nil || l.Descriptor.Size < smallestPartial {
		return false
	}
	free, err := im.s.Free()
	return err == nil && l.Descriptor.Size < free/partialRoom
}

// dropPartial gives up what is kept of a layer's blob: it has its use no more, or is worth nothing.
func (l *importedLayer) dropPartial() {
	if l.partial != nil {
		_ = l.partial.Remove() // what stays is a leftover, which gc removes
		l.partial = nil
	}
}

// clearPartial gives up what is kept of a layer's blob, and keeps what comes of it next.
func (l *importedLayer) clearPartial() {
	if l.partial != nil && l.partial.Clear() != nil {
		l.dropPartial()
	}
}

// leavePartials lets be what is kept of layers that have no names yet.
func (im *importer) leavePartials() {
	for _, l := range im.layers {
		if l.partial != nil {
			_ = l.partial.Close() // it is written without a sync, and hashed again
			l.partial = nil
		}
	}
}

func (d *download) Read(p []byte) (int, error) {
	if d.at < d.resumed {
		n, err := d.partial.ReadAt(p[:min(int64(len(p)), d.resumed-d.at)], d.at)
		d.at += int64(n)
		if err == nil {
			return n, nil
		}
		d.resumed = d.at // the rest can't be read; nothing is lost by asking the source for it
		if d.stopKeeping(); n > 0 {
			return n, nil
		}
	}
	if d.from == nil {
		if err := d.goOn(); err != nil {
			return 0, err
		}
	}
	n, err := d.from.Read(p)
	d.keep(p[:n])
	d.at += int64(n)
	if err != nil && err != io.EOF && d.ctx.Err() == nil {
		d.err = err
	}
	return n, err
}

// goOn asks the source for what is left, which may be nothing.
func (d *download) goOn() error {
	if d.at == d.desc.Size {
		return io.EOF
	}
	d.from, d.err = d.src.(oci.NetworkSource).OpenBlobFrom(d.ctx, d.desc, d.at)
	return d.err
}

func (d *download) keep(b []byte) {
	if d.partial == nil || len(b) == 0 {
		return
	}
	if _, err := d.partial.Write(b); err != nil {
		d.stopKeeping()
	}
}

func (d *download) stopKeeping() {
	_ = d.partial.Clear() // what stays is not the whole blob, which shows in its digest
	d.partial = nil
}

// Through has the files cloned that the blob is put together from, if it is. It makes a download an oci.FileBlob.
func (d *download) Through(via oci.CloneFunc) {
	if files, ok := d.from.(oci.FileBlob); ok {
		files.Through(via)
	}
}

// Close ends the request, if there is one.
func (d *download) Close() error {
	if d.from == nil {
		return nil
	}
	return d.from.Close()
}

// elsewhere tells whether to read the blob once more, from its start: it was wrong, and somebody else may have it right.
func (d *download) elsewhere(err error) bool {
	src, ok := d.src.(oci.MirroredSource)
	claim := (*oci.DigestError)(nil)
	switch {
	case !ok || !d.spoiled(err):
		return false
	case errors.As(err, &claim) && claim.Want != d.desc.Digest: // it is the right blob, of which something else was claimed
		return false
	}
	return src.Distrust(d.desc, err)
}

// spoiled tells whether an import failed for what the blob's bytes are, or how many: not for the network, the store or a
// limit.
func (d *download) spoiled(err error) bool {
	size := (*oci.SizeError)(nil)
	return errors.As(d.err, &size) || err != nil && d.err == nil && ofBytes(err)
}

// ofBytes tells whether what was read is to blame for an error that is none of its source: not the store, nor a limit.
func ofBytes(err error) bool {
	limit, own, path, errno := (*LimitError)(nil), (*store.ObjectError)(nil), (*fs.PathError)(nil), syscall.Errno(0)
	return !errors.As(err, &limit) && !errors.As(err, &own) && !errors.As(err, &path) && !errors.As(err, &errno)
}
