package index

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store/stream"
)

// layerJob is the reading of one layer: its tar is inflated, hashed and cut in one pass.
//
//	blob → inflater → chunks → cutter (diffID, parseTar) → parts → encoder → stream writer
//	                                     └→ hashers → object digests ──┘
type layerJob struct {
	hashers *hashers
	to      contents
	alg     fsverity.Algorithm
	limits  Limits
	bounds  *bounds        // of the image; nil: there is no other layer
	stream  *stream.Writer // nil: nothing is stored
	tell    func(n int64)  // compressed bytes read, for progress
	abort   func()         // ends the reading of the blob, which may be waiting for a network; may be nil
	tee     io.Writer      // gets the tar; may be nil
	keep    io.Writer      // gets the blob; may be nil
	forget  bool           // the entries are not wanted
	unnamed bool           // the digests of blob and tar are not wanted
}

// layerResult is what came of it. Nothing in it has been compared with what the layer claims to be.
type layerResult struct {
	layer      *Layer
	blob       digest.Digest // of the bytes as stored
	blobSize   int64
	diffID     oci.DiffID
	tarSize    int64
	report     tarReport
	newObjects int
	newBytes   int64
	cloned     int64 // bytes of new objects that share their blocks with files of the source
	kept       int   // bytes of entries, counted in bounds
}

// read reads a layer's blob to its end. size is the announced length, -1 if none was.
func (j *layerJob) read(ctx context.Context, blob io.Reader, size int64) (*layerResult, error) {
	j.limits = j.limits.withDefaults()
	if j.bounds == nil {
		j.bounds = newBounds(j.limits)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if j.abort != nil {
		defer context.AfterFunc(ctx, j.abort)()
	}
	files := readThrough(blob, j.to)
	defer files.close()
	in := startInflater(ctx, blob, size, j)
	e := startEncoder(j, cancel)
	c := &cutter{job: j, ctx: ctx, in: in, parts: e.parts, diff: j.newHash(), files: files}
	report, err := parseTar(c, j.limits, c.entry)
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		cancel(err)
	}
	close(e.parts)
	<-e.done
	c.close()
	// What went wrong first is the reason for all that followed.
	if cause := context.Cause(ctx); cause != nil {
		j.bounds.drop(c.kept)
		return nil, cause
	}
	r := &layerResult{
		layer: &e.layer, blob: in.blob.digest(), blobSize: in.blob.n, tarSize: in.out, report: report,
		newObjects: e.newObjects, newBytes: e.newBytes, cloned: e.cloned, kept: c.kept,
	}
	r.layer.entries = c.log
	r.diffID = oci.DiffID(digest.NewDigest(digest.SHA256, c.diff))
	if in.compression == plain {
		r.diffID = oci.DiffID(r.blob)
	}
	r.layer.DiffID = r.diffID
	return r, nil
}

func (j *layerJob) newHash() hash.Hash {
	if j.unnamed {
		return unhashed{sha256.New()}
	}
	return sha256.New()
}

// unhashed is the hash of what needs no digest: always that of nothing.
type unhashed struct{ hash.Hash }

func (unhashed) Write(p []byte) (int, error) { return len(p), nil }

// part is a stretch of the tar: bytes that stay inline, then a content.
type part struct {
	inline  []byte
	content *content
	keep    bool // the content is no part of the tar, but must stay: the expanded form of a sparse file
}

// cutter is parseTar's input while a layer is imported.
type cutter struct {
	job    *layerJob
	ctx    context.Context
	in     *inflater
	cur    *chunk
	rest   []byte // of cur
	at     int64  // of rest, in the tar
	files  *clones
	diff   hash.Hash
	inline []byte
	parts  chan<- part
	number int // of the next content
	log    entryLog
	kept   int                   // bytes of it
	large  [largeAtOnce]*content // the last ones
	next   int                   // of large
}

// largeAtOnce is how many large files of a layer are being written: one comes in, others may wait for the disk.
const largeAtOnce = 2

// inlineMax bounds the bytes that are gathered before they go to the encoder.
const inlineMax = 32 << 10

func (c *cutter) entry(e *Entry) error {
	if c.job.forget {
		return nil
	}
	n := c.log.add(e)
	c.kept += n
	return c.job.bounds.keep(n)
}

