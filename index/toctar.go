package index

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/vbatts/tar-split/tar/storage"
)

// maxTarSplitLine bounds a line of tar-split data, in bytes: an extension header and the header behind it, in base64. Limits
// lets none have more than 1 MiB.
const maxTarSplitLine = 4 << 20

// contentOpener opens the content with this number. What it gives ends after the content's size, or gives an error.
type contentOpener func(number int32) (io.ReadCloser, error)

// tocTar is the tar that tar-split data and contents make together. It ends with an error where they don't fit, but what it
// gives is right only if its digest is.
type tocTar struct {
	toc   *toc
	lines *bufio.Scanner
	open  contentOpener
	cur   io.ReadCloser
	name  string // of the file that cur is of
	left  int64  // bytes of cur
}

func newTocTar(t *toc, tarSplit io.Reader, open contentOpener) *tocTar {
	lines := bufio.NewScanner(tarSplit)
	lines.Buffer(nil, maxTarSplitLine)
	return &tocTar{toc: t, lines: lines, open: open}
}

func (t *tocTar) Read(p []byte) (int, error) {
	for t.left == 0 {
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	n, err := t.cur.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	switch {
	case err == io.EOF && t.left > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF:
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("content of %s: %w", quotePath(t.name), err)
	}
	return n, err
}

// next goes to what comes after cur. What comes may be empty.
func (t *tocTar) next() error {
	if err := t.Close(); err != nil {
		return err
	}
	if !t.lines.Scan() {
		if err := t.lines.Err(); err != nil {
			return fmt.Errorf("tar-split data: %w", err)
		}
		return io.EOF
	}
	var e storage.Entry
	if err := json.Unmarshal(t.lines.Bytes(), &e); err != nil {
		return fmt.Errorf("tar-split data: %w", err)
	}
	switch {
	case e.Type == storage.SegmentType:
		t.cur, t.left = io.NopCloser(bytes.NewReader(e.Payload)), int64(len(e.Payload))
		return nil
	case e.Type != storage.FileType:
		return fmt.Errorf("tar-split data: a row of type %d is not known", e.Type)
	case e.Size == 0:
		return nil
	}
	return t.file(e.GetName(), e.Size)
}

func (t *tocTar) file(name string, size int64) error {
	n, there := t.toc.byName[name]
	if !there {
		return fmt.Errorf("tar-split data: the table of contents has no file %s", quotePath(name))
	}
	f := &t.toc.files[n]
	c := &t.toc.contents[f.content]
	switch {
	case f.used:
		return fmt.Errorf("tar-split data: file %s for the second time", quotePath(name))
	case c.size != size:
		return fmt.Errorf("tar-split data: %d bytes for file %s, which has %d in the table of contents", size, quotePath(name), c.size)
	}
	r, err := t.open(f.content)
	if err != nil {
		return fmt.Errorf("content of %s: %w", quotePath(name), err)
	}
	f.used, t.cur, t.name, t.left = true, r, name, size
	return nil
}

// Close ends the reading. An error says that what was read last is not what it should be.
func (t *tocTar) Close() error {
	if t.cur == nil {
		return nil
	}
	err := t.cur.Close()
	if err != nil {
		err = fmt.Errorf("content of %s: %w", quotePath(t.name), err)
	}
	t.cur, t.left = nil, 0
	return err
}

// frames decompresses stretches of a blob, one after another, each of which is one or more zstd frames.
type frames struct {
	blob io.ReaderAt
	in   *bufio.Reader
	d    *zstd.Decoder
}

func newFrames(blob io.ReaderAt) (*frames, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(smallWindow))
	if err != nil {
		return nil, err
	}
	return &frames{blob: blob, in: bufio.NewReaderSize(nil, 64<<10), d: d}, nil
}

func (f *frames) close() { f.d.Close() }

// open begins with another stretch, of which nothing beyond size bytes is given.
func (f *frames) open(s span, size int64) (io.Reader, error) {
	f.in.Reset(io.NewSectionReader(f.blob, s.offset, s.length()))
	if err := f.d.Reset(f.in); err != nil {
		return nil, err
	}
	return io.LimitReader(endReader{f.d}, size), nil
}

// ended tells whether the stretch had no more than was given.
func (f *frames) ended() error {
	switch n, err := io.ReadFull(endReader{f.d}, make([]byte, 1)); {
	case n > 0:
		return errors.New("there is more of it than was announced")
	case err != io.EOF:
		return err
	}
	return nil
}

// checked is a content that is decompressed, and compared with its digest at the end.
type checked struct {
	f   *frames
	c   *tocContent
	r   io.Reader
	sum hash.Hash
	n   int64
}

func (f *frames) content(c *tocContent) (*checked, error) {
	r, err := f.open(c.span, c.size)
	if err != nil {
		return nil, err
	}
	return &checked{f: f, c: c, r: r, sum: sha256.New()}, nil
}

func (r *checked) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	return n, err
}

func (r *checked) Close() error {
	if r.n < r.c.size {
		return nil // given up: there is nothing to compare
	}
	if err := r.f.ended(); err != nil {
		return err
	}
	if got := r.sum.Sum(nil); !bytes.Equal(got, r.c.sum[:]) {
		return fmt.Errorf("it has digest sha256:%x, want sha256:%x", got, r.c.sum)
	}
	return nil
}
