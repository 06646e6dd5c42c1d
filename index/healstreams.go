package index

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// The names of streams, before the digest.
const (
	layerPrefix    = "oci-layer-"
	blobPrefix     = "oci-blob-"
	manifestPrefix = "oci-manifest-"
	indexPrefix    = "oci-index-"
)

// ObjectsFromStreams restores objects that are missing or damaged from what else the store has of them: the tar of a layer
// that is stored whole holds the contents of its files, as does a blob that was kept; a layer that is cut gives back the tar
// that a blob is; a sparse file's stored form gives the expanded one. What can't be read on the way is not told of: it just
// gives nothing. The error is about storing what was found.
func ObjectsFromStreams(ctx context.Context, s *store.Store, want []fsverity.Digest) (restored []fsverity.Digest, err error) {
	if len(want) == 0 {
		return nil, nil
	}
	stopped, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	f := &streamFinder{s: s, want: newWanted(s, want, func() { stop(errEnough) })}
	for e, err := range s.Entries(store.Streams) {
		if stopped.Err() != nil {
			break
		}
		if err == nil {
			f.look(stopped, e)
		}
	}
	restored, err = f.want.result()
	return restored, errors.Join(err, ctx.Err())
}

type streamFinder struct {
	s    *store.Store
	want *wanted
}

// look takes from a stream what it has. All that goes wrong in reading it is its own fault, and for a check to find.
func (f *streamFinder) look(ctx context.Context, e store.EntryInfo) {
	layer, isLayer := strings.CutPrefix(e.Name, layerPrefix)
	blob, isBlob := strings.CutPrefix(e.Name, blobPrefix)
	if !isLayer && !isBlob {
		return
	}
	l, err := openLayer(f.s, e.Digest)
	if err != nil {
		return
	}
	defer l.Close()
	whole := firstObject(l.Stream)
	switch {
	case isBlob && f.want.wants(whole):
		f.giveTar(ctx, oci.DiffID(blob))
	case isBlob && f.blobMayHelp(blob), isLayer && !whole.IsZero() && f.refersTo(l.Stream):
		f.read(ctx, l)
	case isLayer && whole.IsZero() && f.refersTo(l.Stream):
		f.expand(ctx, l, oci.DiffID(layer))
	}
}

func (f *streamFinder) refersTo(st *stream.Stream) bool {
	for i := range st.NumObjects() {
		if f.want.wants(st.Object(i)) {
			return true
		}
	}
	return false
}

// blobMayHelp tells whether what is wanted is, or may be, in the layer that a blob is.
func (f *streamFinder) blobMayHelp(blob string) bool {
	diffID := blob
	if note, err := f.s.Note(notesBlobs, blob); err == nil {
		diffID = note
	}
	if oci.CheckDigest(digest.Digest(diffID)) != nil {
		return false
	}
	id, err := f.s.Entry(store.Streams, LayerEntry(oci.DiffID(diffID)))
	if err != nil {
		return true // nobody knows
	}
	l, err := openLayer(f.s, id)
	if err != nil {
		return true
	}
	defer l.Close()
	return f.refersTo(l.Stream)
}

// read cuts a layer, compressed or not, that is the original of a stream.
func (f *streamFinder) read(ctx context.Context, l *storedLayer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(l.writeTar(ctx, w)) }()
	_, _ = readFor(ctx, f.want, r, -1, readOptions{Limits: f.limits(l)})
}

// limits are those for reading what a stream holds. A layer was held against limits when it came in, a blob may be anything.
func (f *streamFinder) limits(l *storedLayer) Limits {
	if l.Type() == stream.OCILayer {
		return noLimits()
	}
	return Limits{}
}

// giveTar writes the tar of a layer that is cut, which an uncompressed blob of its diffID is too.
func (f *streamFinder) giveTar(ctx context.Context, d oci.DiffID) {
	id, err := f.s.Entry(store.Streams, LayerEntry(d))
	if err != nil {
		return
	}
	l, err := openLayer(f.s, id)
	if err != nil {
		return
	}
	defer l.Close()
	o, err := f.want.create()
	if err != nil {
		return
	}
	defer o.Abort()
	if l.writeTar(ctx, o) == nil {
		_, _, _ = o.Commit()
	}
}

// expand writes the expanded forms of sparse files anew.
func (f *streamFinder) expand(ctx context.Context, l *storedLayer, d oci.DiffID) {
	in := &sparseInput{streamInput{l: l, chunks: l.Chunks(), ctx: ctx, layer: newLayer(l.Algorithm(), d)}, f.want}
	defer in.chunks.Close()
	if in.start() == nil {
		_, _ = parseTar(in, noLimits(), func(*Entry) error { return ctx.Err() })
	}
}

// sparseInput is parseTar's input for that. A stored form that can't be read does not keep it from reading on.
type sparseInput struct {
	streamInput
	want *wanted
}

func (in *sparseInput) Sparse(stored int64, m []segment, size int64) (int, []byte, error) {
	if stored <= InlineMax {
		_, _, err := expand(in.want, &in.streamInput, m, size)
		return -1, nil, err
	}
	d, err := in.object()
	if err != nil {
		return 0, nil, err
	}
	if file, err := in.l.s.OpenObject(d); err == nil {
		_, _, _ = expand(in.want, file, m, size)
		file.Close()
	}
	return -1, nil, nil
}
