package index

import (
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compressors make writers that compress. What these write depends on nothing but their input: fixed levels, one thread, no
// names or times. They may be opened concurrently.
type compressors struct{ idle sync.Pool } // of zstd.Encoder: to make one takes a twentieth of the time of a layer

func (c *compressors) open(compression string, w io.Writer) (io.WriteCloser, error) {
	if compression != zst {
		return gzip.NewWriterLevel(w, 6)
	}
	if e, ok := c.idle.Get().(*zstd.Encoder); ok {
		e.Reset(w)
		return zstdWriter{e, c}, nil
	}
	// Without a checksum, which takes as long: blob and tar both have digests.
	e, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	return zstdWriter{e, c}, err
}

// zstdWriter gives its encoder back once it is closed.
type zstdWriter struct {
	*zstd.Encoder
	to *compressors
}

func (w zstdWriter) Close() error {
	err := w.Encoder.Close()
	w.Encoder.Reset(nil)
	w.to.idle.Put(w.Encoder)
	return err
}
