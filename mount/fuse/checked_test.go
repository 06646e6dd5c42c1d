package fuse_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/fusetest"
	"github.com/flatroot/flatroot/mount/fuse/object"
	"github.com/flatroot/flatroot/mount/fuse/wire"
	"github.com/flatroot/flatroot/tree"
)

// checked is serving with checks of everything.
func (r *repo) checked(t testing.TB) mount.Serving {
	s := r.serving(t, mount.ViewPlain)
	s.Service.Image, s.Service.Objects = mount.ImageBlocks, mount.ObjectsUser
	return s
}

// Each block of the image and of objects is checked when it is used: what is changed while it is mounted is never seen.
func TestChecked(t *testing.T) {
	fusetest.NeedMounts(t)
	text, content := filesText(2000, 10) // of which a server can't have much in its buffers
	r := newRepo(t, text, content)
	s := fusetest.Mount(t, r.checked(t), fuse.Options{})
	readAll(t, s.Dir, 1, 10, content)
	must(t, os.WriteFile(r.object(content), bytes.ToUpper(content), 0o644))
	if _, err := fusetest.ReadFile(s.Dir + "/d1/f1"); err != unix.EIO {
		t.Errorf("changed object: %v, want EIO", err)
	}
	f, err := os.OpenFile(r.image, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	zeros := make([]byte, st.Size()-8192)
	_, err = f.WriteAt(zeros, 8192)
	must(t, err)
	if _, err := os.ReadDir(s.Dir + "/d1999"); !errors.Is(err, unix.EIO) {
		t.Errorf("changed image: %v, want EIO", err)
	}
}

// An image that isn't the one asked for is refused before anything is answered.
func TestWrongImage(t *testing.T) {
	text, _ := filesText(1, 1)
	r := newRepo(t, text)
	s := r.checked(t)
	s.Digest = fsverity.Sum(fsverity.SHA256, nil)
	if _, err := fuse.NewServer(s, fuse.Options{}); !errors.Is(err, object.ErrBad) {
		t.Errorf("got %v", err)
	}
	s = r.serving(t, "sideways")
	if _, err := fuse.NewServer(s, fuse.Options{}); err == nil {
		t.Error("a view that there isn't")
	}
	must(t, os.Truncate(r.image, 0))
	if _, err := fuse.NewServer(r.serving(t, mount.ViewPlain), fuse.Options{}); err == nil {
		t.Error("an empty image")
	}
}

// ACLs count, and only where the image has some.
func TestACL(t *testing.T) {
	fusetest.NeedMounts(t)
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	n, err := tr.Add(tree.Root, []byte("file"), tree.Attr{Mode: unix.S_IFREG | 0o640, Nlink: 1, Size: 1})
	must(t, err)
	must(t, tr.SetContent(n, []byte("x")))
	// user::rw-, user:7:r--, group::---, mask::r--, other::--- as linux/posix_acl_xattr.h has it: version 2, then tag,
	// permissions, id.
	acl := []byte{
		2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
		16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
	}
	must(t, tr.SetXattrs(n, []tree.Xattr{{Name: "system.posix_acl_access", Value: acl}}))
	r := newRepo(t, "/ 0 40755 2 0 0 0 0.0 - - -\n")
	r.digest = writeImage(t, r.image, tr)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	if s.Fuse.Flags&wire.POSIXACL == 0 {
		t.Error("ACLs are not asked for")
	}
	buf := make([]byte, 100)
	k, err := unix.Lgetxattr(s.Dir+"/file", "system.posix_acl_access", buf)
	if err != nil || !bytes.Equal(buf[:max(k, 0)], acl) {
		t.Errorf("ACL % x, %v", buf[:max(k, 0)], err)
	}
	must(t, os.Chmod(filepath.Dir(s.Dir), 0o755))
	path := throughFD(t, s.Dir) + "/file"
	for uid, want := range map[int]error{7: nil, 8: unix.EACCES} {
		must(t, unix.Setfsuid(uid))
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		must(t, unix.Setfsuid(0))
		if err == nil {
			unix.Close(fd)
		}
		if err != want {
			t.Errorf("user %d: %v, want %v", uid, err, want)
		}
	}
}

// A file handle leads to its inode.
func TestFileHandle(t *testing.T) {
	fusetest.NeedMounts(t)
	text, content := filesText(2, 2)
	r := newRepo(t, text, content)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, s.Dir+"/d1/f1", 0)
	must(t, err)
	root, err := unix.Open(s.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, h, unix.O_RDONLY)
	must(t, err)
	defer unix.Close(fd)
	if got, err := fusetest.ReadFile("/proc/self/fd/" + strconv.Itoa(fd)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
