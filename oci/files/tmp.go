package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tmpPrefix begins temporary names.
const tmpPrefix = ".flatroot-"

// tmpMode is that of new files before whoever makes them says what it is to be.
const tmpMode = 0o600

// NewTmp makes a file under a temporary name and locks it. The lock, which
// ends with the process, is what tells a file that is being written from one
// that a killed process has left.
func NewTmp(root *os.Root) (*os.File, string, error) {
	for {
		name := tmpPrefix + rand.Text()
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, tmpMode)
		if err != nil {
			return nil, "", err
		}
		mine, err := own(f)
		if err != nil {
			err = fmt.Errorf("lock %s: %w", f.Name(), err)
			return nil, "", errors.Join(err, f.Close(), root.Remove(name))
		}
		if mine {
			return f, name, nil
		}
		// A sweep came between the two.
		if err := f.Close(); err != nil {
			return nil, "", err
		}
	}
}

// own locks a file and tells whether it is ours then: nobody else has it
// locked, and it still has its name.
func own(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			var st unix.Stat_t
			err := unix.Fstat(int(f.Fd()), &st)
			return st.Nlink > 0, err
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, err
		}
	}
}

// Sweep removes the temporary files that killed processes have left in a
// directory. Those of other users, in a directory for everybody, are theirs.
func Sweep(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		if err := sweepOne(root, name); err != nil && !IsAbsent(err) && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("remove what a killed process has left: %w", err)
		}
	}
	return nil
}

// sweepOne removes a file that nobody is writing. What is no file is not ours.
func sweepOne(root *os.Root, name string) (err error) {
	if fi, err := root.Lstat(name); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, _, err := openRegular(root, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	mine, err := own(f)
	if err != nil || !mine {
		return err
	}
	return root.Remove(name)
}

// TempDir is where large files go for a while: as container tools have it,
// /var/tmp, since /tmp is in memory on many machines.
func TempDir() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// NewUnnamed makes a file that no process finds and that is gone as soon as it
// is closed, in a directory.
func NewUnnamed(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, tmpMode)
	if !noTmpfile(err) {
		return f, err
	}
	return newRemoved(dir)
}

// newRemoved makes a file and takes its name away. A process that is killed in
// between leaves an empty file to whoever comes next.
func newRemoved(dir string) (f *os.File, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := Sweep(root); err != nil {
		return nil, err
	}
	f, name, err := NewTmp(root)
	if err != nil {
		return nil, err
	}
	if err := root.Remove(name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// noTmpfile tells whether a kernel or file system knows no unnamed files.
func noTmpfile(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR)
}

// New is a file that gets its name when it is whole. Until then it has none,
// or where the file system can't do without, a temporary one.
type New struct {
	*os.File
	root *os.Root
	tmp  string // "": none
}

// NewFile makes a file in a directory whose path is root's.
func NewFile(root *os.Root) (*New, error) {
	f, err := os.OpenFile(root.Name(), os.O_RDWR|unix.O_TMPFILE, tmpMode)
	if !noTmpfile(err) {
		return &New{File: f, root: root}, err
	}
	f, tmp, err := NewTmp(root)
	return &New{File: f, root: root, tmp: tmp}, err
}

// Publish gives the file, which has all that it is to have, a name, durably.
// What had that name is replaced in the same moment if replace says so, and
// is an error, fs.ErrExist, if not.
func (n *New) Publish(name string, replace bool, mode os.FileMode) error {
	if err := n.Chmod(mode); err != nil {
		return err
	}
	if err := n.Sync(); err != nil {
		return err
	}
	if err := n.publish(name, replace); err != nil {
		return err
	}
	d, err := n.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (n *New) publish(name string, replace bool) error {
	switch {
	case n.tmp == "" && !replace:
		return n.link(name)
	case n.tmp == "":
		// No call gives an unnamed file a name that is taken. The lock is
		// what Sweep asks for.
		tmp := tmpPrefix + rand.Text()
		if err := unix.Flock(int(n.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("lock the new file: %w", err)
		}
		if err := n.link(tmp); err != nil {
			return err
		}
		n.tmp = tmp
	case !replace:
		if err := n.root.Link(n.tmp, name); err != nil {
			return err
		}
		return n.forget()
	}
	if err := n.root.Rename(n.tmp, name); err != nil {
		return err
	}
	n.tmp = ""
	return nil
}

// link gives an unnamed file a name. Linking it by descriptor alone takes a
// capability, by the descriptor's path none.
func (n *New) link(name string) error {
	d, err := n.root.Open(".")
	if err != nil {
		return err
	}
	from := fmt.Sprintf("/proc/self/fd/%d", n.Fd())
	err = unix.Linkat(unix.AT_FDCWD, from, int(d.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		err = &os.LinkError{Op: "linkat", Old: from, New: name, Err: err}
	}
	return errors.Join(err, d.Close())
}

// forget removes the temporary name.
func (n *New) forget() error {
	if n.tmp == "" {
		return nil
	}
	err := n.root.Remove(n.tmp)
	n.tmp = ""
	return err
}

// Close closes the file. One that was not published is gone then.
func (n *New) Close() error { return errors.Join(n.forget(), n.File.Close()) }
