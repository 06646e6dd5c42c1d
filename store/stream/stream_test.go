package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/klauspost/compress/zstd"
)

func digest(a fsverity.Algorithm, n int) fsverity.Digest {
	return fsverity.Sum(a, binary.LittleEndian.AppendUint32(nil, uint32(n)))
}

func open(t testing.TB, b []byte) *Stream {
	t.Helper()
	s, err := Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	return s
}

func TestContentTypes(t *testing.T) {
	for want, c := range map[string]ContentType{
		"ocilayer": OCILayer, "ociconfg": OCIConfig, "ocimanif": OCIManifest, "oci_blob": OCIBlob,
	} {
		if c.String() != want || !c.Known() {
			t.Errorf("%x: %s, known %v", uint64(c), c, c.Known())
		}
	}
	if c := ContentType(0xAFE138C18C463EF1); c.String() != "0xafe138c18c463ef1" || c.Known() {
		t.Errorf("ostree's: %v, %v", c, c.Known())
	}
}

func TestRefs(t *testing.T) {
	for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
		t.Run(a.String(), func(t *testing.T) { testRefs(t, a) })
	}
}

func testRefs(t *testing.T, a fsverity.Algorithm) {
	w := NewWriter(a, OCIConfig, WriterOptions{})
	defer w.Close()
	must(t, w.NamedRef("sha256:bb", digest(a, 1)))
	must(t, w.NamedRef(ImageV1, digest(a, 2)))
	must(t, w.NamedRef("sha256:aa", digest(a, 1)))
	must(t, w.NamedRef("sha256:aa", digest(a, 1)))
	must(t, w.External(digest(a, 8), 7))
	must(t, w.Keep(digest(a, 9)))
	must(t, w.Keep(digest(a, 8)))
	must(t, w.External(digest(a, 9), 0))
	s := open(t, written(t, w))
	wantNamed := []NamedRef{{ImageV1, digest(a, 2)}, {"sha256:aa", digest(a, 1)}, {"sha256:bb", digest(a, 1)}}
	if got, err := s.NamedRefs(); err != nil || !slices.Equal(got, wantNamed) {
		t.Errorf("named refs %v, %v", got, err)
	}
	if want := []fsverity.Digest{digest(a, 1), digest(a, 2)}; !slices.Equal(s.StreamRefs(), want) {
		t.Errorf("stream refs %v", s.StreamRefs())
	}
	if want := []fsverity.Digest{digest(a, 8), digest(a, 9)}; !slices.Equal(s.ObjectRefs(), want) {
		t.Errorf("object refs %v", s.ObjectRefs())
	}
	if got, err := s.NamedRef("sha256:bb"); err != nil || got != digest(a, 1) {
		t.Errorf("NamedRef: %v, %v", got, err)
	}
	if got, err := s.NamedRef("none"); err != nil || !got.IsZero() {
		t.Errorf("NamedRef of none: %v, %v", got, err)
	}
	if s.Size() != 7 || s.Algorithm() != a || !s.Object(2).IsZero() || !s.Object(-1).IsZero() {
		t.Errorf("size %d, %v", s.Size(), s.Algorithm())
	}
}

func TestWriterRefuses(t *testing.T) {
	id := digest(fsverity.SHA256, 1)
	for name, f := range map[string]func(*Writer) error{
		"other hash":     func(w *Writer) error { return w.External(digest(fsverity.SHA512, 1), 1) },
		"no digest":      func(w *Writer) error { return w.Keep(fsverity.Digest{}) },
		"negative size":  func(w *Writer) error { return w.External(id, -1) },
		"size overflow":  func(w *Writer) error { return errors.Join(w.External(id, 1<<62), w.External(id, 1<<62)) },
		"empty name":     func(w *Writer) error { return w.NamedRef("", id) },
		"NUL in name":    func(w *Writer) error { return w.NamedRef("a\x00b", id) },
		"name not UTF-8": func(w *Writer) error { return w.NamedRef("a\xff", id) },
		"long name":      func(w *Writer) error { return w.NamedRef(strings.Repeat("a", maxRecord), id) },
		"name twice": func(w *Writer) error {
			return errors.Join(w.NamedRef("a", id), w.NamedRef("a", digest(fsverity.SHA256, 2)))
		},
		"finished": func(w *Writer) error {
			w.WriteTo(io.Discard)
			return w.Inline([]byte("x"))
		},
		"closed": func(w *Writer) error {
			w.Close()
			_, err := w.WriteTo(io.Discard)
			return err
		},
	} {
		w := NewWriter(fsverity.SHA256, OCILayer, WriterOptions{})
		if f(w) == nil {
			t.Errorf("%s: accepted", name)
		}
		w.Close()
	}
}

