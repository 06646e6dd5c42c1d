package mounts

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// asError is errors.As for a pointer that has the type.
func asError[T error](err error, to *T) bool { return errors.As(err, to) }

// tmpfs mounts one for the time of the test and returns its path.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount tmpfs: %v", err)
		}
	})
	return dir
}

// objects is a directory of objects.
type objects struct {
	t   testing.TB
	dir string
}

func newObjects(t testing.TB, dir string) *objects {
	must(t, os.MkdirAll(dir, 0o755))
	return &objects{t, dir}
}

// put stores content under its digest.
func (o *objects) put(content []byte) fsverity.Digest {
	o.t.Helper()
	d := fsverity.Sum(fsverity.SHA256, content)
	must(o.t, o.putAt(d.ObjectPath(), content))
	return d
}

// putAt stores content under any path that can be made.
func (o *objects) putAt(path string, content []byte) error {
	path = filepath.Join(o.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// image is an image file and what it takes to mount it.
type image struct {
	path    string
	objects string
	digest  fsverity.Digest
}

// writeImage makes the image of a tree below dir.
func writeImage(t testing.TB, dir, name string, tr *tree.Tree, o *objects, f erofs.Format) image {
	t.Helper()
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{Format: f})
	must(t, err)
	m := image{path: filepath.Join(dir, name), objects: o.dir, digest: sum.Digest}
	must(t, os.WriteFile(m.path, b.Bytes(), 0o644))
	return m
}

// builder makes a tree by paths.
type builder struct {
	t       testing.TB
	tree    *tree.Tree
	objects *objects
}

// mtime is that of all that a builder adds, in seconds and nanoseconds.
const (
	mtimeSec  = 1_700_000_000
	mtimeNsec = 123_456_789
)

func newBuilder(t testing.TB, o *objects) *builder {
	root := tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2, MtimeSec: mtimeSec, MtimeNsec: mtimeNsec}
	return &builder{t, tree.New(fsverity.SHA256, root), o}
}

func (b *builder) find(path string) tree.Node { return nodeAt(b.tree, path) }

// nodeAt returns the node at a path, tree.None if there is none.
func nodeAt(t *tree.Tree, path string) tree.Node {
	n := tree.Root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		var ok bool
		if n, ok = t.Lookup(n, []byte(name)); !ok {
			return tree.None
		}
	}
	return n
}

// add makes a node; its directory has to be there.
func (b *builder) add(path string, mode uint32, change ...func(*tree.Attr)) tree.Node {
	b.t.Helper()
	a := tree.Attr{Mode: mode, Nlink: 1, MtimeSec: mtimeSec, MtimeNsec: mtimeNsec}
	for _, c := range change {
		c(&a)
	}
	n, err := b.tree.Add(b.find(filepath.Dir(path)), []byte(filepath.Base(path)), a)
	must(b.t, err)
	return n
}

func (b *builder) dir(path string, mode uint32, change ...func(*tree.Attr)) tree.Node {
	b.t.Helper()
	return b.add(path, unix.S_IFDIR|mode, change...)
}

// file makes a regular file, whose content is inline up to 64 bytes and an object above.
func (b *builder) file(path string, mode uint32, content []byte, change ...func(*tree.Attr)) tree.Node {
	b.t.Helper()
	n := b.add(path, unix.S_IFREG|mode, append(change, func(a *tree.Attr) { a.Size = uint64(len(content)) })...)
	if len(content) <= 64 {
		must(b.t, b.tree.SetContent(n, content))
	} else {
		must(b.t, b.tree.SetObject(n, b.objects.put(content)))
	}
	return n
}

func (b *builder) symlink(path, target string) tree.Node {
	b.t.Helper()
	n := b.add(path, unix.S_IFLNK|0o777)
	must(b.t, b.tree.SetTarget(n, []byte(target)))
	return n
}

func (b *builder) link(path string, n tree.Node) {
	b.t.Helper()
	must(b.t, b.tree.Link(b.find(filepath.Dir(path)), []byte(filepath.Base(path)), n))
}

func (b *builder) xattrs(n tree.Node, xs ...tree.Xattr) {
	b.t.Helper()
	must(b.t, b.tree.SetXattrs(n, xs))
}

// owner is a change for add.
func owner(uid, gid uint32) func(*tree.Attr) {
	return func(a *tree.Attr) { a.UID, a.GID = uid, gid }
}

func device(major, minor uint32) func(*tree.Attr) {
	// As stat(2) packs 32 bits: see makedev(3) and new_encode_dev of linux/kdev_t.h.
	return func(a *tree.Attr) { a.Rdev = minor&0xff | major<<8 | (minor&^0xff)<<12 }
}

func userXattr(name, value string) tree.Xattr { return tree.Xattr{Name: name, Value: []byte(value)} }
