package erofs

import (
	"cmp"
	"io"
)

// windows reads an image in pieces and keeps the last few, for one walk in one goroutine. A walk asks for tens of bytes
// at a time, nearly in the order in which they lie in two places, the inodes and the blocks of directories; a system call
// for each would take most of its time.
type windows struct {
	r    io.ReaderAt
	size uint64
	slot [windowCount]window
}

type window struct {
	off  uint64
	data []byte
}

const (
	windowSize  = 32 << 10
	windowCount = 8
)

// ReadAt reads from ranges that are in the image. Long ones go past the windows.
func (w *windows) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > windowSize/4 {
		return w.r.ReadAt(p, off)
	}
	for n := 0; n < len(p); {
		pos := uint64(off) + uint64(n)
		data, err := w.from(pos)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data)
	}
	return len(p), nil
}

// from returns what a window has from pos on, at least a byte.
func (w *windows) from(pos uint64) ([]byte, error) {
	start := pos &^ (windowSize - 1)
	s := &w.slot[pos/windowSize%windowCount]
	var err error
	if len(s.data) == 0 || s.off != start {
		err = w.fill(s, start)
	}
	if pos-start >= uint64(len(s.data)) {
		s.data = s.data[:0]
		return nil, cmp.Or(err, io.ErrUnexpectedEOF) // the file is shorter than Open was told
	}
	return s.data[pos-start:], nil
}

// fill reads what there is of a window. After an error that may be less, and still all that is asked for.
func (w *windows) fill(s *window, start uint64) error {
	if s.data == nil {
		s.data = make([]byte, 0, min(windowSize, w.size))
	}
	n, err := w.r.ReadAt(s.data[:min(windowSize, w.size-start)], int64(start))
	s.off, s.data = start, s.data[:n]
	return err
}

// Buffered is the image for the use of one goroutine, which reads it through a cache of 256 KiB of its own: what it returns
// must not be used by others, nor its inodes. An image in memory is itself.
func (m *Image) Buffered() *Image {
	if m.mem != nil {
		return m
	}
	b := *m
	b.r = &windows{r: m.r, size: m.size}
	return &b
}
