package fuse_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/fusetest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// mountNative mounts the repo by EROFS and overlayfs.
func (r *repo) mountNative(t testing.TB) string {
	t.Helper()
	s := r.serving(t, mount.ViewPlain)
	dir := t.TempDir()
	req := mount.Request{Image: s.Image, Objects: s.Objects, Target: dir, Verity: mount.Off, Mode: mount.ModeNative}
	f, err := mount.Probe(req)
	must(t, err)
	p, err := mount.NewPlan(req, f)
	must(t, err)
	must(t, p.Do(context.Background()))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// mountHybrid mounts an overlayfs like that of hybrid mounts over what a server shows.
func (r *repo) mountHybrid(t testing.TB, v mount.View) string {
	t.Helper()
	return overlayOn(t, fusetest.Mount(t, r.serving(t, v), fuse.Options{}).Dir, r.objects, v)
}

func overlayOn(t testing.TB, lower, objects string, v mount.View) string {
	t.Helper()
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	if v == mount.ViewUserOverlay {
		must(t, unix.FsconfigSetFlag(fd, "userxattr"))
	} else {
		must(t, unix.FsconfigSetString(fd, "metacopy", "on"))
	}
	must(t, unix.FsconfigSetString(fd, "lowerdir+", lower))
	must(t, unix.FsconfigSetString(fd, "datadir+", objects))
	must(t, unix.FsconfigCreate(fd))
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	must(t, err)
	dir := t.TempDir()
	f := os.NewFile(uintptr(m), "overlay")
	defer f.Close()
	must(t, mount.Attach(f, dir))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// takesUserLayers tells whether overlayfs takes data-only layers with userxattr (kernel 6.16).
func takesUserLayers(t testing.TB) bool {
	t.Helper()
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.FsconfigSetFlag(fd, "userxattr"))
	must(t, unix.FsconfigSetString(fd, "lowerdir+", t.TempDir()))
	must(t, unix.FsconfigSetString(fd, "datadir+", t.TempDir()))
	return unix.FsconfigCreate(fd) == nil
}

// facts is all that can be learnt about a tree without reading it, by path.
type facts map[string]string

// unseen stands for what overlayfs refuses to look up, such as files with xattrs larger than it expects, and for what has
// random bytes for an ACL, of which each file system makes something else.
const unseen = "unseen"

// look goes through a mount. What may differ between kinds of mounts is for the caller to strike out.
func look(t testing.TB, dir string) facts {
	t.Helper()
	all := facts{}
	inodes := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel := path[len(dir):]
		if err != nil {
			all[rel] = unseen
			return fs.SkipDir
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
			all[rel] = unseen
			return nil
		}
		attributes := xattrs(t, path)
		if attributes == unseen {
			all[rel] = unseen
			return nil
		}
		first, seen := inodes[st.Ino]
		if !seen {
			inodes[st.Ino], first = rel, rel
		}
		if want := fs.FileMode(d.Type()); want != 0 && modeType(st.Mode) != want {
			t.Errorf("%s: a directory says it is %v, it is %o", rel, want, st.Mode)
		}
		all[rel] = fmt.Sprintf("mode %o nlink %d owner %d:%d rdev %d:%d size %d blocks %d blksize %d mtime %d.%d atime %d.%d ctime %d.%d linked %q xattrs %s",
			st.Mode, st.Nlink, st.Uid, st.Gid, st.Rdev_major, st.Rdev_minor, st.Size, st.Blocks, st.Blksize, st.Mtime.Sec, st.Mtime.Nsec,
			st.Atime.Sec, st.Atime.Nsec, st.Ctime.Sec, st.Ctime.Nsec, first, attributes)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			all[rel] += fmt.Sprintf(" target %q %v", target, err)
		case unix.S_IFREG:
			if b, err := fusetest.ReadFile(path); err == nil {
				all[rel] += fmt.Sprintf(" content %x", b)
			} else {
				all[rel] += " unreadable"
			}
		}
		return nil
	}))
	return all
}

func modeType(mode uint16) fs.FileMode {
	return map[uint16]fs.FileMode{
		unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink, unix.S_IFIFO: fs.ModeNamedPipe, unix.S_IFSOCK: fs.ModeSocket,
		unix.S_IFBLK: fs.ModeDevice, unix.S_IFCHR: fs.ModeDevice | fs.ModeCharDevice,
	}[mode&unix.S_IFMT]
}

func xattrs(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return err.Error()
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var all strings.Builder
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err == unix.EINVAL {
			return unseen
		}
		fmt.Fprintf(&all, " %q=%x %v", name, buf[:max(n, 0)], err)
	}
	return all.String()
}

// compare tells of the first few differences.
func compare(t testing.TB, what string, got, want facts) {
	t.Helper()
	differences := 0
	for _, path := range slices.Sorted(maps.Keys(maps.Collect(maps.All(want)))) {
		if got[path] != want[path] && want[path] != unseen && differences < 5 {
			differences++
			t.Errorf("%s: %q:\n%.1500s\nwant\n%.1500s", what, path, got[path], want[path])
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok && differences < 5 && !below(want, path) {
			differences++
			t.Errorf("%s: %q is not there natively", what, path)
		}
	}
}

// below tells whether a path lies in an unseen directory.
func below(f facts, path string) bool {
	for path != "" {
		path = path[:strings.LastIndexByte(path, '/')]
		if f[path] == unseen {
			return true
		}
	}
	return false
}

func statfs(t testing.TB, dir string) unix.Statfs_t {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	st.Type, st.Fsid, st.Flags = 0, unix.Fsid{}, 0
	return st
}

// TestAgainstNative compares mounts of random trees, whose objects are missing, with native ones.
func TestAgainstNative(t *testing.T) {
	fusetest.NeedMounts(t)
	runs := uint64(15)
	switch {
	case testenv.Nightly():
		runs = 1000
	case testing.Short():
		runs = 6
	}
	for seed := range runs {
		compareSeed(t, seed)
		if t.Failed() {
			return
		}
	}
}

func compareSeed(t *testing.T, seed uint64) {
	r := newRepo(t, string(erofstest.Random(seed)))
	native := r.mountNative(t)
	want := look(t, native)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	compare(t, fmt.Sprintf("seed %d, plain", seed), look(t, s.Dir), want)
	if got, want := statfs(t, s.Dir), statfs(t, native); got != want {
		t.Errorf("seed %d: statfs %+v, want %+v", seed, got, want)
	}
	views := []mount.View{mount.ViewOverlay}
	if takesUserLayers(t) {
		views = append(views, mount.ViewUserOverlay)
	}
	for _, v := range views {
		compare(t, fmt.Sprintf("seed %d, %s", seed, v), look(t, r.mountHybrid(t, v)), want)
	}
}