// scratchIn counts the scratch files that it makes in dir.
func scratchIn(dir string, made *int) func() (*os.File, error) {
	return func() (*os.File, error) {
		*made++
		return os.Create(filepath.Join(dir, fmt.Sprint(*made)))
	}
}

// TestSpill: the bytes are the same whether they went through files or not and
// however they were cut, and memory is what the limits say.
func TestSpill(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 9<<20) // packedLimit can't hold it
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	write := func(cut int, o WriterOptions) []byte {
		w := NewWriter(fsverity.SHA256, OCILayer, o)
		for b := range slices.Chunk(noise, cut) {
			must(t, w.Inline(b))
		}
		must(t, w.External(digest(fsverity.SHA256, 1), 3))
		must(t, w.Inline(noise[:runLimit+1]))
		if o.Scratch != nil && (cap(w.run.mem) > 2*runLimit+cut || cap(w.packed.mem) > 2*packedLimit) {
			t.Errorf("buffers of %d and %d bytes", cap(w.run.mem), cap(w.packed.mem))
		}
		b := written(t, w)
		if again := written(t, w); !bytes.Equal(b, again) {
			t.Error("WriteTo gave something else the second time")
		}
		must(t, w.Close())
		return b
	}
	var made int
	inMemory := write(len(noise), WriterOptions{})
	spilled := write(1000, WriterOptions{Scratch: scratchIn(t.TempDir(), &made)})
	if made != 2 {
		t.Errorf("%d scratch files, want 2", made)
	}
	if !bytes.Equal(inMemory, spilled) {
		t.Error("the bytes depend on the way through scratch files")
	}
	got, err := pieces(open(t, spilled))
	must(t, err)
	if len(got) != 3 || got[0].inline != string(noise) || got[2].inline != string(noise[:runLimit+1]) {
		t.Errorf("%d chunks that are not what was written", len(got))
	}
}

func TestScratchFails(t *testing.T) {
	bad := errors.New("no space")
	w := NewWriter(fsverity.SHA256, OCILayer, WriterOptions{Scratch: func() (*os.File, error) { return nil, bad }})
	defer w.Close()
	var err error
	for i := 0; i < 4 && err == nil; i++ {
		err = w.Inline(make([]byte, runLimit))
	}
	if !errors.Is(err, bad) {
		t.Fatalf("error %v, want %v", err, bad)
	}
	if _, err := w.WriteTo(io.Discard); !errors.Is(err, bad) {
		t.Errorf("WriteTo after it: %v", err)
	}
}

func TestEmptyStream(t *testing.T) {
	w := NewWriter(fsverity.SHA256, OCIBlob, WriterOptions{})
	defer w.Close()
	b := written(t, w)
	s := open(t, b)
	if s.h.named.size() == 0 || s.h.chunks.size() == 0 {
		t.Errorf("sections of %d and %d bytes: both must be frames", s.h.named.size(), s.h.chunks.size())
	}
	for _, c := range []section{s.h.named, s.h.chunks} {
		if !bytes.HasPrefix(b[c.start:c.end], []byte{0x28, 0xb5, 0x2f, 0xfd}) {
			t.Errorf("section % x is no zstd frame", b[c.start:c.end])
		}
	}
	if ps, err := pieces(s); err != nil || len(ps) != 0 {
		t.Errorf("chunks %v, %v", ps, err)
	}
}

// TestNextSkips: what was not read of a chunk is skipped.
func TestNextSkips(t *testing.T) {
	c := open(t, exampleLayer(t)).Chunks()
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Next(); err != nil || got.Object != 0 || got.Inline != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read of an object chunk: %d, %v", n, err)
	}
	if got, err := c.Next(); err != nil || got.Inline != 1436 {
		t.Fatalf("%v, %v", got, err)
	}
	for range 2 {
		if _, err := c.Next(); err != io.EOF {
			t.Fatalf("end: %v", err)
		}
	}
	if c.InlineTotal() != 3484 {
		t.Errorf("total %d", c.InlineTotal())
	}
}

