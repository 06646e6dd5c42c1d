package erofs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

func parseText(t testing.TB, text []byte) *tree.Tree {
	t.Helper()
	tr, err := dump.Parse(bytes.NewReader(text), dump.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestParseFormat(t *testing.T) {
	for s, want := range map[string]Format{"0": Format0, "1": Format1, "auto": FormatAuto} {
		if f, err := ParseFormat(s); err != nil || f != want {
			t.Errorf("ParseFormat(%q) = %v, %v", s, f, err)
		}
	}
	for _, s := range []string{"", "2", "Auto", "-1"} {
		if _, err := ParseFormat(s); err == nil {
			t.Errorf("ParseFormat(%q): no error", s)
		}
	}
}

// TestFsckVectors has every image checked by erofs-utils.
func TestFsckVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil {
			continue
		}
		t.Run(filepath.Base(v.file), func(t *testing.T) {
			img, _, err := writeImage(tr, WriteOptions{})
			if errors.Is(err, ErrUnwritable) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			erofstest.Fsck(t, img)
		})
	}
}

// TestSummary compares what Write says of an image with the table and with the image.
func TestSummary(t *testing.T) {
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil || v.auto == "-" {
			continue
		}
		img, s, err := writeImage(tr, WriteOptions{Format: FormatAuto})
		if err != nil {
			t.Fatal(err)
		}
		if string('0'+rune(s.Version)) != v.auto || s.Version != int(img[12]) {
			t.Errorf("%s: version %d, want %s", v.file, s.Version, v.auto)
		}
		if inodes := int(img[1024+16]) | int(img[1024+17])<<8 | int(img[1024+18])<<16; s.Inodes != inodes {
			t.Errorf("%s: %d inodes, the superblock has %d", v.file, s.Inodes, inodes)
		}
	}
}

// TestDeterministic writes one tree again and again, on one processor and on many.
func TestDeterministic(t *testing.T) {
	text := erofstest.Random(1)
	var first fsverity.Digest
	for _, procs := range []int{1, 1, 2, 8} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		tr := parseText(t, text)
		for range 2 { // writing must not change the tree
			s, err := Write(&bytes.Buffer{}, tr, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if first.IsZero() {
				first = s.Digest
			}
			if s.Digest != first {
				t.Fatalf("digest %v, then %v", first, s.Digest)
			}
		}
	}
}

// TestOrderOfLines gives the lines below a directory in another order: the image must not show it.
func TestOrderOfLines(t *testing.T) {
	var dirs, others []string
	for line := range strings.Lines(string(erofstest.Random(5))) {
		switch f := strings.Fields(line); {
		case strings.HasPrefix(f[2], "4"):
			dirs = append(dirs, line)
		default:
			others = append([]string{line}, others...) // hard links come first
		}
	}
	a := parseText(t, erofstest.Random(5))
	b := parseText(t, []byte(strings.Join(append(dirs, others...), "")))
	first, _, errA := writeImage(a, WriteOptions{})
	second, _, errB := writeImage(b, WriteOptions{})
	if errA != nil || errB != nil || !bytes.Equal(first, second) {
		t.Errorf("images differ: %v, %v", errA, errB)
	}
}

