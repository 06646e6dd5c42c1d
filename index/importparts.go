package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// partsShare is what the layers have in common that are fetched in parts.
type partsShare struct {
	tables   *semaphore.Weighted // for the bytes of TOCs
	requests *semaphore.Weighted

	once  sync.Once
	files *candidates
	err   error
}

func newPartsShare() *partsShare {
	return &partsShare{tables: semaphore.NewWeighted(maxTOC), requests: semaphore.NewWeighted(requestsAtOnce)}
}

// storedFiles are those of related images, which are looked for once.
func (im *importer) storedFiles(ctx context.Context) (*candidates, error) {
	p := im.parts
	p.once.Do(func() { p.files, p.err = relatedFiles(ctx, im.s, im.Name, im.src) })
	return p.files, p.err
}

// errNotWorth ends the attempt to fetch a layer in parts where it is as well to fetch all of it.
var errNotWorth = errors.New("that saves nothing")

// fetchParts takes a layer from files that the store has and from parts of its blob. It is false if all of the blob has to be
// fetched: if the layer has no tables or the source gives no parts, if that saves nothing, or if anything goes wrong. Of what
// the tables say nothing is believed: each content is compared with its digest, and the tar that all comes to with the diffID.
func (im *importer) fetchParts(ctx context.Context, l *importedLayer) (bool, error) {
	src, ok := im.src.(oci.RangeSource)
	if _, remote := im.src.(oci.NetworkSource); !ok || !remote || im.s == nil || l.Descriptor.Size < minBlob {
		return false, nil // from a file it is cheaper to read all
	}
	if b := im.blobOf(l.Descriptor.Digest); b != nil && b.id.IsZero() {
		return false, nil // the blob itself is wanted
	}
	at, err := findTables(l.Descriptor)
	for again := err == nil; again; {
		again, err = im.readParts(ctx, src, l, at)
	}
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case !errors.Is(err, errNotChunked) && !errors.Is(err, errNotWorth):
		im.Progress.Step(fmt.Sprintf("%s: all of it is fetched, as its parts can't be: %v", l, err))
	}
	return false, nil
}

// readParts reads a layer in parts. If they are wrong and others may have them right, it is to be called again.
func (im *importer) readParts(ctx context.Context, src oci.RangeSource, l *importedLayer, at *chunkedTables) (again bool, err error) {
	if !saves([]span{at.toc.span(), at.tarSplit.span()}, l.Descriptor.Size) {
		return false, errNotWorth
	}
	files, err := im.storedFiles(ctx)
	if err != nil || files.files == 0 {
		return false, errors.Join(err, errNotWorth)
	}
	if err := im.parts.tables.Acquire(ctx, at.toc.size); err != nil {
		return false, err
	}
	defer im.parts.tables.Release(at.toc.size)
	f, err := im.s.Scratch()
	if err != nil {
		return false, err
	}
	defer f.Close()
	b := &blobParts{src: src, desc: l.Descriptor, requests: im.parts.requests, file: f}
	err = im.readFromParts(ctx, l, at, b, files)
	l.parts += b.fetched.Load()
	return err != nil && ctx.Err() == nil && !errors.Is(err, errNotWorth) && b.elsewhere(err, l.DiffID), err
}

func (im *importer) readFromParts(ctx context.Context, l *importedLayer, at *chunkedTables, b *blobParts, files *candidates) error {
	size := l.Descriptor.Size
	t, err := b.readTables(ctx, at, im.tocLimits(size))
	if err != nil {
		return err
	}
	have, err := files.match(ctx, im.s, t)
	if err != nil {
		return err
	}
	parts := mergeSpans(t.missing(have), at.toc.length+at.tarSplit.length)
	if !saves(parts, size) {
		return errNotWorth
	}
	if err := im.readTocTar(ctx, l, b, parts, at.tarSplit, &partContents{s: im.s, toc: t, have: have}); err != nil {
		return err
	}
	l.inParts = true
	return nil
}

// tocLimits hold a TOC against the limits of any layer.
func (im *importer) tocLimits(blob int64) tocLimits {
	l := tocLimits{blob: blob, maxFiles: im.Limits.MaxEntries, maxSize: im.Limits.MaxLayerSize}
	if im.Limits.MaxRatio < l.maxSize/blob {
		l.maxSize = max(ratioFrom, blob*im.Limits.MaxRatio)
	}
	return l
}

// readTocTar puts the tar together, and reads it as that of any layer, while the parts come.
func (im *importer) readTocTar(ctx context.Context, l *importedLayer, b *blobParts, parts []span, tarSplit tablePlace, c *partContents) (err error) {
	announced := l.Layer
	announced.Descriptor.Size = totalLength(parts)
	if b.tell = im.Progress.Start(Reading, announced); b.tell != nil {
		defer b.tell(0)
	}
	ctx, abort := context.WithCancel(ctx)
	a := b.start(ctx, parts)
	defer func() {
		abort()
		_ = a.group.Wait() // what went wrong is known by who waited for it
	}()
	lines, err := newFrames(b.file)
	if err != nil {
		return err
	}
	defer lines.close()
	if c.frames, err = newFrames(b.file); err != nil {
		return err
	}
	defer c.frames.close()
	c.arrivals = a
	rows, err := lines.open(tarSplit.span(), tarSplit.size)
	if err != nil {
		return err
	}
	tar := newTocTar(c.toc, rows, c.open)
	defer func() { err = errors.Join(err, tar.Close()) }()
	return im.take(ctx, l, layerInput{r: tar, size: -1, abort: abort, check: func(r *layerResult) error {
		return checkDiffID(l.Layer, r)
	}})
}

// partContents opens contents where they are: in the store, or in parts of the blob.
type partContents struct {
	s        *store.Store
	toc      *toc
	have     []storedContent // of each content; what is missing is in a part
	frames   *frames
	arrivals *arrivals
}

func (p *partContents) open(number int32) (io.ReadCloser, error) {
	switch h := &p.have[number]; {
	case h.inline != nil:
		return io.NopCloser(bytes.NewReader(h.inline)), nil
	case !h.missing():
		return p.s.OpenObject(h.object)
	}
	c := &p.toc.contents[number]
	if err := p.arrivals.wait(c.span); err != nil {
		return nil, err
	}
	return p.frames.content(c)
}

func checkDiffID(l oci.Layer, r *layerResult) error {
	if r.diffID != l.DiffID {
		return &oci.DigestError{What: "tar (the config's diffID)", Want: digest.Digest(l.DiffID), Got: digest.Digest(r.diffID)}
	}
	return nil
}

// noteOrigin remembers where a layer came from. Of one that was fetched in parts nobody has seen the blob, so that nothing is
// said about what is in it; but that it is there holds, and who fetches it to repair the layer checks it.
func (l *importedLayer) noteOrigin(s *store.Store, src oci.Source) error {
	if l.inParts {
		return writeOrigin(s, digest.Digest(l.DiffID), src, l.Descriptor)
	}
	return noteOrigin(s, src, l.Layer)
}
