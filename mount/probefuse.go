package mount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

const fuseDevice = "/dev/fuse"

// probeFUSE finds out who may mount FUSE here, and what the kernel's side offers.
func (f *Features) probeFUSE() {
	f.Fusermount = findFusermount()
	st, err := os.Stat(fuseDevice)
	f.FUSEDevice = err == nil && st.Mode()&os.ModeCharDevice != 0
	if !f.Privileged && !f.Namespaced {
		// fusermount3 opens it with the user's own rights.
		dev, err := openFUSE(0)
		if err != nil {
			f.FUSELack = err.Error()
			return
		}
		dev.Close()
		return
	}
	flags, err := offeredFUSE()
	if err != nil {
		f.FUSELack = err.Error()
		return
	}
	f.FUSE = true
	f.FUSEPassthrough = flags&fusePassthrough != 0
	f.FUSEIDMap = flags&fuseAllowIDMap != 0
}

// What the kernel says in its INIT request (linux/fuse.h): struct fuse_in_header
// has 40 bytes, and in struct fuse_init_in follow major, minor, max_readahead,
// flags and, if FUSE_INIT_EXT is among these, flags2.
const (
	fuseInitFlags  = 40 + 12
	fuseInitFlags2 = fuseInitFlags + 4

	fuseInitExt     = 1 << 30
	fusePassthrough = 1 << 37
	fuseAllowIDMap  = 1 << 40
)

// fuseMinRead is the least buffer that the kernel hands a request into, bytes
// (FUSE_MIN_READ_BUFFER).
const fuseMinRead = 8192

// offeredFUSE makes a detached FUSE mount that nobody serves, and reads from the
// kernel's first request what it offers: FUSE_ flags, 64 bits.
func offeredFUSE() (uint64, error) {
	dev, err := openFUSE(unix.O_NONBLOCK)
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	m, err := newFUSE(dev, fuseOptions(lowerSource), unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	b := make([]byte, fuseMinRead)
	n, err := unix.Read(int(dev.Fd()), b)
	if err != nil || n < fuseInitFlags+4 {
		return 0, nil // mounting works, the rest is extras
	}
	flags := uint64(binary.NativeEndian.Uint32(b[fuseInitFlags:]))
	if flags&fuseInitExt != 0 && n >= fuseInitFlags2+4 {
		flags |= uint64(binary.NativeEndian.Uint32(b[fuseInitFlags2:])) << 32
	}
	return flags, nil
}

// openFUSE opens a new session's device. It goes past package os, which would put
// the descriptor into its poller and with that change how the server reads it.
func openFUSE(flags int) (*os.File, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", fuseDevice, err)
	}
	return os.NewFile(uintptr(fd), fuseDevice), nil
}

// fusermountDirs are looked through after PATH, which boot and services cut
// short; the last is where NixOS has setuid programs.
var fusermountDirs = [...]string{"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin"}

func findFusermount() string {
	const name = "fusermount3"
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, d := range fusermountDirs {
		if p, err := exec.LookPath(d + "/" + name); err == nil {
			return p
		}
	}
	return ""
}

// probeUserOverlay makes detached overlays of two empty directories as a hybrid
// mount in a user namespace needs them. Kernels before 6.16 want metacopy=on for
// data-only layers, and refuse that along with userxattr.
func (f *Features) probeUserOverlay() {
	t, err := newTmpfs()
	if err != nil {
		return
	}
	defer t.Close()
	lower, err := newDirIn(t, "lower")
	if err != nil {
		return
	}
	defer lower.Close()
	data, err := newDirIn(t, "data")
	if err != nil {
		return
	}
	defer data.Close()
	f.UserOverlay = canUserOverlay(lower, data)
	f.UserOverlayVerity = f.UserOverlay && canUserOverlay(lower, data, Option{"verity", "require"})
}

func canUserOverlay(lower, data *os.File, more ...Option) bool {
	c, err := openContext("overlay")
	if err != nil {
		return false
	}
	defer c.Close()
	err = errors.Join(c.setAll(append(more, Option{"userxattr", ""})),
		c.setFD("lowerdir+", int(lower.Fd())), c.setFD("datadir+", int(data.Fd())))
	if err != nil {
		return false
	}
	m, err := c.mount(unix.MOUNT_ATTR_RDONLY)
	return err == nil && m.Close() == nil
}

// sameMount tells whether two directories lie on one mount. Kernels before 5.8
// don't number mounts for statx; there the devices decide.
func sameMount(a, b *os.File) (bool, error) {
	var st [2]unix.Statx_t
	for i, f := range []*os.File{a, b} {
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st[i]); err != nil {
			return false, fmt.Errorf("inspect %s: %w", f.Name(), err)
		}
	}
	return st[0].Mnt_id == st[1].Mnt_id && st[0].Dev_major == st[1].Dev_major && st[0].Dev_minor == st[1].Dev_minor, nil
}
