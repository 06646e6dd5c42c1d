package mount

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// writable tells whether the request wants a layer that takes changes.
func (r *Request) writable() bool { return r.Upper != nil || r.Transient }

// checkWritable refuses layers that make no sense on any rung.
func checkWritable(r Request, f Features) error {
	switch {
	case (r.Upper == nil) != (r.Work == nil):
		return refuse("a writable layer needs both upperdir= and workdir=")
	case r.Upper != nil && r.Transient:
		return refuse("a writable layer is either transient or in upperdir=, not both")
	case r.Upper != nil && !f.Upper.SameMount:
		return refuse("upperdir and workdir must lie on one file system and mount")
	}
	return nil
}

// upperOptions are what overlayfs needs to hear for the writable layer.
func (r *Request) upperOptions() []Option {
	if !r.writable() {
		return nil
	}
	// With an index, which a kernel's defaults may switch on, the upper directory
	// is bound to this very image, and the next one mounts no more.
	o := []Option{{"index", "off"}}
	if r.Transient {
		o = append(o, Option{"volatile", ""}) // nothing needs to be synced
	}
	return o
}

// newTmpfs makes a detached tmpfs, of the size that the kernel gives it.
func newTmpfs() (*os.File, error) {
	c, err := openContext("tmpfs")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.set(Option{"mode", "0700"}); err != nil {
		return nil, err
	}
	return c.mount(unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID)
}

// newDirIn makes the directory name in parent and opens it.
func newDirIn(parent *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o755); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", name, err)
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// transient makes the directories of a writable layer in memory.
func (d *doing) transient() error {
	err := d.makeTransient()
	if err != nil {
		return fmt.Errorf("make writable layer: %w", err)
	}
	return nil
}

func (d *doing) makeTransient() error {
	t, err := newTmpfs()
	if err != nil {
		return err
	}
	d.memory = d.keep(t)
	if d.upper, err = newDirIn(t, "upper"); err != nil {
		return err
	}
	d.keep(d.upper)
	if d.work, err = newDirIn(t, "work"); err != nil {
		return err
	}
	d.keep(d.work)
	return copyRoot(d.upper, d.lower)
}

// copyRoot gives a new upper directory what the tree's root has: overlayfs shows
// the attributes of the upper one.
func copyRoot(upper, lower *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(lower.Fd()), &st); err != nil {
		return fmt.Errorf("root of the tree: %w", err)
	}
	fd := int(upper.Fd())
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("owner of the root: %w", err)
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return fmt.Errorf("mode of the root: %w", err)
	}
	if err := copyXattrs(fd, lower); err != nil {
		return err
	}
	times := []unix.Timespec{st.Mtim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(upper), times, 0); err != nil {
		return fmt.Errorf("time of the root: %w", err)
	}
	return nil
}

// xattrMax is the most that the kernel lists or holds in one value, bytes
// (XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h).
const xattrMax = 65536

// copyXattrs copies all but overlayfs's own. What the upper file system can't
// have (user.* before tmpfs had them in 6.6) is left out.
func copyXattrs(upper int, lower *os.File) error {
	path := procPath(lower)
	buf := make([]byte, xattrMax)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		return fmt.Errorf("xattrs of the root: %w", err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	for _, name := range names {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		n, err := unix.Getxattr(path, name, buf)
		if err == nil {
			err = unix.Fsetxattr(upper, name, buf[:n], 0)
		}
		if err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("xattr %s of the root: %w", name, err)
		}
	}
	return nil
}
