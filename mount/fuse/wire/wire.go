// Package wire has the structures of the kernel's FUSE protocol, with their constants: as many of them as a server of a
// read-only file system needs.
//
// Words and values are those of include/uapi/linux/fuse.h, protocol version 7.45; each Go field has the C field beside it.
// All integers are in the machine's own byte order. What the kernel sends (a request: an InHeader, then what the operation
// has) is decoded by Decode methods, which tell by false that there are too few bytes and then leave the structure as it
// was. What the kernel gets (a reply: an OutHeader, then what the operation has) is written by Encode methods, into memory
// of at least Size bytes; with less they panic. Neither allocates, and none keeps a view of the bytes.
package wire

import "encoding/binary"

var ne = binary.NativeEndian

// Protocol versions.
const (
	Major = 7  // FUSE_KERNEL_VERSION
	Minor = 45 // FUSE_KERNEL_MINOR_VERSION

	// MinorOldest is the oldest protocol whose structures are all those that are here: in 7.23 (Linux 3.15) InitOut got its
	// size, and read requests and attributes were what they are.
	MinorOldest = 23
)

// RootID is the node ID of the root directory.
const RootID = 1 // FUSE_ROOT_ID

// MinReadBuffer is the size in bytes of the smallest buffer with which a device may be read.
const MinReadBuffer = 8192 // FUSE_MIN_READ_BUFFER

// UniqueResend is set in a request's Unique if it is sent for the second time, after NotifyResend. The reply has it too.
const UniqueResend = 1 << 63 // FUSE_UNIQUE_RESEND

// Sizes of the structures in bytes.
const (
	InHeaderSize    = 40  // struct fuse_in_header
	OutHeaderSize   = 16  // struct fuse_out_header
	InitInSize      = 64  // struct fuse_init_in
	InitOutSize     = 64  // struct fuse_init_out
	AttrSize        = 88  // struct fuse_attr
	EntryOutSize    = 128 // struct fuse_entry_out
	AttrOutSize     = 104 // struct fuse_attr_out
	OpenInSize      = 8   // struct fuse_open_in
	OpenOutSize     = 16  // struct fuse_open_out
	ReleaseInSize   = 24  // struct fuse_release_in
	ReadInSize      = 40  // struct fuse_read_in
	GetxattrInSize  = 8   // struct fuse_getxattr_in
	GetxattrOutSize = 8   // struct fuse_getxattr_out
	StatfsOutSize   = 80  // struct fuse_statfs_out
	DirentSize      = 24  // struct fuse_dirent without the name: FUSE_NAME_OFFSET
	BackingMapSize  = 16  // struct fuse_backing_map
)

// InHeader begins a request.
type InHeader struct {
	Len       uint32 // len: of the request with this header
	Opcode    Opcode // opcode
	Unique    uint64 // unique: the reply has the same
	NodeID    uint64 // nodeid
	UID       uint32 // uid; with AllowIDMap 2^32-1
	GID       uint32 // gid; likewise
	PID       uint32 // pid
	ExtLength uint16 // total_extlen, in units of 8 bytes, of what follows the operation's own
	// padding, 2 bytes
}

// Decode reads h from the begin of b.
func (h *InHeader) Decode(b []byte) bool {
	if len(b) < InHeaderSize {
		return false
	}
	h.Len = ne.Uint32(b[0:])
	h.Opcode = Opcode(ne.Uint32(b[4:]))
	h.Unique = ne.Uint64(b[8:])
	h.NodeID = ne.Uint64(b[16:])
	h.UID = ne.Uint32(b[24:])
	h.GID = ne.Uint32(b[28:])
	h.PID = ne.Uint32(b[32:])
	h.ExtLength = ne.Uint16(b[36:])
	return true
}

// Encode writes h, as a test does that stands for the kernel.
func (h *InHeader) Encode(b []byte) {
	_ = b[InHeaderSize-1]
	ne.PutUint32(b[0:], h.Len)
	ne.PutUint32(b[4:], uint32(h.Opcode))
	ne.PutUint64(b[8:], h.Unique)
	ne.PutUint64(b[16:], h.NodeID)
	ne.PutUint32(b[24:], h.UID)
	ne.PutUint32(b[28:], h.GID)
	ne.PutUint32(b[32:], h.PID)
	ne.PutUint16(b[36:], h.ExtLength)
	ne.PutUint16(b[38:], 0)
}

// OutHeader begins a reply, or a notification: that has no Unique, and its code in Error.
type OutHeader struct {
	Len    uint32 // len: of the reply with this header
	Error  int32  // error: 0, or a negative errno; then nothing follows
	Unique uint64 // unique: the request's
}

// Decode reads h from the begin of b, as a test does that stands for the kernel.
func (h *OutHeader) Decode(b []byte) bool {
	if len(b) < OutHeaderSize {
		return false
	}
	h.Len = ne.Uint32(b[0:])
	h.Error = int32(ne.Uint32(b[4:]))
	h.Unique = ne.Uint64(b[8:])
	return true
}

// Encode writes h.
func (h *OutHeader) Encode(b []byte) {
	_ = b[OutHeaderSize-1]
	ne.PutUint32(b[0:], h.Len)
	ne.PutUint32(b[4:], uint32(h.Error))
	ne.PutUint64(b[8:], h.Unique)
}

// Name is the NUL-terminated string at the begin of b, as requests have names.
func Name(b []byte) (name []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], true
		}
	}
	return nil, false
}
