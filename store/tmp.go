package store

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// facts are what was learned of a file system, so that nothing is tried twice.
type facts struct {
	noTmpfile   atomic.Bool // it can't make unnamed files
	noEmptyPath atomic.Bool // linkat by descriptor alone is not permitted
	mode        sync.Once
	chmod       bool // umask or ACL take something away from fileMode
}

// tmp is a file that has no name, or one that nobody looks at.
type tmp struct {
	facts *facts
	dir   dir
	name  string   // "": none
	fd    int      // for writing; -1 after reopen
	ro    *os.File // after reopen
}

// newTmp makes a file of mode fileMode in d. Where it needs a name, that is prefix
// and a random suffix.
func (d dir) newTmp(prefix string, f *facts) (*tmp, error) {
	t := &tmp{facts: f, dir: d, fd: -1}
	err := t.create(prefix)
	if err != nil {
		return nil, pathError("create file", d.path, err)
	}
	f.mode.Do(func() {
		var st unix.Stat_t
		f.chmod = unix.Fstat(t.fd, &st) != nil || st.Mode&0o7777 != fileMode
	})
	if f.chmod {
		if err := unix.Fchmod(t.fd, fileMode); err != nil {
			t.discard()
			return nil, pathError("chmod file", d.path, err)
		}
	}
	return t, nil
}

func (t *tmp) create(prefix string) (err error) {
	if !t.facts.noTmpfile.Load() {
		t.fd, err = openat(t.dir.fd, ".", unix.O_TMPFILE|unix.O_RDWR, fileMode)
		// EISDIR is what kernels and file systems say that know nothing of it.
		if err != unix.EOPNOTSUPP && err != unix.EISDIR {
			return err
		}
		t.facts.noTmpfile.Store(true)
	}
	for range 16 {
		t.name = prefix + randomSuffix()
		t.fd, err = openat(t.dir.fd, t.name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW, fileMode)
		if err != unix.EEXIST {
			return err
		}
	}
	return err
}

// writeAt writes all of b at this offset.
func (t *tmp) writeAt(b []byte, at int64) error {
	for len(b) > 0 {
		var n int
		err := retry(func() (err error) {
			n, err = unix.Pwrite(t.fd, b, at)
			return err
		})
		if err != nil {
			return pathError("write file", t.dir.path, err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen gives the file up for writing, which fs-verity demands.
func (t *tmp) reopen() error {
	if t.ro != nil {
		return nil
	}
	at, name := unix.AT_FDCWD, procPath(t.fd)
	if t.name != "" {
		at, name = t.dir.fd, t.name
	}
	fd, err := openat(at, name, unix.O_RDONLY, 0)
	if err != nil {
		return pathError("open file read-only", t.dir.path, err)
	}
	t.ro = os.NewFile(uintptr(fd), t.dir.path+" (new file)")
	unix.Close(t.fd)
	t.fd = -1
	return nil
}

func (t *tmp) current() int {
	if t.ro != nil {
		return int(t.ro.Fd())
	}
	return t.fd
}

// link gives the file its name. It never replaces anything: that is EEXIST, bare.
func (t *tmp) link(to dir, name string) error {
	var err error
	if t.name == "" {
		err = t.linkUnnamed(to, name)
	} else if err = t.renameNew(to, name); err == nil {
		t.name = ""
	}
	if err == nil || err == unix.EEXIST {
		return err
	}
	return pathError("link", to.join(name), err)
}

// linkUnnamed needs CAP_DAC_READ_SEARCH for the short way before Linux 6.10, and
// /proc for the long one.
func (t *tmp) linkUnnamed(to dir, name string) error {
	if !t.facts.noEmptyPath.Load() {
		err := retry(func() error { return unix.Linkat(t.current(), "", to.fd, name, unix.AT_EMPTY_PATH) })
		if err != unix.ENOENT {
			return err
		}
	}
	err := retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(t.current()), to.fd, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err == nil { // so ENOENT was no missing directory
		t.facts.noEmptyPath.Store(true)
	}
	return err
}

func (t *tmp) renameNew(to dir, name string) error {
	err := retry(func() error {
		return unix.Renameat2(t.dir.fd, t.name, to.fd, name, unix.RENAME_NOREPLACE)
	})
	if err != unix.EINVAL && err != unix.ENOSYS {
		return err
	}
	err = retry(func() error { return unix.Linkat(t.dir.fd, t.name, to.fd, name, 0) })
	if err == nil {
		_ = t.dir.unlink(t.name)
	}
	return err
}

// replace gives the file its name and takes it from what has it.
func (t *tmp) replace(prefix string, to dir, name string) error {
	if t.name == "" {
		temporary := prefix + randomSuffix()
		if err := t.linkUnnamed(t.dir, temporary); err != nil {
			return pathError("link", t.dir.join(temporary), err)
		}
		t.name = temporary
	}
	err := rename(t.dir, t.name, to, name)
	if err == nil {
		t.name = ""
	}
	return err
}

// discard closes the file, and removes it unless it has its final name. It may be
// called again.
func (t *tmp) discard() error {
	var err error
	if t.name != "" {
		err = t.dir.unlink(t.name)
		t.name = ""
	}
	if t.ro != nil {
		err = errors.Join(err, t.ro.Close())
		t.ro = nil
	}
	if t.fd >= 0 {
		err = errors.Join(err, unix.Close(t.fd))
		t.fd = -1
	}
	return err
}
