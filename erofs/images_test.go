package erofs

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// imageFiles are the images that other tools made (see the README there), by name.
func imageFiles(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/images/*.img")
	if err != nil || len(files) == 0 {
		t.Fatalf("no images in testdata: %v", err)
	}
	images := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		images[strings.TrimSuffix(filepath.Base(f), ".img")] = b
	}
	return images
}

func TestImages(t *testing.T) {
	versions := map[string]int{"v0": 0, "v1": 1, "v2-sha256": 2, "v2-sha512": 2, "v2-tiny": 2}
	for name, img := range imageFiles(t) {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile("testdata/images/" + name + ".dump")
			if err != nil {
				t.Fatal(err)
			}
			m := openBytes(t, img)
			version, ok := versions[name]
			if !ok {
				version = -1
			}
			if m.Version() != version {
				t.Errorf("version %d, want %d", m.Version(), version)
			}
			tr := readBytes(t, img)
			if got := dumpText(t, tr); got != string(want) {
				t.Error(differingLine(got, string(want)))
			}
			checkObjects(t, m, tr)
		})
	}
}

// checkObjects compares the objects of a composefs image with the digests and sizes of its tree. Other images have none.
func checkObjects(t *testing.T, m *Image, tr *tree.Tree) {
	t.Helper()
	want, got := map[string]int64{}, map[string]int64{}
	for n := range tree.Node(tr.Len()) {
		if d := tr.Digest(n); !d.IsZero() && m.composefs() {
			want[d.String()] = int64(tr.Attr(n).Size)
		}
	}
	for o, err := range m.Objects() {
		if err != nil {
			t.Fatal(err)
		}
		got[o.Digest.String()] = o.Size
	}
	if !maps.Equal(got, want) {
		t.Errorf("sizes of objects %v, want %v", got, want)
	}
}

func TestObjectsStops(t *testing.T) {
	n := 0
	for _, err := range openBytes(t, imageFiles(t)["v2-sha256"]).Objects() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d objects after break", n)
	}
}

// A backed file's object is not in the image; zeros in its place would be a lie.
func TestBackedFileHasNoData(t *testing.T) {
	m := openBytes(t, imageFiles(t)["v1"])
	i, err := lookupPath(m, "usr/backed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrBacked) {
		t.Errorf("got error %v", err)
	}
	b, ok, err := i.Backing()
	if err != nil || !ok || b.Digest.ObjectPath() != string(b.Path) || !strings.HasPrefix(string(b.Path), "9f/37bd") {
		t.Errorf("backing %v, %t, %v", b, ok, err)
	}
	if i, err = lookupPath(m, "usr/small"); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := i.Backing(); ok || err != nil {
		t.Errorf("an inline file is backed: %t, %v", ok, err)
	}
}

// exercise uses all of the reader on an image that may be anything. It returns the tree, if there is one.
func exercise(img []byte) *tree.Tree {
	m, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		return nil
	}
	for range m.Objects() {
	}
	_ = m.walk(func(v visit) error {
		exerciseInode(v.inode)
		return nil
	})
	tr, err := ReadTree(m, ReadOptions{DataMax: 1 << 20})
	exerciseMemory(img, err == nil)
	if err != nil {
		return nil
	}
	return tr
}

// exerciseMemory does the same with the image in memory, which must come to the same.
func exerciseMemory(img []byte, right bool) {
	m, err := OpenBytes(img)
	if err != nil {
		panic("OpenBytes refuses what Open takes")
	}
	_ = m.walk(func(v visit) error {
		exerciseInode(v.inode)
		_ = v.inode.DirentsFrom(Cookie(v.inode.attr.Size), func([]byte, Nid, disk.FileType, Cookie) bool { return true })
		return v.inode.EachXattr(func(string, []byte, []byte) bool { return true })
	})
	if _, err := ReadTree(m, ReadOptions{DataMax: 1 << 20}); (err == nil) != right {
		panic("ReadTree of memory and of a reader differ")
	}
}

func exerciseInode(i *Inode) {
	if xs, err := i.Xattrs(); err == nil {
		for _, x := range xs {
			if v, ok, err := i.Xattr(x.Name); err != nil || !ok || !bytes.Equal(v, x.Value) {
				// A damaged name filter hides a name that the list has; anything else is wrong.
				if ok || err != nil {
					panic("Xattr does not find what Xattrs lists")
				}
			}
		}
	}
	_, _ = i.Target()
	_, _ = i.ReadAt(make([]byte, 100), int64(i.attr.Size/2))
	n := 0
	for d, err := range i.Dirents() {
		if n++; err != nil || n > 300 {
			break
		}
		_, _ = i.Lookup(d.Name)
	}
}

// Each bit of a small image flipped: whatever is read, nothing may panic.
func TestBitFlips(t *testing.T) {
	testenv.OneGoroutine(t)
	images := imageFiles(t)
	for _, name := range []string{"tiny", "v2-tiny"} {
		img := images[name]
		for bit := range 8 * len(img) {
			img[bit/8] ^= 1 << (bit % 8)
			exercise(img)
			img[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// Images cut off anywhere give errors.
func TestTruncated(t *testing.T) {
	for name, img := range imageFiles(t) {
		for n := range len(img) {
			if n%61 != 0 {
				continue
			}
			m, err := Open(bytes.NewReader(img[:n]), int64(n))
			if err == nil {
				_, err = ReadTree(m, ReadOptions{})
			}
			if err == nil {
				t.Errorf("%s: the first %d of %d bytes pass for the image", name, n, len(img))
			}
			// The file is shorter than its user said.
			if m, err = Open(bytes.NewReader(img[:n]), int64(len(img))); err == nil {
				_, err = ReadTree(m, ReadOptions{})
			}
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: %d of %d bytes give %v", name, n, len(img), err)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, img := range imageFiles(f) {
		f.Add(img)
	}
	f.Fuzz(func(_ *testing.T, img []byte) {
		if tr := exercise(img); tr != nil {
			_, _ = Write(io.Discard, tr, WriteOptions{}) // what can be read is no danger to the writer
		}
	})
}
