package erofs

import (
	"errors"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// Format says which composefs format version an image has. The versions differ in a word of the header and in two more
// xattrs on directories that hold whiteouts.
type Format uint8

const (
	// Format1 is version 1, whatever the tree holds: mkcomposefs --min-version=1.
	Format1 Format = iota
	// Format0 is version 0, whatever the tree holds: mkcomposefs --max-version=0.
	Format0
	// FormatAuto is version 1 if the tree has a whiteout and 0 otherwise: mkcomposefs without options.
	FormatAuto
)

// ParseFormat reads "1", "0" and "auto".
func ParseFormat(s string) (Format, error) {
	switch s {
	case "1":
		return Format1, nil
	case "0":
		return Format0, nil
	case "auto":
		return FormatAuto, nil
	}
	return 0, fmt.Errorf("unknown image format %q: use 0, 1 or auto", s)
}

// WriteOptions are Write's. The zero value makes an image of version 1.
type WriteOptions struct {
	Format Format
	// Undigested leaves Summary.Digest zero: what is written to computes it.
	Undigested bool
}

// Summary says what Write wrote.
type Summary struct {
	Digest  fsverity.Digest // of the whole image, by the tree's algorithm
	Size    int64           // bytes
	Version int             // composefs format version, 0 or 1
	Inodes  int             // with the 256 generated whiteouts of the root
}

// ErrUnwritable is wrapped by errors that tell why a tree has no image.
var ErrUnwritable = errors.New("no image can be made")

// Write writes the composefs image of t, byte for byte the one that C mkcomposefs 1.0.8 writes. Besides t it needs about
// 20 bytes for each node; what it writes is hashed as it goes by.
func Write(w io.Writer, t *tree.Tree, o WriteOptions) (Summary, error) {
	p, err := newPlan(t, o.Format)
	if err != nil {
		return Summary{}, err
	}
	out := newOutput(w, t.Algorithm(), o)
	if err := p.emit(out); err != nil {
		return Summary{}, err
	}
	s := Summary{Size: out.pos, Version: p.version, Inodes: len(p.order)}
	if out.hash != nil {
		s.Digest = out.hash.Sum()
	}
	return s, nil
}

// output hashes and counts what is written. Errors stick and come out of flush.
type output struct {
	w    io.Writer
	hash *fsverity.Hasher // nil: nobody asks
	buf  []byte
	pos  int64 // bytes written, those in buf included
	err  error
}

// Large enough for several SHA-256 lanes, small enough for a core's cache.
const outputBuffer = 128 << 10

func newOutput(w io.Writer, a fsverity.Algorithm, o WriteOptions) *output {
	out := &output{w: w, buf: make([]byte, 0, outputBuffer)}
	if !o.Undigested {
		out.hash = fsverity.NewHasher(a)
	}
	return out
}

func (o *output) write(b []byte) {
	o.pos += int64(len(b))
	for len(o.buf)+len(b) > cap(o.buf) {
		n := cap(o.buf) - len(o.buf)
		o.buf = append(o.buf, b[:n]...)
		b = b[n:]
		_ = o.flush() // kept in o.err
	}
	o.buf = append(o.buf, b...)
}

var zeros [blockSize]byte

// padTo writes zeros up to offset pos.
func (o *output) padTo(pos int64) {
	for o.pos < pos {
		o.write(zeros[:min(pos-o.pos, blockSize)])
	}
}

func (o *output) flush() error {
	if o.err == nil && o.hash != nil {
		_, o.err = o.hash.Write(o.buf)
	}
	if o.err == nil && len(o.buf) > 0 {
		_, o.err = o.w.Write(o.buf)
	}
	o.buf = o.buf[:0]
	return o.err
}
