package wire

import "golang.org/x/sys/unix"

// Notify is the code of a notification (FUSE_NOTIFY_*).
type Notify int32

// NotifyResend has the kernel send again all requests that a server took and did not answer (Linux 6.9).
const NotifyResend Notify = 7 // RESEND

// Encode writes a notification of nothing but its code.
func (n Notify) Encode(b []byte) {
	h := OutHeader{Len: OutHeaderSize, Error: int32(n)}
	h.Encode(b)
}

// Numbers of ioctls have the direction in their upper 3 bits, or 2, whose values differ from machine to machine. They are
// taken from other ioctls of 4-byte arguments; then follow 13 or 14 bits of the argument's size, 8 of the type, 8 of the
// number (asm-generic/ioctl.h).
const (
	ioctlRead  = unix.RNDGETENTCNT & 0xe0000000   // _IOR
	ioctlWrite = unix.RNDADDTOENTCNT & 0xe0000000 // _IOW
	ioctlType  = 229                              // FUSE_DEV_IOC_MAGIC
)

// Ioctls of /dev/fuse.
const (
	// IoctlClone makes a device that was just opened one more of the session of the device whose descriptor is in a uint32.
	IoctlClone = ioctlRead | 4<<16 | ioctlType<<8 // FUSE_DEV_IOC_CLONE
	// IoctlBackingOpen takes a BackingMap and returns a backing ID.
	IoctlBackingOpen = ioctlWrite | BackingMapSize<<16 | ioctlType<<8 | 1 // FUSE_DEV_IOC_BACKING_OPEN
	// IoctlBackingClose takes a backing ID in a uint32.
	IoctlBackingClose = ioctlWrite | 4<<16 | ioctlType<<8 | 2 // FUSE_DEV_IOC_BACKING_CLOSE
)

// BackingMap names an open file to which the kernel may pass reads.
type BackingMap struct {
	FD    int32  // fd
	Flags uint32 // flags
	// padding, 8 bytes
}

// Encode writes m.
func (m *BackingMap) Encode(b []byte) {
	clear(b[:BackingMapSize])
	ne.PutUint32(b[0:], uint32(m.FD))
	ne.PutUint32(b[4:], m.Flags)
}
