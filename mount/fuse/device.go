package fuse

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// devicePath is where the kernel's FUSE device is. The dots lead to it also in a process from the initramfs, over whose root
// the real one was mounted.
const devicePath = "/../dev/fuse"

// Clone opens one more descriptor for the session of dev (FUSE_DEV_IOC_CLONE). Each has a queue of its own for the requests
// that were taken from it, so readers with one each get less in each other's way.
func Clone(dev *os.File) (*os.File, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("clone FUSE device: open %s: %w", devicePath, err)
	}
	if err := unix.IoctlSetPointerInt(fd, wire.IoctlClone, int(dev.Fd())); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("clone FUSE device: %w", err)
	}
	return os.NewFile(uintptr(fd), devicePath), nil
}

// Resend has the kernel send again the requests that were taken from the session's devices and not answered, by a server
// that died (FUSE_NOTIFY_RESEND, Linux 6.9). An older kernel gives EINVAL.
func Resend(dev *os.File) error {
	b := make([]byte, wire.OutHeaderSize)
	wire.NotifyResend.Encode(b)
	if _, err := unix.Write(int(dev.Fd()), b); err != nil {
		return fmt.Errorf("have FUSE requests sent again: %w", err)
	}
	return nil
}

// deviceCall is read(2) or write(2) of a non-blocking device. Neither waits for anybody, so Go's scheduler isn't told, as
// package unix would: that takes longer than all of the server's own work for most requests. b must not be empty.
func deviceCall(call uintptr, dev int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(dev), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
