package cstorage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"
	"path"

	"github.com/vbatts/tar-split/tar/storage"

	"github.com/flatroot/flatroot/oci"
)

// splitSuffix ends the name of a layer's tar-split file, beside layers.json.
const splitSuffix = ".tar-split.gz"

// advice is what to do where a layer's tar can't be had.
const advice = "pull the image from where it came from, or let `skopeo copy containers-storage:… oci:DIR` make a layout of it, in which it may have another digest"

// openSplit opens a layer's tar-split file.
func (s *store) openSplit(id string) (*os.File, error) {
	for _, r := range s.roots {
		f, _, err := r.regular(r.layers()+"/"+id+splitSuffix, strict)
		if !errors.Is(err, os.ErrNotExist) {
			return f, explainAccess(err)
		}
	}
	return nil, fmt.Errorf("layer %s has no tar-split file, so that its tar can't be put together again: it is a container's, or was pulled in part; %s", id, advice)
}

// openFiles opens the directory that a layer was unpacked into.
func (s *store) openFiles(id string) (dir, error) {
	for _, r := range s.roots {
		d, err := r.sub(r.layerDir(id))
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return dir{}, explainAccess(err)
		}
		composefs, err := r.has(path.Dir(r.layerDir(id)) + "/composefs-data")
		if err == nil && composefs && r.driver == "overlay" {
			err = fmt.Errorf("layer %s is in composefs format, with files named by their digests, which can't be read here; %s", id, advice)
		}
		if err != nil {
			return dir{}, errors.Join(explainAccess(err), d.Close())
		}
		return d, nil
	}
	return dir{}, fmt.Errorf("the files of layer %s are not in the store", id)
}

// tarSize is the length of a layer's tar, in bytes.
func (s *store) tarSize(l *layerRecord) (int64, error) {
	if l.UncompressedDigest != "" && l.UncompressedSize > 0 {
		return l.UncompressedSize, nil
	}
	f, err := s.openSplit(l.ID)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := tarSize(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return size, nil
}

// layerReader puts a layer's tar together: headers and padding from tar-split, contents from the files that the layer was
// unpacked into.
type layerReader struct {
	ctx   context.Context
	held  locks
	files dir
	split *os.File
	from  *splitReader
	size  int64 // of the tar, in bytes
	at    int64 // in the tar, in bytes

	segment []byte   // what is left of the current one
	file    *os.File // the current one; nil: none
	left    int64    // bytes of it
	sum     hash.Hash64
	want    []byte // its checksum
	via     oci.CloneFunc
	err     error
}

// openLayer begins to read a layer. The lock on layers is held until it is closed: as long as that, nobody removes it.
func (s *store) openLayer(ctx context.Context, l *layerRecord, waiting func(string)) (*layerReader, error) {
	r := newLayerReader(ctx)
	if err := r.begin(s, l, waiting); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func newLayerReader(ctx context.Context) *layerReader {
	return &layerReader{ctx: ctx, sum: crc64.New(storage.CRCTable)}
}

func (r *layerReader) begin(s *store, l *layerRecord, waiting func(string)) (err error) {
	if r.held, err = s.lockLayers(r.ctx, waiting); err != nil {
		return err
	}
	if r.size, err = s.tarSize(l); err != nil {
		return err
	}
	if r.files, err = s.openFiles(l.ID); err != nil {
		return err
	}
	if r.split, err = s.openSplit(l.ID); err != nil {
		return err
	}
	if r.from, err = newSplitReader(r.split); err != nil {
		return fmt.Errorf("%s: %w", r.split.Name(), err)
	}
	return nil
}

// Through has files read by way of clones.
func (r *layerReader) Through(via oci.CloneFunc) { r.via = via }

// Read gives the tar.
func (r *layerReader) Read(p []byte) (n int, err error) {
	for r.err == nil && n < len(p) {
		var m int
		switch {
		case len(r.segment) > 0:
			m = copy(p[n:], r.segment)
			r.segment = r.segment[m:]
		case r.file != nil:
			m, r.err = r.content(p[n:])
		default:
			r.err = r.next()
		}
		n, r.at = n+m, r.at+int64(m)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// next goes to the next entry.
func (r *layerReader) next() error {
	if err := r.ctx.Err(); err != nil {
		return context.Cause(r.ctx)
	}
	e, err := r.from.next()
	switch {
	case err == io.EOF && r.at < r.size:
		return r.lengthError()
	case err == io.EOF:
		return err
	case err != nil:
		return fmt.Errorf("%s: %w", r.split.Name(), err)
	case e.Type == storage.SegmentType:
		r.segment = e.Payload
		return r.room(int64(len(r.segment)))
	case e.Size == 0:
		return nil
	}
	return r.open(e)
}

// room makes sure that the tar does not become longer than it was.
func (r *layerReader) room(n int64) error {
	if n > r.size-r.at {
		return r.lengthError()
	}
	return nil
}

// lengthError says that a layer comes out with another length. That happens to sparse files: tar-split notes them with
// their holes filled.
func (r *layerReader) lengthError() error {
	return fmt.Errorf("%s does not give back the layer's tar of %d bytes: the layer may have sparse files, which it can't keep; %s", r.split.Name(), r.size, advice)
}

// open opens the file with the next content.
func (r *layerReader) open(e *storage.Entry) error {
	if err := r.room(e.Size); err != nil {
		return err
	}
	name := path.Clean("/" + e.GetName())[1:]
	if name == "" {
		return fmt.Errorf("%s: the root has a content", r.split.Name())
	}
	f, size, err := r.files.regular(name, inside)
	if err != nil {
		return explainAccess(err)
	}
	if size != e.Size {
		return errors.Join(fmt.Errorf("%s has %d bytes, in the layer it had %d: it was changed in the store; %s", shown(f.Name()), size, e.Size, advice), f.Close())
	}
	if r.via != nil {
		if clone := r.via(f, r.at, size); clone != nil {
			_ = f.Close() // nothing was written to it
			f = clone
		}
	}
	r.file, r.left, r.want = f, size, append(r.want[:0], e.Payload...)
	r.sum.Reset()
	return nil
}

// content reads on in the current file.
func (r *layerReader) content(p []byte) (int, error) {
	n, err := r.file.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.sum.Write(p[:n])
	switch {
	case err == io.EOF:
		return n, fmt.Errorf("%s: became shorter while it was read", shown(r.file.Name()))
	case err != nil || r.left > 0:
		return n, err
	}
	if !bytes.Equal(r.sum.Sum(nil), r.want) {
		return n, fmt.Errorf("%s: is not what the layer had: it was changed in the store; %s", shown(r.file.Name()), advice)
	}
	err = r.file.Close()
	r.file = nil
	return n, err
}

// Close gives back the lock.
func (r *layerReader) Close() error {
	var errs []error
	for _, f := range []*os.File{r.file, r.split, r.files.f} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	r.file, r.split, r.files.f = nil, nil, nil
	errs = append(errs, r.held.release())
	r.held = nil
	if r.err == nil {
		r.err = os.ErrClosed
	}
	return errors.Join(errs...)
}