// fill gets the next chunk if the current one is used up.
func (c *cutter) fill() error {
	for len(c.rest) == 0 {
		c.drop()
		next, ok := <-c.in.chunks
		if !ok {
			if c.in.err != nil {
				return c.in.err
			}
			return io.EOF
		}
		if c.in.compression != plain { // else the blob's hash is the tar's
			c.diff.Write(next.b)
		}
		c.cur, c.rest = next, next.b
		if c.job.tee != nil {
			if _, err := c.job.tee.Write(next.b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cutter) drop() {
	if c.cur != nil {
		c.cur.release()
		c.cur = nil
	}
}

// close gives back what the inflater may still send.
func (c *cutter) close() {
	c.drop()
	for next := range c.in.chunks {
		next.release()
	}
}

// take returns the next n bytes at most, at least one, where they are.
func (c *cutter) take(n int64) ([]byte, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	b := c.rest[:min(n, int64(len(c.rest)))]
	c.rest = c.rest[len(b):]
	c.at += int64(len(b))
	return b, nil
}

// Read gives the tar's own bytes and keeps them for the stream.
func (c *cutter) Read(p []byte) (int, error) {
	b, err := c.take(int64(len(p)))
	if err != nil || len(p) == 0 {
		return 0, err
	}
	copy(p, b)
	if c.job.stream == nil {
		return len(b), nil
	}
	c.inline = append(c.inline, b...)
	if len(c.inline) >= inlineMax {
		err = c.flush()
	}
	return len(b), err
}

func (c *cutter) flush() error { return c.send(nil, false) }

func (c *cutter) send(content *content, keep bool) error {
	p := part{inline: c.inline, content: content, keep: keep}
	c.inline = make([]byte, 0, len(c.inline)+512) // the next run is often about as long
	select {
	case c.parts <- p:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// External sends a content to the hashers. The encoder gets it at once and waits for its digest.
func (c *cutter) External(size int64) (int, error) {
	clone, err := c.clone(size)
	if err != nil {
		return 0, err
	}
	content := &content{size: size, cloned: clone != nil, done: make(chan struct{})}
	if err := c.send(content, false); err != nil {
		if clone != nil {
			clone.Abort()
		}
		return 0, err
	}
	c.number++
	if size > wholeMax || clone != nil {
		return c.number - 1, c.stream(content, clone)
	}
	j, err := c.gather(content)
	if err == nil {
		err = c.job.hashers.submit(c.ctx, j)
	}
	if err != nil {
		content.finish(fsverity.Digest{}, false, errGivenUp)
	}
	return c.number - 1, err
}

// gather makes a job of a content: where it lies if a chunk holds all of it, else of a copy.
func (c *cutter) gather(content *content) (job, error) {
	j := job{c: content}
	if err := c.fill(); err != nil {
		return j, short(err)
	}
	if int64(len(c.rest)) >= content.size {
		var err error
		j.whole, err = c.take(content.size)
		j.owner = c.cur.retain()
		return j, err
	}
	j.whole = make([]byte, content.size)
	return j, c.readFull(j.whole)
}

// readFull reads content, which unlike what Read gives does not stay inline.
func (c *cutter) readFull(p []byte) error {
	for len(p) > 0 {
		b, err := c.take(int64(len(p)))
		if err != nil {
			return short(err)
		}
		p = p[copy(p, b):]
	}
	return nil
}

func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clone returns the clone of the next content, which has this size; nil: there is none.
func (c *cutter) clone(size int64) (contentWriter, error) {
	// What is registered is registered before its first byte gets here.
	if err := c.fill(); err != nil {
		return nil, short(err)
	}
	if c.in.compression != plain { // offsets in the blob are none in the tar
		return nil, nil
	}
	return c.files.claim(c.at, size), nil
}

// stream passes a large file on as it comes, or one that is cloned.
func (c *cutter) stream(content *content, clone contentWriter) error {
	if before := c.large[c.next]; before != nil {
		<-before.done
	}
	c.large[c.next], c.next = content, (c.next+1)%largeAtOnce
	stretches := make(chan stretch, 2)
	defer close(stretches)
	c.job.hashers.start(content, stretches, clone)
	for left := content.size; left > 0; {
		b, err := c.take(left)
		if err != nil {
			return short(err)
		}
		left -= int64(len(b))
		select {
		case stretches <- stretch{b, c.cur.retain()}:
		case <-c.ctx.Done():
			c.cur.release()
			return context.Cause(c.ctx)
		}
	}
	return nil
}

// Sparse keeps the stored bytes as a content of the tar, and writes the expanded file besides.
func (c *cutter) Sparse(stored int64, m []segment, size int64) (int, []byte, error) {
	var tar io.Reader = c
	var compact contentWriter
	var err error
	if stored > InlineMax {
		if compact, err = c.job.to.create(); err != nil {
			return 0, nil, err
		}
		defer compact.Abort()
		tar = io.TeeReader(contentReader{c}, compact)
	}
	expanded, small, err := expand(c.job.to, tar, m, size)
	if err != nil {
		return 0, nil, err
	}
	if compact != nil {
		d, isNew, err := compact.Commit()
		if err != nil {
			return 0, nil, err
		}
		if err := c.send(finished(d, isNew, stored), false); err != nil {
			return 0, nil, err
		}
		c.number++
	}
	if small != nil || size == 0 {
		return -1, small, nil
	}
	c.number++
	return c.number - 1, nil, c.send(expanded, true)
}

// contentReader reads a cutter's bytes without keeping them inline.
type contentReader struct{ c *cutter }

func (r contentReader) Read(p []byte) (int, error) {
	b, err := r.c.take(int64(len(p)))
	return copy(p, b), err
}

func finished(d fsverity.Digest, isNew bool, size int64) *content {
	c := &content{size: size, done: make(chan struct{})}
	c.finish(d, isNew, nil)
	return c
}

// expand writes a sparse file's expanded form; one of InlineMax bytes at most is returned instead.
func expand(to contents, r io.Reader, m []segment, size int64) (*content, []byte, error) {
	if size <= InlineMax {
		small := make([]byte, size)
		for _, s := range m {
			if _, err := io.ReadFull(r, small[s.Offset:s.Offset+s.Length]); err != nil {
				return nil, nil, short(err)
			}
		}
		return nil, small, nil
	}
	w, err := to.create()
	if err != nil {
		return nil, nil, err
	}
	defer w.Abort()
	at := int64(0)
	for _, s := range m {
		if err := w.WriteHole(s.Offset - at); err != nil {
			return nil, nil, err
		}
		if _, err := io.CopyN(w, r, s.Length); err != nil {
			return nil, nil, short(err)
		}
		at = s.Offset + s.Length
	}
	if err := w.WriteHole(size - at); err != nil {
		return nil, nil, err
	}
	d, isNew, err := w.Commit()
	return finished(d, isNew, size), nil, err
}

// encoder writes the layer's parts into its stream in their order, which is not the order in which contents get ready.
type encoder struct {
	job        *layerJob
	layer      Layer
	parts      chan part
	done       chan struct{}
	newObjects int
	newBytes   int64
	cloned     int64
}

func startEncoder(j *layerJob, fail context.CancelCauseFunc) *encoder {
	e := &encoder{
		job: j, layer: Layer{objects: digestTable{alg: j.alg}},
		parts: make(chan part, 128), done: make(chan struct{}),
	}
	go func() {
		defer close(e.done)
		var err error
		for p := range e.parts {
			if err == nil {
				if err = e.part(p); err != nil && err != errGivenUp {
					fail(err)
				}
			}
		}
	}()
	return e
}

func (e *encoder) part(p part) error {
	if w := e.job.stream; w != nil && len(p.inline) > 0 {
		if err := w.Inline(p.inline); err != nil {
			return fmt.Errorf("write layer stream: %w", err)
		}
	}
	c := p.content
	if c == nil {
		return nil
	}
	<-c.done
	if c.err != nil {
		return c.err
	}
	e.layer.objects.add(c.digest)
	if c.isNew {
		e.newObjects++
		e.newBytes += c.size
		if c.cloned {
			e.cloned += c.size
		}
	}
	switch w := e.job.stream; {
	case w == nil:
		return nil
	case p.keep:
		return w.Keep(c.digest)
	default:
		return w.External(c.digest, c.size)
	}
}
