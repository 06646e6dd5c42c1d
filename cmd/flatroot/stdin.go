package main

import (
	"context"
	"io"
)

// cancelReader is a reader, such as a terminal or a pipe, that is not waited for after the context's end. What it was
// asked for last may be lost then.
type cancelReader struct {
	ctx  context.Context
	r    io.Reader
	busy chan readResult // of a Read that goes on; nil before the first
	buf  []byte          // belongs to the Read that goes on
}

type readResult struct {
	n   int
	err error
}

// cancelBuffer is the most that is read at once, in bytes.
const cancelBuffer = 128 << 10

func (c *cancelReader) Read(p []byte) (int, error) {
	if c.busy == nil {
		c.busy, c.buf = make(chan readResult, 1), make([]byte, cancelBuffer)
	}
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	b := c.buf[:min(len(p), len(c.buf))]
	go func() {
		n, err := c.r.Read(b)
		c.busy <- readResult{n, err}
	}()
	select {
	case <-c.ctx.Done():
		return 0, c.ctx.Err()
	case res := <-c.busy:
		return copy(p, b[:res.n]), res.err
	}
}
