package index

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// LayerEntry is the name under which a store has the stream of a layer.
func LayerEntry(d oci.DiffID) string { return layerPrefix + d.String() }

// storedLayer is a layer stream of a store.
type storedLayer struct {
	*stream.Stream
	s    *store.Store
	file *os.File
}

func openLayer(s *store.Store, id fsverity.Digest) (*storedLayer, error) {
	f, err := s.OpenObject(id)
	if err != nil {
		return nil, fmt.Errorf("open layer stream: %w", err)
	}
	st, err := openStream(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer stream %s: %w", id, err), f.Close())
	}
	return &storedLayer{st, s, f}, nil
}

func openStream(f *os.File) (*stream.Stream, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return stream.Open(f, info.Size())
}

func (l *storedLayer) Close() error { return l.file.Close() }

// writeTar writes the layer's tar, bit for bit what was imported.
func (l *storedLayer) writeTar(ctx context.Context, w io.Writer) error {
	n, err := l.Copy(contextWriter{ctx, w}, l.open)
	if err == nil && n != l.Size() {
		err = fmt.Errorf("the layer stream gives %d bytes of %d", n, l.Size())
	}
	return err
}

func (l *storedLayer) open(d fsverity.Digest) (stream.Object, error) { return openObject(l.s)(d) }

func openObject(s *store.Store) stream.Opener {
	return func(d fsverity.Digest) (stream.Object, error) { return s.OpenObject(d) }
}

// contextWriter ends a long copy when its context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// WriteTar writes the tar of a layer that the store has, and compares what it wrote with the diffID.
func WriteTar(ctx context.Context, s *store.Store, d oci.DiffID, w io.Writer) error {
	id, err := s.Entry(store.Streams, LayerEntry(d))
	if err != nil {
		return fmt.Errorf("layer %s: %w", d, err)
	}
	got, err := tarDigest(ctx, s, id, w)
	if err != nil {
		return fmt.Errorf("layer %s: %w", d, err)
	}
	if got != d {
		return &oci.DigestError{What: "tar that the layer stream gives", Want: digest.Digest(d), Got: digest.Digest(got)}
	}
	return nil
}

// tarDigest writes a layer stream's tar to w and hashes it.
func tarDigest(ctx context.Context, s *store.Store, id fsverity.Digest, w io.Writer) (oci.DiffID, error) {
	l, err := openLayer(s, id)
	if err != nil {
		return "", err
	}
	defer l.Close()
	hash := sha256.New()
	if err := l.writeTar(ctx, io.MultiWriter(hash, w)); err != nil {
		return "", err
	}
	return oci.DiffID(digest.NewDigest(digest.SHA256, hash)), nil
}

// loadLayer reads the entries of a layer that the store has. Contents are not read, but for sparse files and for layers
// that are stored uncut, or cut elsewhere by another tool.
func loadLayer(ctx context.Context, s *store.Store, d oci.DiffID, id fsverity.Digest, limits Limits, b *bounds) (*Layer, error) {
	l, err := openLayer(s, id)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if l.Type() != stream.OCILayer {
		return nil, fmt.Errorf("layer stream %s: content type %s, not a layer's", id, l.Type())
	}
	layer, err := l.loadCut(ctx, d, limits, b)
	if errors.Is(err, errCut) {
		layer, err = l.loadWhole(ctx, d, limits, b)
	}
	if err != nil {
		return nil, fmt.Errorf("layer stream %s: %w", id, err)
	}
	layer.refs = l.NumObjects()
	return layer, nil
}

// loadCut reads headers and small files alone. It gives errCut if it can't tell them from the rest.
func (l *storedLayer) loadCut(ctx context.Context, d oci.DiffID, limits Limits, b *bounds) (*Layer, error) {
	in := &streamInput{l: l, chunks: l.Chunks(), ctx: ctx, layer: newLayer(l.Algorithm(), d)}
	defer in.chunks.Close()
	if err := in.start(); err != nil {
		return nil, err
	}
	kept := 0
	_, err := parseTar(in, limits, func(e *Entry) error {
		n := in.layer.entries.add(e)
		kept += n
		return cmp.Or(b.keep(n), ctx.Err())
	})
	if err != nil {
		b.drop(kept)
		return nil, err
	}
	return in.layer, nil
}