func zst(plain string) []byte {
	e, _ := zstd.NewWriter(nil, zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
	defer e.Close()
	return e.EncodeAll([]byte(plain), nil)
}

// forged puts a file together from parts that no writer would.
func forged(named, chunks []byte, size int64) []byte {
	a := fsverity.SHA256
	ids := append(digest(a, 1).Bytes(), digest(a, 2).Bytes()...)
	at := int64(bodyStart)
	h := header{alg: a, content: OCILayer, size: size}
	h.streamRefs, at = section{at, at + 32}, at+32
	h.objectRefs, at = section{at, at + 32}, at+32
	h.named, at = section{at, at + int64(len(named))}, at+int64(len(named))
	h.chunks = section{at, at + int64(len(chunks))}
	return slices.Concat(h.encode(), ids, named, chunks)
}

func value(v int64) string { return string(binary.LittleEndian.AppendUint64(nil, uint64(v))) }

// frame is the beginning of a zstd frame with a window of this size, a power of 2.
func frame(window int) []byte {
	return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, byte(bits.TrailingZeros(uint(window))-10) << 3}
}

// TestWindows: up to what libzstd takes, if there is enough to fill it with.
func TestWindows(t *testing.T) {
	raw := func(n int) []byte { // a last block of n bytes, n/8 times object 0
		return append([]byte{byte(n<<3 | 1), byte(n >> 5), byte(n >> 13)}, make([]byte, n)...)
	}
	for _, tc := range []struct {
		window, bytes int
		ok            bool
	}{{8 << 20, 8, true}, {16 << 20, 8, false}, {128 << 20, 40000, true}, {256 << 20, 100000, false}} {
		ps, err := pieces(open(t, forged(zst(""), slices.Concat(frame(tc.window), raw(tc.bytes)), 0)))
		if tc.ok != (err == nil) || tc.ok && len(ps) != tc.bytes/8 {
			t.Errorf("%+v: %d chunks, %v", tc, len(ps), err)
		}
	}
}

func TestBadChunks(t *testing.T) {
	whole := zst(value(-5) + "hello" + value(0))
	for name, tc := range map[string]struct {
		packed []byte
		size   int64
	}{
		"index too high":     {zst(value(1)), 5},
		"minimum":            {zst(value(-1 << 63)), 1<<63 - 1},
		"more than original": {zst(value(-6) + "hello!"), 5},
		"sum over original":  {zst(value(-3) + "abc" + value(-3) + "abc"), 5},
		"end in value":       {zst(value(-5)[:3]), 5},
		"end in chunk":       {zst(value(-5) + "hell"), 5},
		"gigabytes claimed":  {zst(value(-1<<40) + "x"), 1 << 41},
		"no zstd":            {[]byte("hello, I am no frame"), 5},
		"bytes after frame":  {append(zst(value(0)), 1, 2, 3, 4, 5), 5},
		"byte after frame":   {append(zst(value(0)), 1), 5},
		"window too large":   {slices.Concat(frame(16<<20), []byte{0x41, 0, 0}, []byte(value(0))), 5},
		"truncated":          {whole[:len(whole)-1], 5},
	} {
		b := forged(zst(""), tc.packed, tc.size)
		s := open(t, b)
		ps, err := pieces(s)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %.60q, %v", name, ps, err)
		}
	}
}

// TestEveryTruncation: cut anywhere, a stream never ends as if it were whole.
func TestEveryTruncation(t *testing.T) {
	empty := zst("")
	plain := value(-5) + "hello" + value(0) + value(-300) + strings.Repeat("abcdefghij", 30)
	var multi bytes.Buffer
	e, _ := zstd.NewWriter(&multi, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstd.MinWindowSize))
	for b := range slices.Chunk([]byte(plain), 7) { // several blocks
		e.Write(b)
		e.Flush()
	}
	e.Close()
	for _, packed := range [][]byte{zst(plain), multi.Bytes()} {
		if _, err := pieces(open(t, forged(empty, packed, 1000))); err != nil {
			t.Fatalf("whole: %v", err)
		}
		for n := 1; n < len(packed); n++ {
			if _, err := pieces(open(t, forged(empty, packed[:n], 1000))); !errors.Is(err, ErrInvalid) {
				t.Fatalf("%d of %d bytes: %v", n, len(packed), err)
			}
		}
	}
}

func TestSeveralFrames(t *testing.T) {
	packed := append(zst(value(-5)+"hel"), zst("lo"+value(0))...)
	ps, err := pieces(open(t, forged(zst(""), packed, 5)))
	if err != nil || len(ps) != 2 || ps[0].inline != "hello" {
		t.Errorf("%v, %v", ps, err)
	}
}

