package stream

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// FuzzRead feeds the reader anything: it may refuse, not fall over.
func FuzzRead(f *testing.F) {
	f.Add(example(f))
	f.Add(oldHeader(example(f)))
	f.Add(forged(zst("0:config:sha256:aa\x00"), zst(value(-5)+"hello"+value(0)), 105))
	f.Add(forged(zst("0:a"), zst(value(-1<<40)+"x"), 1<<41))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if len(s.ObjectRefs())+len(s.StreamRefs()) > len(b)/16 {
			t.Fatalf("%d references in %d bytes", s.NumObjects(), len(b))
		}
		_, _ = s.NamedRefs()
		readAll(t, s)
	})
}

func readAll(t *testing.T, s *Stream) {
	c := s.Chunks()
	defer c.Close()
	for range 1 << 16 {
		chunk, err := c.Next()
		if err != nil {
			return
		}
		if chunk.Object >= s.NumObjects() || chunk.Object < 0 && chunk.Inline <= 0 {
			t.Fatalf("chunk %+v", chunk)
		}
		n, err := io.CopyN(io.Discard, c, 1<<20)
		if err == io.EOF && n != chunk.Inline || n > chunk.Inline {
			t.Fatalf("chunk %+v gave %d bytes", chunk, n)
		}
	}
	if c.InlineTotal() > s.Size() {
		t.Fatalf("%d inline bytes of %d", c.InlineTotal(), s.Size())
	}
}

// FuzzRoundTrip takes its input as calls of a Writer and reads back what it made.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("\x05hello\x00\x41abc\x82\xc1x"), true)
	f.Add([]byte("\x80\x80\x81\x81\x01a\x01b"), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, prog []byte, long bool) {
		a := fsverity.SHA256
		if long {
			a = fsverity.SHA512
		}
		w := NewWriter(a, OCILayer, WriterOptions{})
		defer w.Close()
		want := runProgram(t, w, a, prog)
		b := written(t, w)
		s := open(t, b)
		got, err := pieces(s)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		checkArrays(t, s, w)
	})
}

// runProgram: a byte below 0x80 is inline data of that length, 0x80 to 0xbf an
// object, others a named ref. It returns the chunks that must come of it.
func runProgram(t *testing.T, w *Writer, a fsverity.Algorithm, prog []byte) []piece {
	var want []piece
	for len(prog) > 0 {
		op := prog[0]
		prog = prog[1:]
		switch {
		case op < 0x80:
			n := min(int(op), len(prog))
			must(t, w.Inline(prog[:n]))
			if k := len(want) - 1; n > 0 && k >= 0 && want[k].object == "" {
				want[k].inline += string(prog[:n])
			} else if n > 0 {
				want = append(want, piece{inline: string(prog[:n])})
			}
			prog = prog[n:]
		case op < 0xc0:
			must(t, w.External(digest(a, int(op)), int64(op)))
			want = append(want, piece{object: digest(a, int(op)).String()})
		default:
			must(t, w.NamedRef(string(rune(op)), digest(a, int(op)%7)))
		}
	}
	return want
}

func checkArrays(t *testing.T, s *Stream, w *Writer) {
	t.Helper()
	refs, err := s.NamedRefs()
	if err != nil || len(refs) != len(w.named) {
		t.Fatalf("named refs %v, %v", refs, err)
	}
	ids := s.StreamRefs()
	for _, r := range refs {
		if i := w.named[r.Name]; ids[i] != r.ID {
			t.Errorf("%s is %v, want %v", r.Name, r.ID, ids[i])
		}
	}
	for _, ids := range [][]fsverity.Digest{ids, s.ObjectRefs()} {
		seen := map[fsverity.Digest]bool{}
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%v occurs twice", id)
			}
			seen[id] = true
		}
	}
}
