package stream

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// The example layer of the composefs repository format: a tar of a directory, a
// file of 5 bytes and one of 100, as libzstd 1.5.4 compressed it.
const exampleHex = `
53 70 6c 69 74 53 74 72 65 61 6d 00 00 00 01 0c
20 00 00 00 00 00 00 00 70 00 00 00 00 00 00 00
70 00 00 00 00 00 00 00 70 00 00 00 00 00 00 00
70 00 00 00 00 00 00 00 90 00 00 00 00 00 00 00
99 00 00 00 00 00 00 00 3a 01 00 00 00 00 00 00
90 00 00 00 00 00 00 00 99 00 00 00 00 00 00 00
6f 63 69 6c 61 79 65 72 00 0e 00 00 00 00 00 00
9f 37 bd 4e 8c 0d 50 d8 1d 76 ec 71 e6 cc cc 66
96 f4 a1 96 e7 30 c8 b2 01 9d ea a1 03 a6 35 0a
28 b5 2f fd 20 00 01 00 00
28 b5 2f fd 00 58 c5 04 00 52 06 14 1d b0 25 e9
c7 b2 24 49 92 24 89 42 ec c3 2e 07 62 03 ac 24
ee 10 72 0f bb 77 09 03 80 0c 88 40 99 ab e8 10
a0 71 04 f3 14 ee 8e c1 45 cb 44 f6 57 95 ff de
19 84 24 98 e7 7e d1 30 e4 a9 15 bd 3c dd af 8d
29 80 15 f5 37 33 ff 25 98 27 71 68 1a 00 35 81
1f 12 4c 98 49 c0 04 e0 c0 1c 11 c6 80 3a 00 32
03 24 0e 50 94 4e 57 99 ab 00 a8 ad 54 83 01 d5
0c 10 1d ad 3a f0 58 85 39 30 21 09 50 00 05 c0
70 09 a4 13 80 6c b0 02 80 63 e5 32 0c 46 b7 60
08`

const (
	exampleID     = "d72f80c22bbacba780c0d10c92b2f0ada45ba6b9711a78067955199dd1ef2a48"
	exampleObject = "9f37bd4e8c0d50d81d76ec71e6cccc6696f4a196e730c8b2019deaa103a6350a"
)

func example(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(exampleHex), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oldHeader is b with the header that older writers made.
func oldHeader(b []byte) []byte {
	o := bytes.Clone(b)
	copy(o[0:], b[16:32])
	copy(o[16:], b[12:14])
	copy(o[18:], b[:12])
	copy(o[30:], b[14:16])
	return o
}

// exampleInline are the inline bytes of the example, two runs around the object.
func exampleInline() (before, after []byte) {
	before = append(before, exampleTarHeader("usr/", '5', 0o755, 0)...)
	before = append(before, exampleTarHeader("usr/small", '0', 0o644, 5)...)
	before = append(before, append([]byte("hello"), make([]byte, 507)...)...)
	before = append(before, exampleTarHeader("usr/large", '0', 0o644, 100)...)
	return before, make([]byte, 412+1024)
}

func exampleTarHeader(name string, typ byte, mode, size int) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c", mode, 0, 0, size, 1700000000, typ))
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x000000000\x00")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// piece is a chunk with what is in it.
type piece struct {
	inline string
	object string // hexadecimal ID
}

func pieces(s *Stream) ([]piece, error) {
	var ps []piece
	c := s.Chunks()
	defer c.Close()
	for {
		chunk, err := c.Next()
		if err == io.EOF {
			return ps, nil
		}
		if err != nil {
			return ps, err
		}
		if chunk.Object >= 0 {
			ps = append(ps, piece{object: s.Object(chunk.Object).String()})
			continue
		}
		b, err := io.ReadAll(inlineOnly{c})
		if err != nil {
			return ps, err
		}
		if int64(len(b)) != chunk.Inline {
			return ps, fmt.Errorf("chunk of %d bytes has %d", chunk.Inline, len(b))
		}
		ps = append(ps, piece{inline: string(b)})
	}
}

func checkExample(t *testing.T, b []byte) {
	t.Helper()
	s, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Type() != OCILayer || s.Size() != 3584 || s.Algorithm() != fsverity.SHA256 || s.NumObjects() != 1 {
		t.Errorf("header: %v, %d bytes, %v, %d objects", s.Type(), s.Size(), s.Algorithm(), s.NumObjects())
	}
	got, err := pieces(s)
	if err != nil {
		t.Fatal(err)
	}
	before, after := exampleInline()
	want := []piece{{inline: string(before)}, {object: exampleObject}, {inline: string(after)}}
	if len(got) != len(want) {
		t.Fatalf("%d chunks, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("chunk %d: %.60q…, want %.60q…", i, got[i], want[i])
		}
	}
	if refs, err := s.NamedRefs(); err != nil || len(refs) != 0 {
		t.Errorf("named refs: %v, %v; want none", refs, err)
	}
}

func TestExampleRead(t *testing.T) {
	b := example(t)
	if id := fsverity.Sum(fsverity.SHA256, b).String(); id != exampleID {
		t.Fatalf("the example's ID is %s, want %s", id, exampleID)
	}
	checkExample(t, b)
}

func TestExampleOldHeader(t *testing.T) {
	b := oldHeader(example(t))
	want := "20000000000000007000000000000000" + "000053706c697453747265616d00010c"
	if got := hex.EncodeToString(b[:32]); got != want {
		t.Fatalf("old header %s, want %s", got, want)
	}
	checkExample(t, b)
}

// exampleLayer writes the example layer with our encoder.
func exampleLayer(t *testing.T) []byte {
	t.Helper()
	before, after := exampleInline()
	object, _ := fsverity.ParseDigest(exampleObject)
	w := NewWriter(fsverity.SHA256, OCILayer, WriterOptions{})
	defer w.Close()
	for _, b := range bytes.SplitAfter(before, []byte("ustar")) { // any cut will do
		must(t, w.Inline(b))
	}
	must(t, w.External(object, 100))
	must(t, w.Inline(after[:412]))
	must(t, w.Inline(nil))
	must(t, w.Inline(after[412:]))
	return written(t, w)
}

func TestExampleWrite(t *testing.T) {
	b := exampleLayer(t)
	checkExample(t, b)
	// All but the lengths of the compressed parts is as in the example.
	want := example(t)
	if !bytes.Equal(b[:0x40], want[:0x40]) || !bytes.Equal(b[0x60:0x90], want[0x60:0x90]) {
		t.Errorf("header and arrays:\n%x, want\n%x", b[:0x90], want[:0x90])
	}
}

func TestWriterIsPinned(t *testing.T) {
	// A change means that the same layer gets another ID than before: allowed,
	// as IDs of streams are an accident of the encoder, but never by accident.
	const want = "5795c7ca95eb55698f3dd4611716f9426a701922aed3b00024a0c0bf9bf378a1"
	if got := fsverity.Sum(fsverity.SHA256, exampleLayer(t)).String(); got != want {
		t.Errorf("ID of the example layer as we write it: %s, want %s", got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func written(t testing.TB, w *Writer) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := w.WriteTo(&b)
	must(t, err)
	if n != int64(b.Len()) {
		t.Errorf("WriteTo returned %d for %d bytes", n, b.Len())
	}
	return b.Bytes()
}
