package erofs

import (
	"bytes"
	"io/fs"
	"slices"
	"testing"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/tree"
)

func inMemory(t testing.TB, img []byte) *Image {
	t.Helper()
	m, err := OpenBytes(img)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An image in memory reads as one behind an io.ReaderAt.
func TestOpenBytes(t *testing.T) {
	images := imageFiles(t)
	for seed := range uint64(20) {
		img, _, err := writeImage(parseText(t, erofstest.Random(seed)), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		images[string(rune('a'+seed))] = img
	}
	for name, img := range images {
		before := bytes.Clone(img)
		tr, err := ReadTree(inMemory(t, img), ReadOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := dumpText(t, tr), dumpText(t, readBytes(t, img)); got != want {
			t.Errorf("%s: %s", name, differingLine(got, want))
		}
		if !bytes.Equal(img, before) {
			t.Errorf("%s: reading changed the image", name)
		}
	}
}

// manyFiles is an image with a directory of several blocks and files and a symlink as they are in most trees.
func manyFiles(t testing.TB) []byte {
	t.Helper()
	text := []byte("/ 0 40755 2 0 0 0 0.0 - - - security.selinux=label\n" +
		"/backed 5000 100644 1 0 0 0 0.0 ab/cdef - " + string(bytes.Repeat([]byte("5a"), 32)) + " user.long=value security.selinux=label\n" +
		"/inline 5 100644 1 0 0 0 0.0 - hello -\n/link 6 120777 1 0 0 0 0.0 inline - -\n")
	for c := range 26 {
		name := append([]byte("/file-"), bytes.Repeat([]byte{byte('a' + c)}, 240)...)
		text = append(append(text, name...), " 0 100644 1 0 0 0 0.0 - - -\n"...)
	}
	img, _, err := writeImage(parseText(t, text), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestDirentsFrom(t *testing.T) {
	img := manyFiles(t)
	for form, m := range map[string]*Image{"memory": inMemory(t, img), "reader": openBytes(t, img), "buffered": openBytes(t, img).Buffered()} {
		root, err := m.Inode(m.Root())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		var places []Cookie
		take := func(name []byte, nid Nid, typ disk.FileType, next Cookie) bool {
			names, places = append(names, string(name)), append(places, next)
			return true
		}
		if err := root.DirentsFrom(0, take); err != nil {
			t.Fatal(err)
		}
		all := slices.Clone(names)
		if len(all) != 256+29+2 || !slices.IsSorted(all) || root.Attr().Size <= uint64(m.BlockSize()) {
			t.Fatalf("%s: %d names", form, len(all))
		}
		for k, place := range slices.Clone(places) {
			names = nil
			if err := root.DirentsFrom(place, take); err != nil || !slices.Equal(names, all[k+1:]) {
				t.Fatalf("%s: after %q: %q, %v", form, all[k], names, err)
			}
		}
		for _, stray := range []Cookie{1<<63 - 1, 1 << 62, 8191, 1 << cookieBits * 100} {
			if err := root.DirentsFrom(stray, take); err != nil {
				t.Errorf("%s: cookie %#x: %v", form, stray, err)
			}
		}
	}
}

func TestLookupEach(t *testing.T) {
	m := inMemory(t, manyFiles(t))
	root, err := m.Inode(m.Root())
	if err != nil {
		t.Fatal(err)
	}
	for d, err := range root.Dirents() {
		if err != nil {
			t.Fatal(err)
		}
		if nid, err := root.LookupBytes([]byte(d.Name)); err != nil || nid != d.Nid {
			t.Errorf("%q is inode %d, %v, want %d", d.Name, nid, err, d.Nid)
		}
	}
	if _, err := root.LookupBytes([]byte("none")); err != fs.ErrNotExist {
		t.Errorf("got error %v", err)
	}
}

// What a file server asks for most allocates nothing.
func TestNoAllocations(t *testing.T) {
	m := inMemory(t, manyFiles(t))
	var root, file, link, inline Inode
	load := func(i *Inode, name string) {
		t.Helper()
		nid, err := root.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Load(nid, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Load(m.Root(), &root); err != nil {
		t.Fatal(err)
	}
	load(&file, "backed")
	load(&link, "link")
	load(&inline, "inline")
	long := []byte("file-" + string(bytes.Repeat([]byte{'q'}, 240)))
	missing := []byte("file-" + string(bytes.Repeat([]byte{'q'}, 239)))
	user, overlay, none := []byte("user.long"), []byte(xattrRedirect), []byte("user.none")
	buf := make([]byte, 10)
	var child Inode
	for name, f := range map[string]func() bool{
		"load":    func() bool { return m.Load(m.Root(), &child) == nil },
		"lookup":  func() bool { nid, err := root.LookupBytes(long); return nid > 0 && err == nil },
		"missing": func() bool { _, err := root.LookupBytes(missing); return err == fs.ErrNotExist },
		"dirents": func() bool {
			n := 0
			err := root.DirentsFrom(0, func(name []byte, nid Nid, _ disk.FileType, _ Cookie) bool {
				n += len(name)
				return m.Load(nid, &child) == nil
			})
			return n > 1000 && err == nil
		},
		"xattr":         func() bool { v, ok, err := file.XattrBytes(user); return string(v) == "value" && ok && err == nil },
		"overlay xattr": func() bool { _, ok, err := file.XattrBytes(overlay); return ok && err == nil },
		"no xattr":      func() bool { _, ok, err := file.XattrBytes(none); return !ok && err == nil },
		"each xattr": func() bool {
			n := 0
			err := file.EachXattr(func(prefix string, rest, value []byte) bool { n += len(prefix) + len(rest) + len(value); return true })
			return n > 100 && err == nil
		},
		"target":  func() bool { b, err := link.Target(); return string(b) == "inline" && err == nil },
		"data":    func() bool { n, err := inline.ReadAt(buf[:5], 0); return n == 5 && err == nil },
		"backing": func() bool { b, ok, err := file.Backing(); return string(b.Path) == "ab/cdef" && ok && err == nil },
	} {
		ok := true
		if n := testing.AllocsPerRun(100, func() { ok = f() && ok }); n != 0 || !ok {
			t.Errorf("%s: %v allocations, right: %t", name, n, ok)
		}
	}
}

// The attributes that a stat needs are all in an Attr of an inode that was loaded over another.
func TestLoadForgets(t *testing.T) {
	m := inMemory(t, sample().image())
	i, err := m.Inode(nidOf(2))
	if err != nil {
		t.Fatal(err)
	}
	want := i.Attr()
	for _, n := range []int{0, 1, 3, 2} {
		if err := m.Load(nidOf(n), i); err != nil {
			t.Fatal(err)
		}
	}
	if got := i.Attr(); got != want || i.Nid() != nidOf(2) || got.Mode&tree.TypeMask != tree.Regular {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