func TestNamedRefsRead(t *testing.T) {
	id := digest(fsverity.SHA256, 1)
	for name, tc := range map[string]struct {
		plain string
		want  []NamedRef // nil: refused
	}{
		"colons":         {"0:a:b\x00", []NamedRef{{"a:b", id}}},
		"unsorted":       {"0:b\x000:a\x00", []NamedRef{{"a", id}, {"b", id}}},
		"repeated":       {"0:a\x000:a\x00", []NamedRef{{"a", id}}},
		"empty name":     {"0:\x00", []NamedRef{{"", id}}},
		"no NUL":         {"0:a", nil},
		"no colon":       {"0a\x00", nil},
		"no index":       {":a\x00", nil},
		"sign":           {"+0:a\x00", nil},
		"out of range":   {"1:a\x00", nil},
		"huge index":     {"99999999999999999999:a\x00", nil},
		"not UTF-8":      {"0:\xff\x00", nil},
		"long record":    {"0:" + strings.Repeat("a", maxRecord) + "\x00", nil},
		"longest record": {"0:" + strings.Repeat("a", maxRecord-2) + "\x00", []NamedRef{{strings.Repeat("a", maxRecord-2), id}}},
		"endless record": {"0:" + strings.Repeat("a", 1<<20), nil},
		"too many":       {strings.Repeat("0:"+strings.Repeat("a", 4000)+"\x00", maxNamed/4000), nil},
	} {
		got, err := open(t, forged(zst(tc.plain), zst(""), 0)).NamedRefs()
		if tc.want == nil && !errors.Is(err, ErrInvalid) || tc.want != nil && (err != nil || !slices.Equal(got, tc.want)) {
			t.Errorf("%s: %.80v, %v", name, got, err)
		}
	}
}

func TestBadHeaders(t *testing.T) {
	put := func(at int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[at:], v) }
	}
	set := func(at int, v byte) func([]byte) { return func(b []byte) { b[at] = v } }
	for name, f := range map[string]func([]byte){
		"magic":                set(0, 's'),
		"version":              set(11, 1),
		"algorithm":            set(14, 3),
		"block size":           set(15, 16),
		"info short":           put(24, 111),
		"info backwards":       put(16, 113),
		"info outside":         put(24, 1<<40),
		"info overflow":        put(16, 1<<64-1),
		"stream refs outside":  put(40, 315),
		"object refs odd":      put(56, 0x8f),
		"object refs reversed": put(48, 0x91),
		"chunks outside":       put(72, 1<<63),
		"named outside":        put(88, 1<<62),
		"original too long":    put(104, 1<<63),
	} {
		b := example(t)
		f(b)
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 1, bodyStart - 1} {
		if _, err := Open(bytes.NewReader(example(t)), int64(n)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestFlagsIgnored(t *testing.T) {
	b := example(t)
	b[12], b[13] = 0xff, 0xff
	checkExample(t, b)
}

// TestLongerInfo: later versions may lengthen the info block.
func TestLongerInfo(t *testing.T) {
	b := example(t)
	info := append(bytes.Clone(b[32:112]), "later"...)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
	b = append(b, info...)
	binary.LittleEndian.PutUint64(b[24:], uint64(len(b)))
	checkExample(t, b)
}

// endless claims any size and has nothing: what Open allocates must follow what
// there is.
type endless struct{ head []byte }

func (e endless) ReadAt(p []byte, at int64) (int, error) {
	if at >= int64(len(e.head)) {
		return 0, io.EOF
	}
	return copy(p, e.head[at:]), nil
}

func TestOpenAllocatesWhatIsThere(t *testing.T) {
	h := header{alg: fsverity.SHA256, objectRefs: section{bodyStart, bodyStart + 32*maxRefs}}
	head := h.encode()
	n := testing.AllocsPerRun(1, func() {
		if _, err := Open(endless{head}, 1<<30); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v", err)
		}
	})
	if n > 30 {
		t.Errorf("%v allocations", n)
	}
	h.objectRefs.end += 32
	if _, err := Open(endless{h.encode()}, 1<<30); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many references: %v", err)
	}
}

type failing struct {
	io.ReaderAt
	from int64
}

var errDisk = errors.New("disk on fire")

func (f failing) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(p, at)
}

// TestReadErrors: a failing disk is not taken for a damaged stream.
func TestReadErrors(t *testing.T) {
	b := example(t)
	_, err := Open(failing{bytes.NewReader(b), 0x80}, int64(len(b)))
	if !errors.Is(err, errDisk) || errors.Is(err, ErrInvalid) {
		t.Errorf("Open: %v", err)
	}
	s, err := Open(failing{bytes.NewReader(b), 0x90}, int64(len(b)))
	must(t, err)
	if _, err := pieces(s); !errors.Is(err, errDisk) || errors.Is(err, ErrInvalid) {
		t.Errorf("chunks: %v", err)
	}
	if _, err := s.NamedRefs(); !errors.Is(err, errDisk) || errors.Is(err, ErrInvalid) {
		t.Errorf("named refs: %v", err)
	}
}
