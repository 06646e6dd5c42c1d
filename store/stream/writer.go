package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/klauspost/compress/zstd"
)

const (
	// runLimit and packedLimit are what a writer keeps in memory of the inline run
	// at hand and of its compressed output, in bytes.
	runLimit    = 1 << 20
	packedLimit = 4 << 20
	// window: what repeats in tar headers is near. Of the 194 MB of headers of
	// 126,000 files 512 KiB makes 4.0 MB, 8 MiB makes 3.9 MB in 1.8 times the time
	// and 8 times the memory.
	window = 512 << 10
)

var errFinished = errors.New("split stream is finished")

// WriterOptions are the options of NewWriter.
type WriterOptions struct {
	// Scratch makes an unnamed temporary file, which the writer closes. Without it
	// everything stays in memory.
	Scratch func() (*os.File, error)
}

// Writer collects a stream. Nothing goes out before WriteTo, as the header needs
// to know the end. A Writer is for one goroutine; after an error it stays failed.
type Writer struct {
	h       header
	run     spool // the inline chunk at hand
	packed  spool // compressed chunks
	enc     *zstd.Encoder
	objects refTable
	streams refTable
	named   map[string]int // index into streams
	refs    []byte         // the compressed named refs, once finished
	done    bool
	err     error
}

// refTable gives every ID its index, in the order of first mention.
type refTable struct {
	raw   []byte
	index map[fsverity.Digest]int
}

func (t *refTable) add(d fsverity.Digest) (int, error) {
	if i, ok := t.index[d]; ok {
		return i, nil
	}
	if len(t.index) == maxRefs {
		return 0, fmt.Errorf("more than %d references", maxRefs)
	}
	if t.index == nil {
		t.index = map[fsverity.Digest]int{}
	}
	i := len(t.index)
	t.index[d] = i
	t.raw = d.AppendTo(t.raw)
	return i, nil
}

// NewWriter makes a stream of this type, whose IDs are of this algorithm. Close
// must be called at the end, whether it was written or not.
func NewWriter(a fsverity.Algorithm, ct ContentType, o WriterOptions) *Writer {
	return &Writer{
		h:      header{alg: a, content: ct},
		run:    spool{limit: runLimit, scratch: o.Scratch},
		packed: spool{limit: packedLimit, scratch: o.Scratch},
		named:  map[string]int{},
	}
}

// Inline adds bytes of the original. What neighbours becomes one chunk, however
// many calls it comes in: readers of other tools want a header and its padding in
// one.
func (w *Writer) Inline(p []byte) error {
	if err := w.grow(int64(len(p))); err != nil {
		return err
	}
	_, err := w.run.Write(p)
	return w.keep(err)
}

// External adds a whole object of size bytes to the original.
func (w *Writer) External(d fsverity.Digest, size int64) error {
	if err := w.grow(size); err != nil {
		return err
	}
	i, err := w.object(d)
	if err != nil {
		return err
	}
	if err := w.endRun(); err != nil {
		return err
	}
	return w.value(int64(i))
}

// Keep adds an object that the stream keeps alive but that is no part of the
// original.
func (w *Writer) Keep(d fsverity.Digest) error {
	_, err := w.object(d)
	return err
}

// NumObjects is the number of different objects that the stream refers to so far.
func (w *Writer) NumObjects() int { return len(w.objects.index) }

// NamedRef names a stream or an image. A name is given once.
func (w *Writer) NamedRef(name string, id fsverity.Digest) error {
	if err := w.check(id); err != nil {
		return err
	}
	if name == "" || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 || len(name) > maxRecord-len("16777216:") {
		return fmt.Errorf("named ref %.80q: the name is empty, too long, not UTF-8 or has a NUL", name)
	}
	i, err := w.streams.add(id)
	if err != nil {
		return w.keep(err)
	}
	if had, ok := w.named[name]; ok && had != i {
		return fmt.Errorf("named ref %s: it has another target already", name)
	}
	w.named[name] = i
	return nil
}

