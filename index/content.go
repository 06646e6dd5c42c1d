package index

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// contents is where the contents of files go: into a store, or nowhere but through the hash.
type contents interface {
	put(b []byte) (d fsverity.Digest, isNew bool, err error)
	create() (contentWriter, error)
}

// contentWriter takes the content of one file. Either Commit or Abort ends it; Abort after Commit does nothing.
type contentWriter interface {
	io.Writer
	WriteHole(n int64) error
	Commit() (d fsverity.Digest, isNew bool, err error)
	Abort()
}

// stored puts contents into a store as objects.
type stored struct{ s *store.Store }

func (c stored) put(b []byte) (fsverity.Digest, bool, error) {
	d := fsverity.Sum(c.s.Algorithm(), b)
	isNew, err := c.s.PutObject(d, b)
	return d, isNew, err
}

func (c stored) create() (contentWriter, error) { return c.s.NewObject() }

// hashed computes digests and keeps nothing.
type hashed struct{ alg fsverity.Algorithm }

func (c hashed) put(b []byte) (fsverity.Digest, bool, error) {
	return fsverity.Sum(c.alg, b), false, nil
}

func (c hashed) create() (contentWriter, error) { return hashWriter{fsverity.NewHasher(c.alg)}, nil }

type hashWriter struct{ *fsverity.Hasher }

func (w hashWriter) WriteHole(n int64) error {
	w.WriteZeros(n)
	return nil
}

func (w hashWriter) Commit() (fsverity.Digest, bool, error) { return w.Sum(), false, nil }

func (w hashWriter) Abort() {}

const (
	// chunkBytes is how much of a tar is inflated at once: small enough to stay in a core's cache until it is hashed.
	chunkBytes = 256 << 10
	// wholeMax is the size in bytes up to which a file is gathered in memory, so that an object that is there already is
	// not written. Larger ones stream to an unnamed file.
	wholeMax = 1 << 20
	// inFlight bounds the bytes of files that wait to be hashed.
	inFlight = 8 << 20
)

// chunk is a stretch of a tar, shared by all who still read from it.
type chunk struct {
	b    []byte
	refs atomic.Int32
}

var chunkPool = sync.Pool{New: func() any { return &chunk{b: make([]byte, chunkBytes)} }}

func newChunk() *chunk {
	c := chunkPool.Get().(*chunk)
	c.b = c.b[:cap(c.b)]
	c.refs.Store(1)
	return c
}

func (c *chunk) retain() *chunk {
	c.refs.Add(1)
	return c
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		chunkPool.Put(c)
	}
}

// content is a file's content on its way to its digest, which is there when done is closed.
type content struct {
	size   int64
	cloned bool
	digest fsverity.Digest
	isNew  bool
	err    error
	done   chan struct{}
}

// errGivenUp ends a content whose bytes could not be read. Who gave it up knows why, and tells.
var errGivenUp = errors.New("content given up")

func (c *content) finish(d fsverity.Digest, isNew bool, err error) {
	c.digest, c.isNew, c.err = d, isNew, err
	close(c.done)
}

// job is a content with its bytes, in memory that a chunk or a buffer owns.
type job struct {
	c     *content
	whole []byte
	owner *chunk
}

// stretch is a part of a content that is too large to be gathered.
type stretch struct {
	b     []byte
	owner *chunk
}

// hashers is a bounded pool that hashes and stores contents for all layers of an import.
type hashers struct {
	to    contents
	jobs  chan job
	bytes *semaphore.Weighted
	wg    sync.WaitGroup
}

func startHashers(to contents) *hashers {
	h := &hashers{to: to, jobs: make(chan job, 64), bytes: semaphore.NewWeighted(inFlight)}
	for range runtime.GOMAXPROCS(0) {
		h.wg.Go(func() {
			for j := range h.jobs {
				h.run(j)
			}
		})
	}
	return h
}

// stop waits for what was submitted. Nothing may be submitted any more.
func (h *hashers) stop() {
	close(h.jobs)
	h.wg.Wait()
}

func (h *hashers) run(j job) {
	d, isNew, err := h.to.put(j.whole)
	h.bytes.Release(int64(len(j.whole)))
	if j.owner != nil {
		j.owner.release()
	}
	j.c.finish(d, isNew, err)
}

// start hashes a content that comes in stretches, apart from the pool: its layer may be waiting for a network, and must not
// hold up the others meanwhile. clone takes it if there is one.
func (h *hashers) start(c *content, stretches <-chan stretch, clone contentWriter) {
	h.wg.Go(func() { c.finish(h.stream(c.size, stretches, clone)) })
}

// stream writes a large file. It takes all stretches, even after an error, so that who sends them never waits in vain. A file
// that they do not make whole is not kept.
func (h *hashers) stream(size int64, stretches <-chan stretch, clone contentWriter) (d fsverity.Digest, isNew bool, err error) {
	w := clone
	if w == nil {
		w, err = h.to.create()
	}
	if err == nil {
		defer w.Abort()
	}
	for p := range stretches {
		if err == nil {
			_, err = w.Write(p.b)
		}
		size -= int64(len(p.b))
		p.owner.release()
	}
	if err == nil && size != 0 {
		err = errGivenUp
	}
	if err != nil {
		return d, false, err
	}
	return w.Commit()
}

// submit queues a content that is whole in memory.
func (h *hashers) submit(ctx context.Context, j job) error {
	if err := h.bytes.Acquire(ctx, int64(len(j.whole))); err != nil {
		return err
	}
	select {
	case h.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
