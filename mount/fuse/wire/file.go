package wire

// Flags of OpenOut (FOPEN_*).
const (
	OpenDirectIO    = 1 << 0 // DIRECT_IO
	OpenKeepCache   = 1 << 1 // KEEP_CACHE
	OpenNoFlush     = 1 << 5 // NOFLUSH
	OpenPassthrough = 1 << 7 // PASSTHROUGH: not together with KEEP_CACHE, or the open fails with EIO
)

// OpenIn is what OPEN asks with.
type OpenIn struct {
	Flags     uint32 // flags: O_*
	OpenFlags uint32 // open_flags
}

// Decode reads o from the begin of b.
func (o *OpenIn) Decode(b []byte) bool {
	if len(b) < OpenInSize {
		return false
	}
	o.Flags = ne.Uint32(b[0:])
	o.OpenFlags = ne.Uint32(b[4:])
	return true
}

// OpenOut answers OPEN.
type OpenOut struct {
	Fh        uint64 // fh
	OpenFlags uint32 // open_flags: Open*
	BackingID int32  // backing_id: with OpenPassthrough
}

// Encode writes o.
func (o *OpenOut) Encode(b []byte) {
	_ = b[OpenOutSize-1]
	ne.PutUint64(b[0:], o.Fh)
	ne.PutUint32(b[8:], o.OpenFlags)
	ne.PutUint32(b[12:], uint32(o.BackingID))
}

// ReleaseIn is what RELEASE says: the last use of what an OPEN made has ended.
type ReleaseIn struct {
	Fh           uint64 // fh
	Flags        uint32 // flags: O_*
	ReleaseFlags uint32 // release_flags
	LockOwner    uint64 // lock_owner
}

// Decode reads r from the begin of b.
func (r *ReleaseIn) Decode(b []byte) bool {
	if len(b) < ReleaseInSize {
		return false
	}
	r.Fh = ne.Uint64(b[0:])
	r.Flags = ne.Uint32(b[8:])
	r.ReleaseFlags = ne.Uint32(b[12:])
	r.LockOwner = ne.Uint64(b[16:])
	return true
}

// ReadIn is what READ, READDIR and READDIRPLUS ask with.
type ReadIn struct {
	Fh        uint64 // fh
	Offset    uint64 // offset: in bytes, or a cookie
	Size      uint32 // size, bytes
	ReadFlags uint32 // read_flags
	LockOwner uint64 // lock_owner
	Flags     uint32 // flags: O_*
	// padding, 4 bytes
}

// Decode reads r from the begin of b.
func (r *ReadIn) Decode(b []byte) bool {
	if len(b) < ReadInSize {
		return false
	}
	r.Fh = ne.Uint64(b[0:])
	r.Offset = ne.Uint64(b[8:])
	r.Size = ne.Uint32(b[16:])
	r.ReadFlags = ne.Uint32(b[20:])
	r.LockOwner = ne.Uint64(b[24:])
	r.Flags = ne.Uint32(b[32:])
	return true
}

// Encode writes r, as a test does that stands for the kernel.
func (r *ReadIn) Encode(b []byte) {
	clear(b[:ReadInSize])
	ne.PutUint64(b[0:], r.Fh)
	ne.PutUint64(b[8:], r.Offset)
	ne.PutUint32(b[16:], r.Size)
	ne.PutUint32(b[20:], r.ReadFlags)
	ne.PutUint64(b[24:], r.LockOwner)
	ne.PutUint32(b[32:], r.Flags)
}

// GetxattrIn is what GETXATTR and LISTXATTR ask with. After it comes GETXATTR's name.
type GetxattrIn struct {
	Size uint32 // size of the caller's memory in bytes; 0: the reply is a GetxattrOut
	// padding, 4 bytes
}

// Decode reads g from the begin of b.
func (g *GetxattrIn) Decode(b []byte) bool {
	if len(b) < GetxattrInSize {
		return false
	}
	g.Size = ne.Uint32(b[0:])
	return true
}

// GetxattrOut answers GETXATTR and LISTXATTR with a size alone.
type GetxattrOut struct {
	Size uint32 // size, bytes
	// padding, 4 bytes
}

// Encode writes g.
func (g *GetxattrOut) Encode(b []byte) {
	clear(b[:GetxattrOutSize])
	ne.PutUint32(b[0:], g.Size)
}