// TestRoundTripSHA512 writes, reads and writes trees whose digests are SHA-512, which C mkcomposefs does not know.
func TestRoundTripSHA512(t *testing.T) {
	for seed := range uint64(20) {
		// Payloads that are paths of digests become longer with these.
		tr := withSHA512(t, parseText(t, erofstest.Random(seed)))
		img, s, err := writeImage(tr, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Digest != fsverity.Sum(fsverity.SHA512, img) {
			t.Errorf("seed %d: the summary's digest is not the image's", seed)
		}
		m, err := Open(bytes.NewReader(img), int64(len(img)))
		if err != nil {
			t.Fatal(err)
		}
		back, err := ReadTree(m, ReadOptions{Algorithm: fsverity.SHA512})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if again, _, err := writeImage(back, WriteOptions{}); err != nil || !bytes.Equal(again, img) {
			t.Errorf("seed %d: the image is another when it is read and written: %v", seed, err)
		}
	}
}

// withSHA512 replaces each digest of a dump by a longer one and drops what images don't keep.
func withSHA512(t *testing.T, tr *tree.Tree) *tree.Tree {
	t.Helper()
	var b strings.Builder
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		f := strings.Split(line, " ")
		if d := strings.TrimSuffix(f[10], "\n"); len(d) == 64 {
			f[10] = d + d + f[10][64:]
			if f[8] == d[:2]+"/"+d[2:] {
				f[8] += d
			}
			if f[1] == "0" {
				f[1] = "65" // an empty file's digest is lost in an image
			}
		}
		if strings.HasPrefix(f[2], "2") || strings.HasPrefix(f[2], "6") {
			f[1] = "0" // a device's size too
		}
		out.WriteString(strings.Join(f, " "))
	}
	back, err := dump.Parse(strings.NewReader(out.String()), dump.Options{Algorithm: fsverity.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestMetacopySHA512(t *testing.T) {
	tr := tree.New(fsverity.SHA512, tree.Attr{Mode: tree.Directory | 0o755})
	n, err := tr.Add(tree.Root, []byte("f"), tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1, Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	d := fsverity.Sum(fsverity.SHA512, []byte("content"))
	if err := tr.SetObject(n, d); err != nil {
		t.Fatal(err)
	}
	img, _, err := writeImage(tr, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := d.AppendTo([]byte("overlay.metacopy\x00\x44\x00\x02"))
	if !bytes.Contains(img, want) || !bytes.Contains(img, []byte("overlay.redirect/"+d.ObjectPath())) {
		t.Error("metacopy and redirect are not in the image")
	}
}

func TestUnwritable(t *testing.T) {
	dir := tree.Attr{Mode: tree.Directory | 0o755}
	file := tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1, Size: 5}
	tests := map[string]func(*tree.Tree, tree.Node){
		"too large": func(tr *tree.Tree, n tree.Node) {
			a := file
			a.Size = 1<<53 + 1
			_ = tr.SetAttr(n, a)
		},
		"has 3 bytes of inline content": func(tr *tree.Tree, n tree.Node) { _ = tr.SetContent(n, []byte("abc")) },
		"has no place in the tree": func(tr *tree.Tree, n tree.Node) {
			_ = tr.Link(tree.Root, []byte("other"), n)
			tr.Remove(tree.Root, []byte("f"))
		},
	}
	for want, do := range tests {
		tr := tree.New(fsverity.SHA256, dir)
		n, err := tr.Add(tree.Root, []byte("f"), file)
		if err != nil {
			t.Fatal(err)
		}
		do(tr, n)
		_, _, err = writeImage(tr, WriteOptions{})
		if !errors.Is(err, ErrUnwritable) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestUnfollowedLink is a hard link whose other name was removed and for which a new home was chosen.
func TestUnfollowedLink(t *testing.T) {
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: tree.Directory | 0o755})
	n, err := tr.Add(tree.Root, []byte("a"), tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1})
	if err != nil {
		t.Fatal(err)
	}
	_ = tr.Link(tree.Root, []byte("b"), n)
	tr.Remove(tree.Root, []byte("a"))
	tr.Canonicalize()
	got, _, err := writeImage(tr, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := writeImage(parseText(t, []byte("/ 0 40755 2 0 0 0 0.0 - - -\n/b 0 100644 1 0 0 0 0.0 - - -\n")), WriteOptions{})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("images differ: %v", err)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return len(b), nil
}

func TestWriteError(t *testing.T) {
	tr := parseText(t, erofstest.Random(3))
	s, err := Write(&bytes.Buffer{}, tr, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 4096, int(s.Size) - 1} {
		if _, err := Write(&failingWriter{left}, tr, WriteOptions{}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}

func TestXXH32(t *testing.T) {
	tests := []struct {
		in   string
		seed uint32
		want uint32
	}{
		{"", 0, 0x02cc5d05},
		{"", 0x9e3779b1, 0x36b78ae7},
		{"a", 0, 0x550d7456},
		{"abc", 0, 0x32d153ff},
		{"Nobody inspects the spammish repetition", 0, 0xe2293b2f},
	}
	for _, tt := range tests {
		if got := xxh32([]byte(tt.in), tt.seed); got != tt.want {
			t.Errorf("xxh32(%q, %#x) = %#x, want %#x", tt.in, tt.seed, got, tt.want)
		}
	}
}

func FuzzWrite(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(erofstest.Random(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tr, err := dump.Parse(bytes.NewReader(text), dump.Options{})
		if err != nil {
			return
		}
		img, s, err := writeImage(tr, WriteOptions{Format: FormatAuto})
		if errors.Is(err, ErrUnwritable) {
			return
		}
		if err != nil || s.Size != int64(len(img)) || len(img)%blockSize != 0 {
			t.Fatalf("%d bytes: %v", len(img), err)
		}
		if _, err := Open(bytes.NewReader(img), int64(len(img))); err != nil {
			t.Errorf("the image is refused: %v", err)
		}
	})
}
