package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// inlineMax is the size in bytes of the largest file whose content an image holds itself. It is what mkcomposefs and the
// rule oci-1 have.
const inlineMax = 64

// scanAlgorithm is the only one that C mkcomposefs knows.
const scanAlgorithm = fsverity.SHA256

// scanOptions are scanDir's. Each is an option of mkcomposefs.
type scanOptions struct {
	epoch       bool // all mtimes are 0
	skipDevices bool
	skipXattrs  bool
	userXattrs  bool // only those that begin with "user."
	threads     int  // that hash files; zero: one for each processor

	// keep is given each file that an image refers to by its digest. It may be called by several goroutines at once.
	keep func(f *os.File, d fsverity.Digest) error
}

// scanDir reads the tree below a directory as C mkcomposefs does: attributes, extended attributes, the content of small
// files and the digests of others. Each name is a file of its own, whatever links there are. (What flatroot itself makes of
// a directory is what it makes of a tar of it: package index.)
func scanDir(path string, o scanOptions) (*tree.Tree, error) {
	if o.threads == 0 {
		o.threads = runtime.GOMAXPROCS(0)
	}
	root, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := scanner{o: o, files: startHashing(o)}
	err = s.root(root)
	if stopped := s.files.stop(s.setFile); err == nil {
		err = stopped
	}
	if err != nil {
		return nil, err
	}
	return s.t, nil
}

type scanner struct {
	o     scanOptions
	t     *tree.Tree
	files *hashing
	buf   []byte // names and values of extended attributes
}

func (s *scanner) root(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	s.t = tree.New(scanAlgorithm, s.attr(&st))
	if err := s.xattrs(tree.Root, f, "."); err != nil {
		return err
	}
	return s.children(tree.Root, f)
}

// attr is what an image has of a file's attributes. Its link count is that of a file of its own.
func (s *scanner) attr(st *unix.Stat_t) tree.Attr {
	a := tree.Attr{Mode: st.Mode, Nlink: 1, UID: st.Uid, GID: st.Gid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		a.Size = uint64(st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		a.Rdev = uint32(st.Rdev) // the kernel's form is the one on disk for all numbers that fit
	}
	if !s.o.epoch {
		a.MtimeSec, a.MtimeNsec = st.Mtim.Sec, uint32(st.Mtim.Nsec)
	}
	return a
}

func (s *scanner) children(dir tree.Node, f *os.File) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.entry(dir, f, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) entry(dir tree.Node, parent *os.File, name string) error {
	var st unix.Stat_t
	path := filepath.Join(parent.Name(), name)
	if err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	typ := st.Mode & unix.S_IFMT
	if s.o.skipDevices && (typ == unix.S_IFCHR || typ == unix.S_IFBLK) {
		return nil
	}
	n, err := s.t.Add(dir, []byte(name), s.attr(&st))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := s.xattrs(n, parent, name); err != nil {
		return err
	}
	return s.data(n, parent, name, &st)
}

// data follows a file into what it holds.
func (s *scanner) data(n tree.Node, parent *os.File, name string, st *unix.Stat_t) error {
	switch typ := st.Mode & unix.S_IFMT; {
	case typ == unix.S_IFLNK:
		return s.target(n, parent, name)
	case typ == unix.S_IFREG && st.Size > 0:
		f, err := openat(parent, name, 0)
		if err != nil {
			return err
		}
		return s.files.add(hashJob{node: n, file: f, size: st.Size}, s.setFile)
	case typ == unix.S_IFDIR:
		f, err := openat(parent, name, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer f.Close()
		return s.children(n, f)
	}
	return nil
}

func openat(parent *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(parent.Name(), name)
	// Not to wait, should a FIFO have taken the file's place.
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(int(parent.Fd()), name, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (s *scanner) target(n tree.Node, parent *os.File, name string) error {
	buf := make([]byte, tree.TargetMax+1)
	size, err := unix.Readlinkat(int(parent.Fd()), name, buf)
	if err == nil {
		err = s.t.SetTarget(n, buf[:size])
	}
	if err != nil {
		return fmt.Errorf("symlink %s: %w", filepath.Join(parent.Name(), name), err)
	}
	return nil
}

// setFile gives a node what its file turned out to hold.
func (s *scanner) setFile(j *hashJob) error {
	err := j.err
	switch {
	case err != nil:
	case j.content != nil:
		err = s.t.SetContent(j.node, j.content)
	default:
		err = s.t.SetObject(j.node, j.digest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", j.file.Name(), err)
	}
	return nil
}

// xattrs reads the extended attributes of a name in a directory. Only a path leads to those of symlinks and devices, and
// one through /proc stays in the directory that was opened, however long its path is.
func (s *scanner) xattrs(n tree.Node, parent *os.File, name string) error {
	if s.o.skipXattrs {
		return nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), name)
	list, err := s.readXattr(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	var xs []tree.Xattr
	for _, key := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if err != nil || key == "" || s.o.userXattrs && !strings.HasPrefix(key, "user.") {
			continue
		}
		var value []byte
		value, err = s.readXattr(func(b []byte) (int, error) { return unix.Lgetxattr(path, key, b) })
		xs = append(xs, tree.Xattr{Name: key, Value: slices.Clone(value)})
	}
	if err == nil {
		err = s.t.SetXattrs(n, xs)
	}
	if err != nil {
		return fmt.Errorf("extended attributes of %s: %w", filepath.Join(parent.Name(), name), err)
	}
	return nil
}

// readXattr calls get with a buffer large enough for any list of names or value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
func (s *scanner) readXattr(get func([]byte) (int, error)) ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, 64<<10)
	}
	n, err := get(s.buf)
	if err != nil {
		return nil, err
	}
	return s.buf[:n], nil
}

// readAll reads a small file, which must be of the size it had before.
func readAll(f *os.File, size int64) ([]byte, error) {
	b := make([]byte, size+1)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) && int64(n) == size {
		return b[:n], nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errSizeChanged
	}
	return nil, err
}
