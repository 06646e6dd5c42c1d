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
	err := control(f, func(fd uintptr) error {
		return ioctl(fd, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
	})
	if err != nil {
		return fmt.Errorf("enable %v fs-verity on %s: %w", a, f.Name(), explain(err))
	}
	return nil
}

// Measure returns the digest that the kernel checks every read of f against.
// Errors wrap [ErrNoVerity] or [ErrNotSupported] where one of them fits, and the
// errno. On FUSE and virtiofs it is not supported: there the server would answer,
// and the kernel checks nothing.
func Measure(f *os.File) (Digest, error) {
	var d Digest
	err := control(f, func(fd uintptr) (err error) {
		d, err = measure(fd)
		return err
	})
	if err != nil {
		return Digest{}, fmt.Errorf("measure fs-verity of %s: %w", f.Name(), err)
	}
	return d, nil
}

// MeasureFD is [Measure] of a bare descriptor, for who keeps many.
func MeasureFD(fd int) (Digest, error) {
	d, err := measure(uintptr(fd))
	if err != nil {
		return Digest{}, fmt.Errorf("measure fs-verity: %w", err)
	}
	return d, nil
}

func measure(fd uintptr) (Digest, error) {
	if err := vouched(int(fd)); err != nil {
		return Digest{}, err
	}
	arg := digestArg{FsverityDigest: unix.FsverityDigest{Size: maxSize}}
	if err := ioctl(fd, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return Digest{}, explain(err)
	}
	return arg.digest()
}

// vouched refuses file systems that hand FS_IOC_MEASURE_VERITY through to a
// server (fs/fuse/ioctl.c). virtiofs has the same magic number.
func vouched(fd int) error {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fstatfs(fd, &st)
	}
	if err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
		err = fmt.Errorf("%w by FUSE, whose server would answer for itself", ErrNotSupported)
	}
	return err
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

// control keeps f alive and in its mode, which f.Fd would not, while do runs.
func control(f *os.File, do func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(fd) }); err != nil {
		return err
	}
	return failed
}

// ioctl returns the bare errno. A signal may interrupt the kernel while it
// builds the tree; nothing is changed then.
func ioctl(fd uintptr, request uintptr, arg unsafe.Pointer) error {
	for {
		switch _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