func (w *Writer) object(d fsverity.Digest) (int, error) {
	if err := w.check(d); err != nil {
		return 0, err
	}
	i, err := w.objects.add(d)
	return i, w.keep(err)
}

func (w *Writer) check(d fsverity.Digest) error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return errFinished
	case d.Algorithm() != w.h.alg:
		return fmt.Errorf("reference %v is no %v digest", d, w.h.alg)
	}
	return nil
}

// grow adds n bytes to the original's length.
func (w *Writer) grow(n int64) error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return errFinished
	case n < 0 || n > math.MaxInt64-w.h.size:
		return fmt.Errorf("%d bytes behind %d do not fit a split stream", n, w.h.size)
	}
	w.h.size += n
	return nil
}

// keep makes a failure stick: what was written of a chunk can't be taken back.
func (w *Writer) keep(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// endRun writes the inline chunk at hand, if there is one.
func (w *Writer) endRun() error {
	if w.run.size() == 0 {
		return nil
	}
	if err := w.value(-w.run.size()); err != nil {
		return err
	}
	err := w.run.copyTo(w.enc)
	w.run.reset()
	return w.keep(err)
}

func (w *Writer) value(v int64) error {
	if err := w.start(); err != nil {
		return err
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(v))
	_, err := w.enc.Write(b[:])
	return w.keep(err)
}

// start makes the encoder. Everything that could make its output differ from run
// to run is fixed. A frame must come out even of nothing: no reader is known to
// take an empty section.
func (w *Writer) start() (err error) {
	if w.enc == nil {
		w.enc, err = zstd.NewWriter(&w.packed, zstd.WithEncoderLevel(zstd.SpeedDefault),
			zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
			zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	}
	return w.keep(err)
}

// WriteTo finishes the stream and writes the file. It may be called again; nothing
// may be added after it.
func (w *Writer) WriteTo(out io.Writer) (int64, error) {
	if err := w.finish(); err != nil {
		return 0, err
	}
	size := w.layOut()
	if size > maxFile {
		return 0, fmt.Errorf("split stream of %d bytes, the limit is %d", size, int64(maxFile))
	}
	var n int64
	for _, b := range [][]byte{w.h.encode(), w.streams.raw, w.objects.raw, w.refs} {
		m, err := out.Write(b)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	count := &counter{w: out}
	err := w.packed.copyTo(count)
	return n + count.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (w *Writer) finish() error {
	if w.done || w.err != nil {
		return w.err
	}
	if err := w.endRun(); err != nil {
		return err
	}
	plain, err := w.plainRefs()
	if err != nil {
		return w.keep(err)
	}
	if err := w.start(); err != nil {
		return err
	}
	w.refs = w.enc.EncodeAll(plain, nil)
	w.done = true
	return w.keep(w.enc.Close())
}

func (w *Writer) plainRefs() ([]byte, error) {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(w.named)) {
		b = strconv.AppendInt(b, int64(w.named[name]), 10)
		b = append(b, ':')
		b = append(b, name...)
		b = append(b, 0)
	}
	if len(b) > maxNamed {
		return nil, fmt.Errorf("named refs of %d bytes, the limit is %d", len(b), maxNamed)
	}
	return b, nil
}

// layOut places the parts behind the header and returns the file's size.
func (w *Writer) layOut() int64 {
	at := int64(bodyStart)
	place := func(n int64) section {
		s := section{at, at + n}
		at += n
		return s
	}
	w.h.streamRefs = place(int64(len(w.streams.raw)))
	w.h.objectRefs = place(int64(len(w.objects.raw)))
	w.h.named = place(int64(len(w.refs)))
	w.h.chunks = place(w.packed.size())
	return at
}

// Close frees the scratch files.
func (w *Writer) Close() error {
	w.err = errFinished
	return errors.Join(w.run.close(), w.packed.close())
}
