package wire

// Attr is an inode's attributes.
type Attr struct {
	Ino       uint64 // ino
	Size      uint64 // size, bytes
	Blocks    uint64 // blocks of 512 bytes
	Atime     uint64 // atime, seconds, two's complement
	Mtime     uint64 // mtime
	Ctime     uint64 // ctime
	AtimeNsec uint32 // atimensec
	MtimeNsec uint32 // mtimensec
	CtimeNsec uint32 // ctimensec
	Mode      uint32 // mode
	Nlink     uint32 // nlink
	UID       uint32 // uid
	GID       uint32 // gid
	Rdev      uint32 // rdev, as new_encode_dev has it
	Blksize   uint32 // blksize
	Flags     uint32 // flags
}

// Encode writes a.
func (a *Attr) Encode(b []byte) {
	_ = b[AttrSize-1]
	ne.PutUint64(b[0:], a.Ino)
	ne.PutUint64(b[8:], a.Size)
	ne.PutUint64(b[16:], a.Blocks)
	ne.PutUint64(b[24:], a.Atime)
	ne.PutUint64(b[32:], a.Mtime)
	ne.PutUint64(b[40:], a.Ctime)
	ne.PutUint32(b[48:], a.AtimeNsec)
	ne.PutUint32(b[52:], a.MtimeNsec)
	ne.PutUint32(b[56:], a.CtimeNsec)
	ne.PutUint32(b[60:], a.Mode)
	ne.PutUint32(b[64:], a.Nlink)
	ne.PutUint32(b[68:], a.UID)
	ne.PutUint32(b[72:], a.GID)
	ne.PutUint32(b[76:], a.Rdev)
	ne.PutUint32(b[80:], a.Blksize)
	ne.PutUint32(b[84:], a.Flags)
}

// EntryOut answers LOOKUP, and begins an entry of READDIRPLUS.
type EntryOut struct {
	NodeID         uint64 // nodeid; 0: no such name, which is kept as long as EntryValid says
	Generation     uint64 // generation
	EntryValid     uint64 // entry_valid, seconds
	AttrValid      uint64 // attr_valid, seconds
	EntryValidNsec uint32 // entry_valid_nsec
	AttrValidNsec  uint32 // attr_valid_nsec
	Attr           Attr   // attr
}

// Encode writes e.
func (e *EntryOut) Encode(b []byte) {
	_ = b[EntryOutSize-1]
	ne.PutUint64(b[0:], e.NodeID)
	ne.PutUint64(b[8:], e.Generation)
	ne.PutUint64(b[16:], e.EntryValid)
	ne.PutUint64(b[24:], e.AttrValid)
	ne.PutUint32(b[32:], e.EntryValidNsec)
	ne.PutUint32(b[36:], e.AttrValidNsec)
	e.Attr.Encode(b[40:])
}

// AttrOut answers GETATTR.
type AttrOut struct {
	AttrValid     uint64 // attr_valid, seconds
	AttrValidNsec uint32 // attr_valid_nsec
	// dummy, 4 bytes
	Attr Attr // attr
}

// Encode writes a.
func (a *AttrOut) Encode(b []byte) {
	_ = b[AttrOutSize-1]
	ne.PutUint64(b[0:], a.AttrValid)
	ne.PutUint32(b[8:], a.AttrValidNsec)
	ne.PutUint32(b[12:], 0)
	a.Attr.Encode(b[16:])
}

// Dirent is an entry of READDIR, and the second part of one of READDIRPLUS. The name follows, and zeros up to a multiple
// of 8 bytes.
type Dirent struct {
	Ino     uint64 // ino
	Off     uint64 // off: the cookie of the place behind the entry
	NameLen uint32 // namelen
	Type    uint32 // type: DT_*, the file type of st_mode shifted right by 12
}

// Encode writes d.
func (d *Dirent) Encode(b []byte) {
	_ = b[DirentSize-1]
	ne.PutUint64(b[0:], d.Ino)
	ne.PutUint64(b[8:], d.Off)
	ne.PutUint32(b[16:], d.NameLen)
	ne.PutUint32(b[20:], d.Type)
}

// Decode reads d from the begin of b, as a test does that stands for the kernel.
func (d *Dirent) Decode(b []byte) bool {
	if len(b) < DirentSize {
		return false
	}
	d.Ino = ne.Uint64(b[0:])
	d.Off = ne.Uint64(b[8:])
	d.NameLen = ne.Uint32(b[16:])
	d.Type = ne.Uint32(b[20:])
	return true
}

// DirentLen is the size in bytes of a Dirent with a name of n bytes and the zeros (FUSE_DIRENT_SIZE).
func DirentLen(n int) int { return (DirentSize + n + 7) &^ 7 }

// StatfsOut answers STATFS (struct fuse_kstatfs).
type StatfsOut struct {
	Blocks  uint64 // blocks, of Frsize
	Bfree   uint64 // bfree
	Bavail  uint64 // bavail
	Files   uint64 // files
	Ffree   uint64 // ffree
	Bsize   uint32 // bsize
	NameLen uint32 // namelen
	Frsize  uint32 // frsize
	// padding, spare: 28 bytes
}

// Encode writes s.
func (s *StatfsOut) Encode(b []byte) {
	clear(b[:StatfsOutSize])
	ne.PutUint64(b[0:], s.Blocks)
	ne.PutUint64(b[8:], s.Bfree)
	ne.PutUint64(b[16:], s.Bavail)
	ne.PutUint64(b[24:], s.Files)
	ne.PutUint64(b[32:], s.Ffree)
	ne.PutUint32(b[40:], s.Bsize)
	ne.PutUint32(b[44:], s.NameLen)
	ne.PutUint32(b[48:], s.Frsize)
}
