package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// notInImage names the vectors whose tree has something that no image keeps but that an image depends on: devices with a
// size of more than 32 bits, whose inode is therefore an extended one.
var notInImage = map[string]bool{"dev-with-size.dump": true}

func openBytes(t testing.TB, img []byte) *Image {
	t.Helper()
	m, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readBytes(t testing.TB, img []byte) *tree.Tree {
	t.Helper()
	tr, err := ReadTree(openBytes(t, img), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// A tree that was read from an image gives the image again, bit for bit.
func TestReadTreeOfVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil {
			continue // what C refuses has no image to read
		}
		t.Run(filepath.Base(v.file), func(t *testing.T) {
			for _, format := range []Format{Format0, Format1} {
				img, s, err := writeImage(tr, WriteOptions{Format: format})
				if err != nil {
					continue
				}
				if m := openBytes(t, img); m.Version() != s.Version || m.Inodes() != uint64(s.Inodes) {
					t.Errorf("version %d with %d inodes, want %d with %d", m.Version(), m.Inodes(), s.Version, s.Inodes)
				}
				again, _, err := writeImage(readBytes(t, img), WriteOptions{Format: format})
				if err != nil {
					t.Fatal(err)
				}
				if same := bytes.Equal(img, again); same == notInImage[filepath.Base(v.file)] {
					t.Errorf("format %d: the image is the same again: %t", format, same)
				}
			}
		})
	}
}

func dumpText(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// strayBytes names the vectors of which composefs-info 1.0.8 prints an object path with bytes behind its end.
var strayBytes = map[string]bool{"chunk-1024-spill.dump": true, "object-forms.dump": true}

// What composefs-info dump shows of an image is the tree that ReadTree reads, but for three things: it takes the first of
// several names as home, it leaves the opaque mark on directories with whiteouts, and it does not sort xattrs.
func TestAgainstComposefsInfo(t *testing.T) {
	info := testenv.Peer(t, "composefs-info")
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil || strayBytes[filepath.Base(v.file)] {
			continue
		}
		t.Run(filepath.Base(v.file), func(t *testing.T) {
			for _, format := range []Format{Format0, Format1} {
				img, _, err := writeImage(tr, WriteOptions{Format: format})
				if errors.Is(err, ErrUnwritable) {
					return // a vector that has no image, which TestVectors looks at
				}
				got, want := readBytes(t, img), composefsInfo(t, info, img)
				got.Canonicalize()
				want.Canonicalize()
				dropOpaqueMarks(t, want, tree.Root)
				if g, w := dumpText(t, got), dumpText(t, want); g != w {
					t.Errorf("version %v: %s", openBytes(t, img).Version(), differingLine(g, w))
				}
			}
		})
	}
}

func composefsInfo(t *testing.T, info string, img []byte) *tree.Tree {
	t.Helper()
	file := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(file, img, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(info, "dump", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	tr, err := dump.Parse(bytes.NewReader(out), dump.Options{File: "output of composefs-info"})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func dropOpaqueMarks(t *testing.T, tr *tree.Tree, dir tree.Node) {
	t.Helper()
	holds := false
	for _, n := range tr.Children(dir) {
		holds = holds || isWhiteout(tr, n)
		dropOpaqueMarks(t, tr, n)
	}
	if xs := tr.Xattrs(dir); holds && haveAll(xs, opaqueNames, opaqueValue) {
		if err := tr.SetXattrs(dir, without(xs, opaqueNames)); err != nil {
			t.Fatal(err)
		}
	}
}

// differingLine shows the first lines in which two texts differ.
func differingLine(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for k := range min(len(g), len(w)) {
		if g[k] != w[k] {
			return fmt.Sprintf("line %d\n got %.400s\nwant %.400s", k+1, g[k], w[k])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func TestReadTreeOfRandom(t *testing.T) {
	testenv.OneGoroutine(t)
	for seed := range uint64(200) {
		tr := parseText(t, erofstest.Random(seed))
		dropDeviceSizes(t, tr)
		for _, format := range []Format{Format0, Format1} {
			img, _, err := writeImage(tr, WriteOptions{Format: format})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			again, _, err := writeImage(readBytes(t, img), WriteOptions{Format: format})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !bytes.Equal(img, again) {
				t.Errorf("seed %d, format %d: another image", seed, format)
			}
		}
	}
}

// dropDeviceSizes takes away what notInImage is about.
func dropDeviceSizes(t *testing.T, tr *tree.Tree) {
	t.Helper()
	for n := range tree.Node(tr.Len()) {
		a := tr.Attr(n)
		if typ := a.Mode & tree.TypeMask; typ != tree.CharDevice && typ != tree.BlockDevice {
			continue
		}
		a.Size = 0
		if err := tr.SetAttr(n, a); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadTreeSHA512(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 8)
	text := "/ 4096 40755 2 0 0 0 1.0 - - -\n" +
		"/a 1000 100644 1 0 0 0 1.0 01/" + digest[2:] + " - " + digest + "\n" +
		"/b 1000 100644 1 0 0 0 1.0 other/path - " + digest + "\n"
	img, _, err := writeImage(parseText(t, []byte(text)), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := dumpText(t, readBytes(t, img)); got != text {
		t.Error(differingLine(got, text))
	}
}

func TestHasACL(t *testing.T) {
	for file, want := range map[string]bool{"acl-access": true, "acl-default": true, "acl-lookalike": false, "tiny-root": false} {
		tr, err := parseDump("testdata/vectors/" + file + ".dump")
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := writeImage(tr, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := openBytes(t, img).HasACL(); got != want {
			t.Errorf("%s: HasACL is %t", file, got)
		}
	}
}
