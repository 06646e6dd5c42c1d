package disk

// Format is an inode's i_format: how it and its data are laid out.
type Format uint16

const (
	formatExtended   = 1 << 0 // EROFS_I_VERSION_BIT
	formatLayoutBit  = 1      // EROFS_I_DATALAYOUT_BIT
	formatLayoutMask = 0x07   // EROFS_I_DATALAYOUT_MASK

	// FormatKnown has the bits that mean something without the 48BIT feature.
	FormatKnown Format = formatExtended | formatLayoutMask<<formatLayoutBit
)

// MakeFormat is the i_format of an inode with data layout l.
func MakeFormat(l Layout, extended bool) Format {
	f := Format(l) << formatLayoutBit
	if extended {
		f |= formatExtended
	}
	return f
}

// Extended tells a 64-byte inode from a 32-byte one.
func (f Format) Extended() bool { return f&formatExtended != 0 }

// Layout is that of the inode's data.
func (f Format) Layout() Layout { return Layout(f >> formatLayoutBit & formatLayoutMask) }

// Layout says where an inode's data is (EROFS_INODE_*).
type Layout uint8

const (
	FlatPlain         Layout = 0 // FLAT_PLAIN: in neighbouring blocks
	CompressedFull    Layout = 1 // COMPRESSED_FULL
	FlatInline        Layout = 2 // FLAT_INLINE: likewise, but the last, partial block follows the inode and its xattrs
	CompressedCompact Layout = 3 // COMPRESSED_COMPACT
	ChunkBased        Layout = 4 // CHUNK_BASED: in chunks, whose places are listed after the inode and its xattrs
)

// Compressed tells whether the layout is one of the two compressed ones.
func (l Layout) Compressed() bool { return l == CompressedFull || l == CompressedCompact }

// An inode's chunk format is the low half of its i_u.
const (
	ChunkBitsMask uint32 = 0x001f // EROFS_CHUNK_FORMAT_BLKBITS_MASK: log2(chunk size / block size)
	ChunkIndexes  uint32 = 0x0020 // EROFS_CHUNK_FORMAT_INDEXES: 8-byte chunk indexes, not 4-byte block numbers
	Chunk48Bit    uint32 = 0x0040 // EROFS_CHUNK_FORMAT_48BIT

	ChunkFormatMask uint32 = 0xffff // size of erofs_inode_chunk_info.format
)

// CompactInode is struct erofs_inode_compact. Its modification time is the superblock's epoch, plus MtimeDelta.
type CompactInode struct {
	Format     Format // i_format
	XattrCount uint16 // i_xattr_icount
	Mode       uint16 // i_mode
	Nlink      uint16 // i_nb.nlink
	Size       uint32 // i_size
	MtimeDelta uint32 // i_mtime, seconds
	U          uint32 // i_u: first block, device number, or chunk format
	Ino        uint32 // i_ino
	UID        uint16 // i_uid
	GID        uint16 // i_gid
	// i_reserved, 4 bytes
}

// Decode reads i from the first CompactInodeSize bytes of b.
func (i *CompactInode) Decode(b []byte) {
	_ = b[CompactInodeSize-1]
	i.Format = Format(le.Uint16(b[0:]))
	i.XattrCount = le.Uint16(b[2:])
	i.Mode = le.Uint16(b[4:])
	i.Nlink = le.Uint16(b[6:])
	i.Size = le.Uint32(b[8:])
	i.MtimeDelta = le.Uint32(b[12:])
	i.U = le.Uint32(b[16:])
	i.Ino = le.Uint32(b[20:])
	i.UID = le.Uint16(b[24:])
	i.GID = le.Uint16(b[26:])
}

// AppendTo appends i as it is on disk.
func (i *CompactInode) AppendTo(b []byte) []byte {
	b = le.AppendUint16(b, uint16(i.Format))
	b = le.AppendUint16(b, i.XattrCount)
	b = le.AppendUint16(b, i.Mode)
	b = le.AppendUint16(b, i.Nlink)
	b = le.AppendUint32(b, i.Size)
	b = le.AppendUint32(b, i.MtimeDelta)
	b = le.AppendUint32(b, i.U)
	b = le.AppendUint32(b, i.Ino)
	b = le.AppendUint16(b, i.UID)
	b = le.AppendUint16(b, i.GID)
	return le.AppendUint32(b, 0)
}

// ExtendedInode is struct erofs_inode_extended.
type ExtendedInode struct {
	Format     Format // i_format
	XattrCount uint16 // i_xattr_icount
	Mode       uint16 // i_mode
	BlockHigh  uint16 // i_nb.startblk_hi, used with the 48BIT feature only
	Size       uint64 // i_size
	U          uint32 // i_u: first block, device number, or chunk format
	Ino        uint32 // i_ino
	UID        uint32 // i_uid
	GID        uint32 // i_gid
	Mtime      uint64 // i_mtime, seconds, two's complement
	MtimeNsec  uint32 // i_mtime_nsec
	Nlink      uint32 // i_nlink
	// i_reserved2, 16 bytes
}

// Decode reads i from the first ExtendedInodeSize bytes of b.
func (i *ExtendedInode) Decode(b []byte) {
	_ = b[ExtendedInodeSize-1]
	i.Format = Format(le.Uint16(b[0:]))
	i.XattrCount = le.Uint16(b[2:])
	i.Mode = le.Uint16(b[4:])
	i.BlockHigh = le.Uint16(b[6:])
	i.Size = le.Uint64(b[8:])
	i.U = le.Uint32(b[16:])
	i.Ino = le.Uint32(b[20:])
	i.UID = le.Uint32(b[24:])
	i.GID = le.Uint32(b[28:])
	i.Mtime = le.Uint64(b[32:])
	i.MtimeNsec = le.Uint32(b[40:])
	i.Nlink = le.Uint32(b[44:])
}

// AppendTo appends i as it is on disk.
func (i *ExtendedInode) AppendTo(b []byte) []byte {
	b = le.AppendUint16(b, uint16(i.Format))
	b = le.AppendUint16(b, i.XattrCount)
	b = le.AppendUint16(b, i.Mode)
	b = le.AppendUint16(b, i.BlockHigh)
	b = le.AppendUint64(b, i.Size)
	b = le.AppendUint32(b, i.U)
	b = le.AppendUint32(b, i.Ino)
	b = le.AppendUint32(b, i.UID)
	b = le.AppendUint32(b, i.GID)
	b = le.AppendUint64(b, i.Mtime)
	b = le.AppendUint32(b, i.MtimeNsec)
	b = le.AppendUint32(b, i.Nlink)
	return append(b, make([]byte, 16)...)
}

// ChunkIndex is struct erofs_inode_chunk_index.
type ChunkIndex struct {
	BlockHigh uint16 // startblk_hi, used with Chunk48Bit only
	Device    uint16 // device_id; 0: the image itself
	Block     uint32 // startblk_lo
}

// Decode reads c from the first ChunkIndexSize bytes of b.
func (c *ChunkIndex) Decode(b []byte) {
	_ = b[ChunkIndexSize-1]
	c.BlockHigh = le.Uint16(b[0:])
	c.Device = le.Uint16(b[2:])
	c.Block = le.Uint32(b[4:])
}

// AppendTo appends c as it is on disk.
func (c *ChunkIndex) AppendTo(b []byte) []byte {
	b = le.AppendUint16(b, c.BlockHigh)
	b = le.AppendUint16(b, c.Device)
	return le.AppendUint32(b, c.Block)
}
