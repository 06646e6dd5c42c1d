package cstorage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// strict is how files of the store itself are reached: the store's own tools put no symlinks there that lead to them.
	strict = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	// inside is how files of a layer are reached. A layer may have put a file through a symlink of its own, which was followed
	// when it was unpacked: in the layer's directory, as if that were the root, and nowhere else.
	inside = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
)

// dir is an open directory.
type dir struct{ f *os.File }

// openDir opens a directory by a path that the user has given, or the store's configuration.
func openDir(path string) (dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	return dir{f}, err
}

func (d dir) Close() error { return d.f.Close() }

func (d dir) join(name string) string { return path.Join(d.f.Name(), name) }

// sub opens a directory below this one.
func (d dir) sub(name string) (dir, error) {
	f, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY, strict)
	return dir{f}, err
}

// openRetries is how often a name is looked up again because something was renamed meanwhile.
const openRetries = 64

func (d dir) open(name string, flags, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for tries := 0; ; {
		fd, err := unix.Openat2(int(d.f.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), d.join(name)), nil
		case err == unix.EINTR:
		case err == unix.EAGAIN && tries < openRetries:
			tries++
		case err == unix.ELOOP || err == unix.EXDEV:
			return nil, fmt.Errorf("%s: leads through a symbolic link, or out of the store: %w", d.join(name), err)
		default:
			return nil, &os.PathError{Op: "open", Path: d.join(name), Err: err}
		}
	}
}

// regular opens a regular file and returns its size. Only what is known to be one is opened for reading: opening a device
// may do something, and opening a pipe may wait.
func (d dir) regular(name string, resolve uint64) (f *os.File, size int64, err error) {
	at, err := d.open(name, unix.O_PATH, resolve)
	if err != nil {
		return nil, 0, err
	}
	defer at.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return nil, 0, &os.PathError{Op: "stat", Path: at.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, fmt.Errorf("%s: is no regular file", at.Name())
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(at.Fd())), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: at.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), at.Name()), st.Size, nil
}

// small reads a file of at most limit bytes.
func (d dir) small(name string, limit int64) (b []byte, err error) {
	f, size, err := d.regular(name, strict)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > limit {
		return nil, fmt.Errorf("%s: has %d bytes, more than %d", f.Name(), size, limit)
	}
	b = make([]byte, size)
	_, err = io.ReadFull(f, b)
	return b, err
}

// has tells whether there is a name.
func (d dir) has(name string) (bool, error) {
	f, err := d.open(name, unix.O_PATH|unix.O_NOFOLLOW, strict&^unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
