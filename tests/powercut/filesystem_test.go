package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filesystem is a file system to test on.
type filesystem struct {
	name    string
	size    int64 // of the disk, bytes
	mkfs    []string
	options string // to mount it with
	sector  int64  // that it needs the disk to write as a whole, bytes
	intact  int64  // where it has a block that it needs the disk to write as a whole, too; 0: nowhere
}

// Discards are switched off everywhere: what is discarded reads as anything, which is more than a recording shows. Of XFS
// the copies have the UUID of what may be mounted still.
//
// Two file systems have blocks that a disk must not tear. Btrfs has a checksum over all 4096 bytes of its superblock, at
// 64 KiB, and mounts by that copy alone: when it is torn the file system is lost until `btrfs rescue super-recover`. XFS does
// not replay its log over a block whose first sector has come to the disk and says so, and then finds that the checksum of
// the block, such as one of a directory, is wrong.
var filesystems = []filesystem{
	{
		name: "ext4", size: 96 << 20, options: "nodiscard", sector: 512,
		mkfs: []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"},
	},
	{
		name: "xfs", size: 320 << 20, options: "nodiscard,nouuid", sector: 4096,
		mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"},
	},
	{
		name: "btrfs", size: 192 << 20, options: "nodiscard", sector: 512, intact: 64 << 10,
		mkfs: []string{"mkfs.btrfs", "-q", "-f", "-K"},
	},
}

func (f filesystem) make(device string) error {
	cmd := append(f.mkfs, device)
	if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd, " "), err, out)
	}
	return nil
}

// loopTries bounds the race for a free loop device with other programs.
const loopTries = 64

// attach returns an open loop device over a file; it frees itself with the last use.
func attach(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/loop-control: %w", err)
	}
	defer unix.Close(control)
	for range loopTries {
		l, err := tryLoop(control, fd)
		if !errors.Is(err, unix.EBUSY) {
			return l, err
		}
	}
	return nil, fmt.Errorf("lost the race for a loop device %d times", loopTries)
}

func tryLoop(control, fd int) (*os.File, error) {
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	l, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c := unix.LoopConfig{Fd: uint32(fd), Size: sectorSize}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopConfigure(l, &c); err != nil {
		unix.Close(l)
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}
	return os.NewFile(uintptr(l), path), nil
}

// mounted is a mounted disk.
type mounted struct {
	filesystem
	dir    string
	device string
}

// mount mounts the disk of a file.
func (f filesystem) mount(file, dir string) (*mounted, error) {
	l, err := attach(file)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	m := &mounted{f, dir, l.Name()}
	if err := unix.Mount(l.Name(), dir, f.name, 0, f.options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", f.name, err), m.forget())
	}
	return m, nil
}

// unmountTime is how long a file system may be busy. Another test that starts a program has a copy of all our open files for
// a moment, until the program runs.
const unmountTime = 10 * time.Second

func (m *mounted) unmount() error {
	err := unix.Unmount(m.dir, 0)
	for end := time.Now().Add(unmountTime); err == unix.EBUSY && time.Now().Before(end); err = unix.Unmount(m.dir, 0) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("unmount %s: %w", m.dir, err), unix.Unmount(m.dir, unix.MNT_DETACH))
	}
	return errors.Join(err, m.forget())
}

const btrfsIoctlForget = 0x5000_9405 // BTRFS_IOC_FORGET_DEV

// forget has btrfs forget a device, or it would refuse an older state of the same file system.
func (m *mounted) forget() error {
	if m.name != "btrfs" {
		return nil
	}
	fd, err := unix.Open("/dev/btrfs-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/btrfs-control: %w", err)
	}
	defer unix.Close(fd)
	var args [blockSize]byte // struct btrfs_ioctl_vol_args: the name comes after 8 bytes
	copy(args[8:len(args)-1], m.device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), btrfsIoctlForget, uintptr(unsafe.Pointer(&args)))
	if errno != 0 && errno != unix.ENOENT { // the last use of the loop device may have done it
		return fmt.Errorf("have btrfs forget %s: %w", m.device, errno)
	}
	return nil
}
