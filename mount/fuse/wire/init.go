package wire

// Flag is what INIT negotiates: flags in its low half, flags2 in its high half.
type Flag uint64

// Flags of INIT (FUSE_*).
const (
	AsyncRead     Flag = 1 << 0  // ASYNC_READ: several READs of a file at a time
	ExportSupport Flag = 1 << 4  // EXPORT_SUPPORT: LOOKUP answers . and ..
	ReadDirPlus   Flag = 1 << 13 // DO_READDIRPLUS
	NoOpen        Flag = 1 << 17 // NO_OPEN_SUPPORT: OPEN may be answered ENOSYS
	ParallelDirs  Flag = 1 << 18 // PARALLEL_DIROPS: several LOOKUPs and READDIRs in a directory at a time
	POSIXACL      Flag = 1 << 20 // POSIX_ACL: the kernel checks them; implies default_permissions
	MaxPages      Flag = 1 << 22 // MAX_PAGES: InitOut.MaxPages counts
	CacheSymlinks Flag = 1 << 23 // CACHE_SYMLINKS
	NoOpendir     Flag = 1 << 24 // NO_OPENDIR_SUPPORT: OPENDIR may be answered ENOSYS
	InitExt       Flag = 1 << 30 // INIT_EXT: flags2 counts
	Passthrough   Flag = 1 << 37 // PASSTHROUGH: OPEN may name a backing file
	HasResend     Flag = 1 << 39 // HAS_RESEND: NotifyResend works
	AllowIDMap    Flag = 1 << 40 // ALLOW_IDMAP: idmapped mounts; needs default_permissions
)

// InitIn is what INIT asks with. Kernels before 5.17 send 16 bytes of it, without Flags2.
type InitIn struct {
	Major        uint32 // major
	Minor        uint32 // minor
	MaxReadahead uint32 // max_readahead, bytes
	Flags        Flag   // flags, flags2
	// unused, 44 bytes
}

const (
	initInShort = 16 // before flags2
	initInFlags = 20
)

// Decode reads i from the begin of b.
func (i *InitIn) Decode(b []byte) bool {
	if len(b) < initInShort {
		return false
	}
	i.Major = ne.Uint32(b[0:])
	i.Minor = ne.Uint32(b[4:])
	i.MaxReadahead = ne.Uint32(b[8:])
	i.Flags = Flag(ne.Uint32(b[12:]))
	if i.Flags&InitExt != 0 && len(b) >= initInFlags {
		i.Flags |= Flag(ne.Uint32(b[16:])) << 32
	}
	return true
}

// InitOut answers INIT.
type InitOut struct {
	Major               uint32 // major
	Minor               uint32 // minor
	MaxReadahead        uint32 // max_readahead, bytes
	Flags               Flag   // flags, flags2
	MaxBackground       uint16 // max_background: requests that nobody waits for
	CongestionThreshold uint16 // congestion_threshold
	MaxWrite            uint32 // max_write, bytes; with the header less than what the device is read with
	TimeGran            uint32 // time_gran, nanoseconds
	MaxPages            uint16 // max_pages of a request
	MapAlignment        uint16 // map_alignment
	MaxStackDepth       uint32 // max_stack_depth of the file systems of backing files, and this one
	RequestTimeout      uint16 // request_timeout, seconds
	// unused, 22 bytes
}

// Encode writes i.
func (i *InitOut) Encode(b []byte) {
	clear(b[:InitOutSize])
	ne.PutUint32(b[0:], i.Major)
	ne.PutUint32(b[4:], i.Minor)
	ne.PutUint32(b[8:], i.MaxReadahead)
	ne.PutUint32(b[12:], uint32(i.Flags))
	ne.PutUint16(b[16:], i.MaxBackground)
	ne.PutUint16(b[18:], i.CongestionThreshold)
	ne.PutUint32(b[20:], i.MaxWrite)
	ne.PutUint32(b[24:], i.TimeGran)
	ne.PutUint16(b[28:], i.MaxPages)
	ne.PutUint16(b[30:], i.MapAlignment)
	ne.PutUint32(b[32:], uint32(i.Flags>>32))
	ne.PutUint32(b[36:], i.MaxStackDepth)
	ne.PutUint16(b[40:], i.RequestTimeout)
}
