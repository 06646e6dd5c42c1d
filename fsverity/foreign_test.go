package fsverity_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount/fuse/wire"
	"github.com/flatroot/flatroot/tests/testenv"
)

// TestForeignAnswer lets a FUSE server claim a digest for its file, as any user may. The kernel hands that on, and it must
// not pass for what the kernel checks.
func TestForeignAnswer(t *testing.T) {
	testenv.Need(t, "mount", "fuse")
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := serveLiar(t, path)
	// Not os.Open, which would poll the file from a thread that the server may need.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if d, err := fsverity.MeasureFD(fd); !errors.Is(err, fsverity.ErrNotSupported) {
		t.Errorf("measured %v, %v; want ErrNotSupported", d, err)
	}
	arg := make([]byte, 4+32)
	binary.NativeEndian.PutUint16(arg[2:], 32)
	_ = measureRaw(fd, arg) // whether it is answered depends on the kernel
	select {
	case <-asked:
	default:
		t.Log("this kernel asks no server about fs-verity")
	}
}

// serveLiar mounts a file system on the file path that has one file, and answers for it. The channel is closed when the
// server was asked for fs-verity.
func serveLiar(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0", dev, unix.S_IFREG)
	if err := unix.Mount("liar", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(dev)
		t.Fatal(err)
	}
	asked, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		<-ended
		unix.Close(dev)
	})
	go func() {
		defer close(ended)
		lie(dev, asked)
	}()
	return asked
}

// lie answers the requests of dev until it is unmounted.
func lie(dev int, asked chan struct{}) {
	buf := make([]byte, wire.MinReadBuffer)
	once := false
	for {
		n, err := unix.Read(dev, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		var h wire.InHeader
		if err != nil || !h.Decode(buf[:n]) {
			return
		}
		if h.Opcode == wire.OpIoctl && !once {
			once = true
			close(asked)
		}
		if h.Opcode.Replied() {
			unix.Write(dev, lieTo(h))
		}
	}
}

func lieTo(h wire.InHeader) []byte {
	body, errno := []byte{}, int32(0)
	switch h.Opcode {
	case wire.OpInit:
		body = make([]byte, wire.InitOutSize)
		out := wire.InitOut{Major: wire.Major, Minor: wire.Minor, MaxWrite: 4096, TimeGran: 1}
		out.Encode(body)
	case wire.OpGetattr:
		body = make([]byte, wire.AttrOutSize)
		out := wire.AttrOut{Attr: wire.Attr{Ino: 1, Mode: unix.S_IFREG | 0o600, Nlink: 1}}
		out.Encode(body)
	case wire.OpIoctl:
		// struct fuse_ioctl_out, all zeros, and struct fsverity_digest with a digest of zeros.
		body = make([]byte, 16+4+32)
		binary.NativeEndian.PutUint16(body[16:], uint16(fsverity.SHA256))
		binary.NativeEndian.PutUint16(body[18:], 32)
	case wire.OpStatfs:
		body = make([]byte, wire.StatfsOutSize)
	case wire.OpDestroy:
	default:
		errno = -int32(unix.ENOSYS)
	}
	b := make([]byte, wire.OutHeaderSize, wire.OutHeaderSize+len(body))
	out := wire.OutHeader{Len: uint32(len(b) + len(body)), Error: errno, Unique: h.Unique}
	out.Encode(b)
	return append(b, body...)
}

// measureRaw is the kernel's call without the look at the file system.
func measureRaw(fd int, arg []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_MEASURE_VERITY, uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
