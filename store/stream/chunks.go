package stream

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/flatroot/flatroot/fsverity"
)

// Chunk is one piece of the original: so many inline bytes, or a whole object.
type Chunk struct {
	Inline int64 // number of bytes, which ChunkReader.Read gives; 0 for an object
	Object int   // index for Stream.Object; -1 for inline bytes
}

// ChunkReader gives the chunks of a stream in order. Inline chunks may be hundreds
// of megabytes, so they are read, not returned.
type ChunkReader struct {
	s     *Stream
	in    *inflater
	left  int64 // inline bytes of this chunk not read yet
	total int64 // inline bytes of all chunks so far
	err   error // sticky
}

// Chunks starts at the first chunk. Errors show with the first call of Next.
func (s *Stream) Chunks() *ChunkReader {
	c := &ChunkReader{s: s}
	c.in, c.err = s.inflate(s.h.chunks)
	return c
}

// Close frees the decompressor's memory early; no more may be read then.
func (c *ChunkReader) Close() {
	if c.in != nil {
		c.in.Close()
	}
	c.err = io.ErrClosedPipe
}

// InlineTotal is the number of inline bytes in all chunks that Next has given. At
// the end it and the sizes of the objects add up to Stream.Size, unless the header
// is wrong; other readers don't compare, so this one leaves it to its callers.
func (c *ChunkReader) InlineTotal() int64 { return c.total }

// Next gives the next chunk, skipping what was not read of the one before. At the
// end it returns [io.EOF].
func (c *ChunkReader) Next() (Chunk, error) {
	if c.err != nil {
		return Chunk{}, c.err
	}
	if c.left > 0 {
		if _, err := io.Copy(io.Discard, inlineOnly{c}); err != nil {
			return Chunk{}, err
		}
	}
	var b [8]byte
	if _, err := io.ReadFull(c.in.buffered, b[:]); err != nil {
		return Chunk{}, c.fail(err)
	}
	return c.parse(int64(binary.LittleEndian.Uint64(b[:])))
}

// fail keeps the error; only a clean end stays io.EOF.
func (c *ChunkReader) fail(err error) error {
	if err != io.EOF {
		err = fmt.Errorf("chunks: %w", c.in.explain(err))
	}
	c.err = err
	return err
}

func (c *ChunkReader) parse(v int64) (Chunk, error) {
	if v >= 0 {
		if v >= int64(c.s.NumObjects()) {
			return Chunk{}, c.fail(invalid("object ref %d of %d", v, c.s.NumObjects()))
		}
		return Chunk{Object: int(v)}, nil
	}
	if v == math.MinInt64 || -v > c.s.h.size-c.total {
		return Chunk{}, c.fail(invalid("%d inline bytes behind %d in an original of %d",
			-uint64(v), c.total, c.s.h.size))
	}
	c.left = -v
	c.total += c.left
	return Chunk{Inline: c.left, Object: -1}, nil
}

// Read reads inline bytes of the chunk that Next gave last; [io.EOF] is its end.
func (c *ChunkReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.in.buffered.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err != nil && n == 0 {
		return 0, c.fail(unexpected(err))
	}
	return n, nil
}

// inlineOnly hides the other methods of a ChunkReader from io.Copy.
type inlineOnly struct{ io.Reader }

// Opener opens the object that has this ID.
type Opener func(id fsverity.Digest) (Object, error)

// Copy writes the original to w and returns its length, with open giving the
// objects. Their contents are taken as they come; who needs the original to be
// right compares its digest.
func (s *Stream) Copy(w io.Writer, open Opener) (int64, error) {
	c := s.Chunks()
	defer c.Close()
	var total int64
	for {
		chunk, err := c.Next()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := s.copyChunk(w, c, chunk, open)
		total += n
		if err != nil {
			return total, err
		}
	}
}

func (s *Stream) copyChunk(w io.Writer, c *ChunkReader, chunk Chunk, open Opener) (int64, error) {
	if chunk.Object < 0 {
		return io.Copy(w, inlineOnly{c})
	}
	obj, err := openObject(open, s.Object(chunk.Object))
	if err != nil {
		return 0, err
	}
	defer obj.Close()
	return io.Copy(w, io.NewSectionReader(obj, 0, obj.size))
}
