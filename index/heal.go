package index

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// HealOptions are those of the functions that restore what a store has lost. All may be zero.
type HealOptions struct {
	Limits   Limits
	Progress Progress
}

func (o HealOptions) withDefaults() HealOptions {
	o.Limits = o.Limits.withDefaults()
	if o.Progress == nil {
		o.Progress = silent{}
	}
	return o
}

// errEnough ends the reading of a layer that has given all that was wanted of it.
var errEnough = errors.New("all that was wanted is there")

// RefetchObjects restores objects that are missing or damaged from a layer that has them, and reads no more of it than it
// takes to come by them: each is what its own digest says, so the rest need not be seen. fetched is how many bytes of the
// blob were read. An error says what is wrong with the source if it does not give all of them; what it gives is kept.
//
// The objects are not durable before store.Sync, and not settled before store.Settled.
func RefetchObjects(ctx context.Context, s *store.Store, src oci.Source, l oci.Layer, want []fsverity.Digest, o HealOptions) (restored []fsverity.Digest, fetched int64, err error) {
	if restored, fetched, err = refetchObjects(ctx, s, src, l, want, o); err != nil {
		err = fmt.Errorf("layer %s of %s: %w", l.Descriptor.Digest, src, err)
	}
	return restored, fetched, err
}

func refetchObjects(ctx context.Context, s *store.Store, src oci.Source, l oci.Layer, want []fsverity.Digest, o HealOptions) (restored []fsverity.Digest, fetched int64, err error) {
	if len(want) == 0 {
		return nil, 0, nil
	}
	r := &refetching{HealOptions: o.withDefaults(), s: s, layer: l}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r.want = newWanted(s, want, func() { stop(errEnough) })
	err = r.run(ctx, src)
	restored, werr := r.want.result()
	if werr != nil {
		return restored, r.fetched, werr
	}
	if left := r.want.missing(); len(left) > 0 {
		return restored, r.fetched, &notGivenError{left, err}
	}
	return restored, r.fetched, nil
}

// notGivenError says that a source does not give what is wanted.
type notGivenError struct {
	left []fsverity.Digest
	err  error
}

func (e *notGivenError) Error() string { return fmt.Sprintf("restore %s: %v", someOf(e.left), e.err) }
func (e *notGivenError) Unwrap() error { return e.err }

// someOf names objects in a message.
func someOf(ds []fsverity.Digest) string {
	if len(ds) == 1 {
		return "object " + ds[0].String()
	}
	return fmt.Sprintf("%d objects, object %s among them", len(ds), ds[0])
}

type refetching struct {
	HealOptions
	s       *store.Store
	layer   oci.Layer
	want    *wanted
	fetched int64
}

// run reads the layer to where it has given everything. What it gave is not its business.
func (r *refetching) run(ctx context.Context, src oci.Source) error {
	var err error
	if r.layer, err = oci.Stored(ctx, src, r.layer); err != nil {
		return err
	}
	err = readBlob(ctx, src, r.layer.Descriptor, func(blob io.Reader, abort func()) error { return r.read(ctx, blob, abort) })
	if err == nil && len(r.want.missing()) > 0 {
		err = errors.New("it is the right layer, but they are none of its files")
	}
	return err
}

// read reads the layer's blob. Whether it is the right one is of no interest once it has given everything.
func (r *refetching) read(ctx context.Context, blob io.Reader, abort func()) error {
	tell := r.Progress.Start(Reading, r.layer)
	if tell == nil {
		tell = func(int64) {}
	}
	count := func(n int64) {
		r.fetched += n
		tell(n)
	}
	result, err := readFor(ctx, r.want, blob, r.layer.Descriptor.Size, readOptions{
		Limits: r.Limits, tell: count, abort: abort, whole: wholeTar(r.s, r.layer.DiffID),
	})
	if len(r.want.missing()) == 0 {
		tell(0)
		return nil
	}
	if err != nil {
		return err
	}
	return checkClaims(r.layer, result)
}

type readOptions struct {
	Limits
	tell  func(int64)
	abort func()
	whole fsverity.Digest // an object that holds the tar itself; zero: there is none
}

// readFor reads a layer's blob for the contents that are wanted. Where it gets them all before the end, the error is
// errEnough, or what the context ended with.
func readFor(ctx context.Context, w *wanted, blob io.Reader, size int64, o readOptions) (*layerResult, error) {
	h := startHashers(w)
	defer h.stop()
	j := &layerJob{
		hashers: h, to: w, alg: w.s.Algorithm(), limits: o.Limits, tell: o.tell, abort: o.abort, forget: true,
	}
	if o.whole.IsZero() || !w.wants(o.whole) {
		return j.read(ctx, blob, size)
	}
	tar, err := w.create()
	if err != nil {
		return nil, err
	}
	defer tar.Abort()
	j.tee = tar
	r, err := j.read(ctx, blob, size)
	if err == nil {
		_, _, err = tar.Commit()
	}
	return r, err
}

// wholeTar is the object that holds a layer's tar, if the store has the layer whole.
func wholeTar(s *store.Store, d oci.DiffID) (tar fsverity.Digest) {
	id, err := s.Entry(store.Streams, LayerEntry(d))
	if err != nil {
		return tar
	}
	l, err := openLayer(s, id)
	if err != nil {
		return tar
	}
	defer l.Close()
	return firstObject(l.Stream)
}

// firstObject is the object that a stream's original begins with; zero: it begins with other bytes, or can't be read.
func firstObject(st *stream.Stream) fsverity.Digest {
	chunks := st.Chunks()
	defer chunks.Close()
	c, err := chunks.Next()
	if err != nil || c.Object < 0 {
		return fsverity.Digest{}
	}
	return st.Object(c.Object)
}