// streamInput is parseTar's input while a layer is read back from its stream.
type streamInput struct {
	l      *storedLayer
	chunks *stream.ChunkReader
	chunk  stream.Chunk
	atEnd  bool
	ctx    context.Context
	layer  *Layer
	refs   map[fsverity.Digest]bool // what the stream refers to, once it was asked for
}

// start looks at the first chunk. A tar begins with a header, so an object there is a whole tar.
func (in *streamInput) start() error {
	err := in.next()
	if err == nil && !in.atEnd && in.chunk.Object >= 0 {
		err = errCut
	}
	return err
}

func (in *streamInput) next() error {
	chunk, err := in.chunks.Next()
	if err == io.EOF {
		in.atEnd = true
		return nil
	}
	in.chunk = chunk
	return err
}

var errCut = errors.New("the stream is cut at other places than its tar's headers say")

func (in *streamInput) Read(p []byte) (int, error) {
	for {
		if in.atEnd {
			return 0, io.EOF
		}
		if in.chunk.Object >= 0 {
			return 0, errCut
		}
		n, err := in.chunks.Read(p)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		if err := in.next(); err != nil {
			return 0, err
		}
		if !in.atEnd && in.chunk.Object >= 0 {
			return 0, errCut
		}
	}
}

// object takes the object that must come next.
func (in *streamInput) object() (fsverity.Digest, error) {
	if !in.atEnd && in.chunk.Object < 0 {
		var b [1]byte
		if n, err := in.chunks.Read(b[:]); n > 0 || err != io.EOF {
			return fsverity.Digest{}, errors.Join(errCut, noEOF(err))
		}
		if err := in.next(); err != nil {
			return fsverity.Digest{}, err
		}
	}
	if in.atEnd || in.chunk.Object < 0 {
		return fsverity.Digest{}, errCut
	}
	d := in.l.Object(in.chunk.Object)
	return d, in.next()
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (in *streamInput) External(int64) (int, error) {
	d, err := in.object()
	if err != nil {
		return 0, err
	}
	return in.layer.objects.add(d), nil
}

// Sparse computes the digest of the expanded file anew: the stream keeps its object but does not say which one it is.
func (in *streamInput) Sparse(stored int64, m []segment, size int64) (int, []byte, error) {
	var r io.Reader = in
	if stored > InlineMax {
		d, err := in.object()
		if err != nil {
			return 0, nil, err
		}
		f, err := in.l.s.OpenObject(d)
		if err != nil {
			return 0, nil, err
		}
		defer f.Close()
		r = f
	}
	c, small, err := expand(hashed{in.l.s.Algorithm()}, r, m, size)
	if err != nil || c == nil {
		return -1, small, err
	}
	if !in.keeps(c.digest) { // the stored form is damaged, or the stream
		return 0, nil, fmt.Errorf("a sparse file expands to object %s, to which the stream does not refer", c.digest)
	}
	return in.layer.objects.add(c.digest), nil, nil
}

// keeps tells whether the stream refers to an object.
func (in *streamInput) keeps(d fsverity.Digest) bool {
	if in.refs == nil {
		in.refs = make(map[fsverity.Digest]bool, in.l.NumObjects())
		for i := range in.l.NumObjects() {
			in.refs[in.l.Object(i)] = true
		}
	}
	return in.refs[d]
}

// loadWhole reads the whole tar that the stream gives, and hashes all contents anew.
func (l *storedLayer) loadWhole(ctx context.Context, d oci.DiffID, limits Limits, b *bounds) (*Layer, error) {
	tar, w := io.Pipe()
	defer tar.Close()
	go func() { w.CloseWithError(l.writeTar(ctx, w)) }()
	to := hashed{l.Algorithm()}
	h := startHashers(to)
	defer h.stop()
	r, err := (&layerJob{hashers: h, to: to, alg: l.Algorithm(), limits: limits, bounds: b}).read(ctx, tar, -1)
	if err != nil {
		return nil, err
	}
	if r.diffID != d {
		return nil, &oci.DigestError{What: "tar of the layer", Want: digest.Digest(d), Got: digest.Digest(r.diffID)}
	}
	return r.layer, nil
}
