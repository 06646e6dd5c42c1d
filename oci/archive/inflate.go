package archive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/flatroot/flatroot/oci/files"
)

// Bounds of what an archive may become. Whoever has a larger one can decompress
// it first. The ratio is the one that layers have too; those of a
// docker-archive are often not compressed but together with it.
var (
	maxInflated int64 = 256 << 30 // bytes
	maxRatio    int64 = 500
	ratioFrom   int64 = 1 << 30 // bytes from which on the ratio is looked at
)

// zstdWindow is the largest window in bytes that the zstd tool's decoder takes
// by default.
const zstdWindow = 128 << 20

// compression is told from a file's first bytes.
type compression string

const (
	plain   compression = ""
	gz      compression = "gzip"
	zst     compression = "zstd"
	foreign compression = "a compression"
)

// headBytes is how many first bytes tell a compression.
const headBytes = 6

func compressionOf(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gz
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		// Skippable frames, which may come before the others: RFC 8878, 3.1.2.
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zst
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(head, []byte("BZh")),
		bytes.HasPrefix(head, []byte("\x04\x22\x4d\x18")):
		return foreign
	}
	return plain
}

// readHead reads the first bytes of a file, or fewer if it has no more.
func readHead(r io.ReaderAt) ([]byte, error) {
	head := make([]byte, headBytes)
	n, err := r.ReadAt(head, 0)
	if err == io.EOF {
		err = nil
	}
	return head[:n], err
}

// inflated returns an unnamed file with what a compressed file holds; nil if it
// is not compressed.
func inflated(ctx context.Context, f *os.File, inflating func(int64) func(int64)) (*os.File, error) {
	head, err := readHead(f)
	if err != nil {
		return nil, err
	}
	c := compressionOf(head)
	switch c {
	case plain:
		return nil, nil
	case foreign:
		return nil, errors.New("is compressed with xz, bzip2 or lz4: decompress it first; gzip, zstd and plain archives can be read")
	}
	dir := files.TempDir()
	tmp, err := files.NewUnnamed(dir)
	if err != nil {
		return nil, fmt.Errorf("make a file for the inflated archive: %w", err)
	}
	tell, err := announce(f, inflating)
	if err == nil {
		err = inflate(ctx, tmp, f, c, tell)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("inflate the archive into %s (TMPDIR says where): %w", dir, err), tmp.Close())
	}
	return tmp, nil
}

// announce tells who wants to hear it that a file is inflated. What it returns may be called.
func announce(f *os.File, inflating func(int64) func(int64)) (tell func(int64), err error) {
	st, err := f.Stat()
	if err == nil && inflating != nil {
		tell = inflating(st.Size())
	}
	if tell == nil {
		tell = func(int64) {}
	}
	return tell, err
}

// inflate copies what a compressed file holds.
func inflate(ctx context.Context, w io.Writer, f *os.File, c compression, tell func(int64)) (err error) {
	in := &counter{ctx: ctx, tell: tell, r: io.NewSectionReader(f, 0, 1<<63-1)}
	r, err := decompressor(in, c)
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	buf := make([]byte, 1<<20)
	for out := int64(0); ; {
		n, err := r.Read(buf)
		out += int64(n)
		switch {
		case out > maxInflated:
			return fmt.Errorf("it becomes more than %d bytes: decompress it first", maxInflated)
		case out > ratioFrom && out/max(in.n, 1) > maxRatio:
			return fmt.Errorf("it becomes more than %d times as large: decompress it first, if that is right", maxRatio)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			tell(0)
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", c, err)
		}
	}
}

func decompressor(r io.Reader, c compression) (io.ReadCloser, error) {
	if c == gz {
		return gzip.NewReader(bufio.NewReaderSize(r, 1<<20))
	}
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// counter counts bytes, and ends when its context does.
type counter struct {
	ctx  context.Context
	r    io.Reader
	n    int64
	tell func(int64) // of bytes; may be nil
}

func (c *counter) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.tell != nil && n > 0 {
		c.tell(int64(n))
	}
	return n, err
}
