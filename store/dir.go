package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	fileMode = 0o644
	dirMode  = 0o755
	rootMode = 0o700

	maxName = 255  // NAME_MAX
	maxLink = 4095 // PATH_MAX without the NUL: what a symlink may hold

	// linkPrefix begins the temporary name of a symlink, always in the store's own
	// directory: in streams/ or images/ a left-over would stop other tools.
	linkPrefix = ".symlink-"
)

// dir is an open directory. Names are given to the kernel relative to the
// descriptor; the path is for errors only.
type dir struct {
	fd   int
	path string
}

// retry repeats a call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openat(at int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

func pathError(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func openDir(at int, name, path string) (dir, error) {
	fd, err := openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return dir{fd: -1}, pathError("open", path, err)
	}
	return dir{fd, path}, nil
}

func (d dir) close() error {
	if d.fd < 0 {
		return nil
	}
	return unix.Close(d.fd)
}

func (d dir) join(name string) string { return d.path + "/" + name }

// sub opens a directory in d, never through a symlink, and makes it if wanted.
func (d dir) sub(name string, create bool) (dir, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	fd, err := openat(d.fd, name, flags, 0)
	if err == unix.ENOENT && create {
		if err := d.mkdir(name); err != nil {
			return dir{fd: -1}, err
		}
		fd, err = openat(d.fd, name, flags, 0)
	}
	if err != nil {
		return dir{fd: -1}, pathError("open", d.join(name), err)
	}
	return dir{fd, d.join(name)}, nil
}

// mkdir makes a directory with its mode whatever the umask is; one that is there
// is fine, and stays as it is.
func (d dir) mkdir(name string) error {
	switch err := retry(func() error { return unix.Mkdirat(d.fd, name, dirMode) }); err {
	case unix.EEXIST:
		return nil
	case nil:
	default:
		return pathError("mkdir", d.join(name), err)
	}
	if err := unix.Fchmodat(d.fd, name, dirMode, 0); err != nil {
		return pathError("chmod", d.join(name), err)
	}
	return nil
}

// walk opens what lies names below d; d itself stays open.
func (d dir) walk(names []string, create bool) (dir, error) {
	at := d
	for i, name := range names {
		next, err := at.sub(name, create)
		if i > 0 {
			at.close()
		}
		if err != nil {
			return next, err
		}
		at = next
	}
	return at, nil
}

func (d dir) writable() error {
	err := retry(func() error { return unix.Faccessat(d.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) })
	if err != nil {
		return pathError("access", d.path, err)
	}
	return nil
}

func (d dir) lstat(name string) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func (d dir) unlink(name string) error {
	if err := retry(func() error { return unix.Unlinkat(d.fd, name, 0) }); err != nil {
		return pathError("unlink", d.join(name), err)
	}
	return nil
}

func rename(from dir, old string, to dir, name string) error {
	err := retry(func() error { return unix.Renameat(from.fd, old, to.fd, name) })
	if err != nil {
		return pathError("rename", to.join(name), err)
	}
	return nil
}

// readlink returns bare errnos: ENOENT, EINVAL for what is no symlink.
func (d dir) readlink(name string) (string, error) {
	b := make([]byte, maxLink+1)
	var n int
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(d.fd, name, b)
		return err
	})
	if err == nil && n > maxLink {
		err = unix.ENAMETOOLONG
	}
	return string(b[:max(n, 0)]), err
}

// symlink returns the bare errno, EEXIST mostly.
func (d dir) symlink(text, name string) error {
	return retry(func() error { return unix.Symlinkat(text, d.fd, name) })
}

// setLink makes d/name a symlink to text in one step, whatever it was before;
// the temporary name is in tmp, a directory of the same file system.
func (d dir) setLink(tmp dir, text, name string) error {
	if err := d.symlink(text, name); err != unix.EEXIST {
		if err != nil {
			return pathError("symlink", d.join(name), err)
		}
		return nil
	}
	if had, err := d.readlink(name); err == nil && had == text {
		return nil
	}
	from := linkPrefix + randomSuffix()
	if err := tmp.symlink(text, from); err != nil {
		return pathError("symlink", tmp.join(from), err)
	}
	err := rename(tmp, from, d, name)
	if err != nil {
		_ = tmp.unlink(from)
	}
	return err
}

// randomSuffix is 12 characters that no other process uses now.
func randomSuffix() string { return strings.ToLower(rand.Text()[:12]) }

// names lists d in byte order.
func (d dir) names() ([]string, error) {
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, pathError("open", d.path, err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

var errName = errors.New("bad name")

// checkName checks one component of a path that is going to be a name here.
func checkName(name string) error {
	var why string
	switch {
	case name == "":
		why = "it is empty"
	case name == "." || name == "..":
		why = "it means a directory"
	case len(name) > maxName:
		why = fmt.Sprintf("it has %d bytes, at most %d fit", len(name), maxName)
	case strings.ContainsAny(name, "/\x00"):
		why = "it has a slash or NUL in it"
	case !utf8.ValidString(name):
		why = "it is not UTF-8"
	default:
		return nil
	}
	return fmt.Errorf("%w %.80q: %s", errName, name, why)
}

// maxDepth bounds the directories that a path of ours may go down.
const maxDepth = 32

// splitPath cuts and checks a path of names.
func splitPath(path string) ([]string, error) {
	names := strings.Split(path, "/")
	if len(names) > maxDepth {
		return nil, fmt.Errorf("%w %.80q: it is more than %d deep", errName, path, maxDepth)
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	return names, nil
}
