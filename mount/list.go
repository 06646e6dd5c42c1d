package mount

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// Mount is one of our mounts.
type Mount struct {
	ID           int // the kernel's mount id
	Target       string
	Digest       fsverity.Digest // of the image; zero if it wasn't known
	Mode         Mode
	Verification Verification // without Why
	Objects      []string     // object directories; empty where the kernel names them by descriptor only
	ReadOnly     bool
	NoSuid       bool
	NoDev        bool
	NoExec       bool
}

// mountinfoPath is the calling thread's view, which can differ from the
// process's if the thread has left its mount namespace.
const mountinfoPath = "/proc/thread-self/mountinfo"

// List returns our mounts in this mount namespace, in the order of mounting.
func List() ([]Mount, error) {
	f, err := os.Open(mountinfoPath)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	return listFrom(f)
}

func listFrom(r io.Reader) ([]Mount, error) {
	var list []Mount
	err := parseMountinfo(r, func(e infoEntry) error {
		if m, ok := e.ours(); ok {
			list = append(list, m)
		}
		return nil
	})
	return list, err
}

// ours tells our mounts from others by their file system and source.
func (e infoEntry) ours() (Mount, bool) {
	d, mode, v, ok := parseSource(e.Source)
	if !ok || e.FSType != "overlay" && e.FSType != fuseType {
		return Mount{}, false
	}
	m := Mount{ID: e.ID, Target: e.Target, Digest: d, Mode: mode, Verification: v}
	for o := range strings.SplitSeq(e.Super, ",") {
		// The kernel writes commas within a path in octal, so cutting at commas is safe.
		p, ok := strings.CutPrefix(o, "datadir+=")
		if ok && !strings.HasPrefix(p, "/proc/self/fd/") {
			m.Objects = append(m.Objects, unescapeOctal(p))
		}
	}
	m.ReadOnly = hasOption(e.Options, "ro")
	m.NoSuid = hasOption(e.Options, "nosuid")
	m.NoDev = hasOption(e.Options, "nodev")
	m.NoExec = hasOption(e.Options, "noexec")
	return m, true
}

// At returns our mount on target, if it is the topmost there.
func At(target string) (Mount, error) {
	path, err := realPath(target)
	if err != nil {
		return Mount{}, err
	}
	f, err := os.Open(mountinfoPath)
	if err != nil {
		return Mount{}, err
	}
	defer f.Close()
	top, err := mayUnmount(f, path, UnmountOptions{})
	m, _ := top.ours()
	return m, err
}

// UnmountOptions change what Unmount does.
type UnmountOptions struct {
	Force bool // unmount whatever is mounted there
	Lazy  bool // take the mount away now, end it when nobody uses it (MNT_DETACH)
}

// Unmount ends our mount on target, the topmost if there are several. Errors are
// ErrNotMounted, ErrNotOurs or wrap the errno (EBUSY: in use).
func Unmount(target string, o UnmountOptions) error {
	path, err := realPath(target)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	f, err := os.Open(mountinfoPath)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	defer f.Close()
	top, err := mayUnmount(f, path, o)
	if err == nil {
		err = unmount(top, path, o)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// unmount asks the kernel or, for a user's own FUSE mount, fusermount3.
func unmount(top infoEntry, path string, o UnmountOptions) error {
	flags := unix.UMOUNT_NOFOLLOW
	if o.Lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(path, flags)
	if err != unix.EPERM || !strings.HasPrefix(top.FSType, "fuse.") {
		return err
	}
	program := findFusermount()
	if program == "" {
		return err
	}
	return fusermountUnmount(program, path, o.Lazy)
}

// realPath is the form in which mountinfo shows target.
func realPath(target string) (string, error) {
	abs, err := filepath.Abs(target)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// mayUnmount finds the topmost mount on target and refuses what isn't ours.
func mayUnmount(mountinfo io.Reader, target string, o UnmountOptions) (infoEntry, error) {
	var top *infoEntry
	err := parseMountinfo(mountinfo, func(e infoEntry) error {
		if e.Target == target {
			top = &e
		}
		return nil
	})
	switch {
	case err != nil:
		return infoEntry{}, err
	case top == nil:
		return infoEntry{}, ErrNotMounted
	}
	if _, ours := top.ours(); !ours && !o.Force {
		return infoEntry{}, fmt.Errorf("%w: %s from %s is mounted there", ErrNotOurs, top.FSType, top.Source)
	}
	return *top, nil
}
