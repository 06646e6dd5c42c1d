package fsverity

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What callers of [Enable] and [Measure] decide on.
var (
	// ErrNoVerity: the file system has fs-verity, the file does not.
	ErrNoVerity = errors.New("file has no fs-verity")
	// ErrNotSupported: the kernel or the file system has no fs-verity, or not
	// with this hash.
	ErrNotSupported = errors.New("fs-verity is not supported here")
	// ErrEnabled: the file has fs-verity already; which digest it has is for
	// Measure to tell.
	ErrEnabled = errors.New("file has fs-verity already")
	// ErrBusy: somebody, perhaps a child that was forked a moment ago, still has
	// the file open for writing, or another call is just enabling fs-verity.
	ErrBusy = errors.New("file is open for writing")
)

// digestArg is struct fsverity_digest of linux/fsverity.h with room for the
// longest digest behind it.
type digestArg struct {
	unix.FsverityDigest
	raw [maxSize]byte
}

// Enable switches fs-verity on for f, which must be open read-only, and by
// nobody for writing. The kernel reads the whole file; from then on its content
// can't change. Errors wrap [ErrEnabled], [ErrBusy] or [ErrNotSupported] where
// one of them fits, and the errno.
func Enable(f *os.File, a Algorithm) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: uint32(a), Block_size: BlockSize}
	if err := ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("enable %v fs-verity on %s: %w", a, f.Name(), explain(err))
	}
	return nil
}

// Measure returns the digest that the kernel checks every read of f against.
// Errors wrap [ErrNoVerity] or [ErrNotSupported] where one of them fits, and the
// errno.
func Measure(f *os.File) (Digest, error) {
	arg := digestArg{FsverityDigest: unix.FsverityDigest{Size: maxSize}}
	err := explain(ioctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)))
	var d Digest
	if err == nil {
		d, err = arg.digest()
	}
	if err != nil {
		return Digest{}, fmt.Errorf("measure fs-verity of %s: %w", f.Name(), err)
	}
	return d, nil
}

// digest checks what the kernel returned: its lengths are not trusted to fit.
func (arg *digestArg) digest() (Digest, error) {
	if arg.Algorithm > math.MaxUint8 || int(arg.Size) > len(arg.raw) {
		return Digest{}, fmt.Errorf("kernel returned %d bytes of algorithm %d", arg.Size, arg.Algorithm)
	}
	return NewDigest(Algorithm(arg.Algorithm), arg.raw[:arg.Size])
}

// explain puts the sentinel before an errno, where the kernel's fsverity.rst
// gives it one meaning.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENODATA):
		return fmt.Errorf("%w (%w)", ErrNoVerity, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w (%w)", ErrEnabled, err)
	case errors.Is(err, unix.ETXTBSY), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (%w)", ErrBusy, err)
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOPKG):
		return fmt.Errorf("%w (%w)", ErrNotSupported, err)
	}
	return err
}

// ioctl keeps f alive and in its mode, which f.Fd would not. A signal may
// interrupt the kernel while it builds the tree; nothing is changed then.
func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		errno = unix.EINTR
		for errno == unix.EINTR {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
