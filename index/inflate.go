package index

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Compressions, told from the first bytes: media types lie.
const (
	plain = "none"
	gz    = "gzip"
	zst   = "zstd"
)

// blobReader counts and hashes a blob's bytes as they are stored, and stops where the blob has more than were announced.
type blobReader struct {
	r    io.Reader
	hash hash.Hash
	n    int64
	size int64 // announced; -1: not known
	tell func(n int64)
	keep io.Writer // gets what was read; may be nil
	err  error     // for good: buffers drop an error that comes with bytes, and read on
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	if b.size >= 0 && int64(n) > b.size-b.n {
		n = int(b.size - b.n)
		err = fmt.Errorf("the blob is longer than the %d bytes that its descriptor announces", b.size)
	}
	b.n += int64(n)
	b.hash.Write(p[:n])
	if b.keep != nil && n > 0 {
		if _, kerr := b.keep.Write(p[:n]); kerr != nil {
			b.err = fmt.Errorf("keep blob: %w", kerr)
			return 0, b.err
		}
	}
	if b.tell != nil && n > 0 {
		b.tell(int64(n))
	}
	switch {
	case err == io.EOF && b.size > b.n, err == io.ErrUnexpectedEOF && b.size >= 0:
		err = fmt.Errorf("the blob ends after %d of %d bytes: %w", b.n, b.size, io.ErrUnexpectedEOF)
	case err == io.ErrUnexpectedEOF:
		err = fmt.Errorf("the input breaks off after %d bytes: %w", b.n, err)
	}
	b.err = err
	return n, err
}

func (b *blobReader) digest() digest.Digest { return digest.NewDigest(digest.SHA256, b.hash) }

// inflater gives a blob's tar in chunks. It runs in a goroutine of its own, ahead of who cuts the tar.
type inflater struct {
	blob        *blobReader
	compression string
	chunks      chan *chunk
	err         error // once chunks is closed
	limits      Limits
	bounds      *bounds
	out         int64 // bytes of the tar
}

func startInflater(ctx context.Context, r io.Reader, size int64, j *layerJob) *inflater {
	in := &inflater{
		blob:   &blobReader{r: r, hash: j.newHash(), size: size, tell: j.tell, keep: j.keep},
		chunks: make(chan *chunk, 4),
		limits: j.limits,
		bounds: j.bounds,
	}
	go func() {
		in.err = in.run(ctx)
		close(in.chunks)
	}()
	return in
}

func (in *inflater) run(ctx context.Context) error {
	buf := bufio.NewReaderSize(in.blob, chunkBytes)
	first, err := buf.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return err
	}
	tar, done, err := in.decompressor(ctx, buf, first)
	if err != nil {
		return err
	}
	defer done()
	for {
		c := newChunk()
		n, err := io.ReadFull(tar, c.b)
		c.b = c.b[:n]
		if lerr := in.check(int64(n)); lerr != nil {
			return lerr
		}
		select {
		case in.chunks <- c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			// ReadFull says ErrUnexpectedEOF for a short last chunk. A blob cut short says something else, endReader and
			// blobReader see to that.
			return in.drained(buf)
		default:
			return in.explain(err)
		}
	}
}

// errCutShort marks an unexpected end that a decompressor found, which io.ReadFull would otherwise hide among its own.
var errCutShort = errors.New("the compressed data ends in the middle")

// endReader tells the end of compressed data that is cut short from a clean one.
type endReader struct{ r io.Reader }

func (e endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = errCutShort
	}
	return n, err
}

func (in *inflater) decompressor(ctx context.Context, buf *bufio.Reader, first []byte) (io.Reader, func(), error) {
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}):
		in.compression = gz
		r, err := gzip.NewReader(buf)
		if err != nil {
			return nil, nil, in.explain(err)
		}
		return endReader{r}, func() { _ = r.Close() }, nil
	case isZstd(first):
		in.compression = zst
		return in.zstd(ctx, buf, first)
	}
	if name := foreignCompression(first); name != "" {
		return nil, nil, fmt.Errorf("the layer is compressed with %s; gzip, zstd and plain tars can be read", name)
	}
	in.compression = plain
	return buf, func() {}, nil
}

func (in *inflater) zstd(ctx context.Context, buf *bufio.Reader, first []byte) (io.Reader, func(), error) {
	window, done, err := in.bounds.zstdWindow(ctx, first)
	if err != nil {
		return nil, nil, err
	}
	r, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		done()
		return nil, nil, in.explain(err)
	}
	return endReader{r}, func() { r.Close(); done() }, nil
}

// isZstd knows a zstd frame, and the skippable frames that may come before it (RFC 8878, 3.1).
func isZstd(first []byte) bool {
	return bytes.HasPrefix(first, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(first) >= 4 && first[0]&0xf0 == 0x50 && bytes.Equal(first[1:4], []byte{0x2a, 0x4d, 0x18})
}

func foreignCompression(first []byte) string {
	for magic, name := range map[string]string{"\xfd7zXZ\x00": "xz", "BZh": "bzip2", "\x04\x22\x4d\x18": "lz4"} {
		if bytes.HasPrefix(first, []byte(magic)) {
			return name
		}
	}
	return ""
}

// check bounds what a small blob may become.
func (in *inflater) check(n int64) error {
	in.out += n
	if err := checkLimit("bytes of the layer's tar", in.out, in.limits.MaxLayerSize, "--max-layer-size"); err != nil {
		return err
	}
	// Small layers may well be mostly zeros; the ratio matters where there is much to write.
	if in.compression == plain || in.out < ratioFrom {
		return nil
	}
	return checkLimit("ratio of the layer's tar to its blob", in.out/max(in.blob.n, 1), in.limits.MaxRatio, "--max-ratio")
}

// ratioFrom is the size in bytes of a tar from which on the compression ratio is looked at.
const ratioFrom = 1 << 30

// drained makes sure that the whole blob was read and that nothing follows what was decompressed.
func (in *inflater) drained(buf *bufio.Reader) error {
	n, err := buf.Discard(1)
	switch {
	case err != nil && err != io.EOF:
		return err
	case n > 0:
		return fmt.Errorf("bytes follow the %s data's end", in.compression)
	}
	return nil
}

func (in *inflater) explain(err error) error {
	switch {
	case errors.Is(err, gzip.ErrHeader) && in.out > 0:
		return fmt.Errorf("bytes that are no gzip member follow the gzip data's end")
	case in.compression == plain:
		return err
	}
	return fmt.Errorf("decompress %s: %w", in.compression, err)
}
