package disk

// HeaderMagic begins every composefs image.
const HeaderMagic = 0xd078629a // LCFS_EROFS_MAGIC

// HeaderVersion is the version of the header itself, not of the composefs format.
const HeaderVersion = 1 // LCFS_EROFS_VERSION

// HeaderHasACL in a header's flags: an inode has a POSIX ACL. Without it the image is to be mounted with noacl.
const HeaderHasACL = 1 << 0 // LCFS_EROFS_FLAGS_HAS_ACL

// Header is struct lcfs_erofs_header_s, in which composefs puts what EROFS has no place for. EROFS ignores these bytes.
type Header struct {
	Magic            uint32 // magic
	Version          uint32 // version
	Flags            uint32 // flags
	ComposefsVersion uint32 // composefs_version
	// unused, 16 bytes
}

// Decode reads h from the first HeaderSize bytes of b.
func (h *Header) Decode(b []byte) {
	_ = b[HeaderSize-1]
	h.Magic = le.Uint32(b[0:])
	h.Version = le.Uint32(b[4:])
	h.Flags = le.Uint32(b[8:])
	h.ComposefsVersion = le.Uint32(b[12:])
}

// AppendTo appends h as it is on disk.
func (h *Header) AppendTo(b []byte) []byte {
	b = le.AppendUint32(b, h.Magic)
	b = le.AppendUint32(b, h.Version)
	b = le.AppendUint32(b, h.Flags)
	b = le.AppendUint32(b, h.ComposefsVersion)
	return append(b, make([]byte, 16)...)
}

// SuperMagic is the superblock's.
const SuperMagic = 0xE0F5E1E2 // EROFS_SUPER_MAGIC_V1

// Compatible features (EROFS_FEATURE_COMPAT_*): who does not know one may ignore it.
const (
	CompatChecksum    = 0x01 // SB_CHKSUM: the superblock's checksum is set
	CompatMtime       = 0x02 // MTIME: times are modification times
	CompatXattrFilter = 0x04 // XATTR_FILTER: inodes' xattr headers have name filters
	CompatPlainXattrs = 0x10 // PLAIN_XATTR_PFX: long xattr prefixes lie in the image itself, not in the packed inode
)

// Incompatible features (EROFS_FEATURE_INCOMPAT_*): who does not know one must refuse the image.
const (
	IncompatZeroPadding   = 0x001 // LZ4_0PADDING; older tools set it without compression too
	IncompatComprConfigs  = 0x002 // COMPR_CFGS, BIG_PCLUSTER
	IncompatChunkedFile   = 0x004 // CHUNKED_FILE; composefs images use chunks without it
	IncompatDeviceTable   = 0x008 // DEVICE_TABLE, COMPR_HEAD2
	IncompatTailPacking   = 0x010 // ZTAILPACKING
	IncompatFragments     = 0x020 // FRAGMENTS, DEDUPE
	IncompatXattrPrefixes = 0x040 // XATTR_PREFIXES
	Incompat48Bit         = 0x080 // 48BIT: block numbers of 48 bits
	IncompatMetabox       = 0x100 // METABOX: compressed metadata
)

// Superblock is struct erofs_super_block. Fields that only features of compression, devices, 48-bit block numbers and
// compressed metadata use are written as zeros.
type Superblock struct {
	Magic              uint32   // magic
	Checksum           uint32   // checksum: CRC-32C
	FeatureCompat      uint32   // feature_compat
	BlockBits          uint8    // blkszbits
	ExtSlots           uint8    // sb_extslots
	RootNid            uint16   // rb.rootnid_2b
	Inodes             uint64   // inos
	Epoch              uint64   // epoch (build_time once): mtime of compact inodes, seconds, two's complement
	EpochNsec          uint32   // fixed_nsec (build_time_nsec once)
	Blocks             uint32   // blocks_lo
	MetaBlock          uint32   // meta_blkaddr
	XattrBlock         uint32   // xattr_blkaddr
	UUID               [16]byte // uuid
	VolumeName         [16]byte // volume_name
	FeatureIncompat    uint32   // feature_incompat
	CompressionInfo    uint16   // u1: available_compr_algs or lz4_max_distance
	ExtraDevices       uint16   // extra_devices
	DeviceSlotOffset   uint16   // devt_slotoff
	DirBlockBits       uint8    // dirblkbits
	XattrPrefixCount   uint8    // xattr_prefix_count
	XattrPrefixStart   uint32   // xattr_prefix_start, in units of 4 bytes
	PackedNid          uint64   // packed_nid
	XattrFilterReserve uint8    // xattr_filter_reserved: not zero, name filters mean something else
	// ishare_xattr_prefix_id, reserved, build_time, rootnid_8b, reserved2: 23 bytes
}

// Decode reads s from the first SuperblockSize bytes of b.
func (s *Superblock) Decode(b []byte) {
	_ = b[SuperblockSize-1]
	s.Magic = le.Uint32(b[0:])
	s.Checksum = le.Uint32(b[4:])
	s.FeatureCompat = le.Uint32(b[8:])
	s.BlockBits = b[12]
	s.ExtSlots = b[13]
	s.RootNid = le.Uint16(b[14:])
	s.Inodes = le.Uint64(b[16:])
	s.Epoch = le.Uint64(b[24:])
	s.EpochNsec = le.Uint32(b[32:])
	s.Blocks = le.Uint32(b[36:])
	s.MetaBlock = le.Uint32(b[40:])
	s.XattrBlock = le.Uint32(b[44:])
	copy(s.UUID[:], b[48:])
	copy(s.VolumeName[:], b[64:])
	s.FeatureIncompat = le.Uint32(b[80:])
	s.CompressionInfo = le.Uint16(b[84:])
	s.ExtraDevices = le.Uint16(b[86:])
	s.DeviceSlotOffset = le.Uint16(b[88:])
	s.DirBlockBits = b[90]
	s.XattrPrefixCount = b[91]
	s.XattrPrefixStart = le.Uint32(b[92:])
	s.PackedNid = le.Uint64(b[96:])
	s.XattrFilterReserve = b[104]
}

// AppendTo appends s as it is on disk.
func (s *Superblock) AppendTo(b []byte) []byte {
	b = le.AppendUint32(b, s.Magic)
	b = le.AppendUint32(b, s.Checksum)
	b = le.AppendUint32(b, s.FeatureCompat)
	b = append(b, s.BlockBits, s.ExtSlots)
	b = le.AppendUint16(b, s.RootNid)
	b = le.AppendUint64(b, s.Inodes)
	b = le.AppendUint64(b, s.Epoch)
	b = le.AppendUint32(b, s.EpochNsec)
	b = le.AppendUint32(b, s.Blocks)
	b = le.AppendUint32(b, s.MetaBlock)
	b = le.AppendUint32(b, s.XattrBlock)
	b = append(b, s.UUID[:]...)
	b = append(b, s.VolumeName[:]...)
	b = le.AppendUint32(b, s.FeatureIncompat)
	b = le.AppendUint16(b, s.CompressionInfo)
	b = le.AppendUint16(b, s.ExtraDevices)
	b = le.AppendUint16(b, s.DeviceSlotOffset)
	b = append(b, s.DirBlockBits, s.XattrPrefixCount)
	b = le.AppendUint32(b, s.XattrPrefixStart)
	b = le.AppendUint64(b, s.PackedNid)
	b = append(b, s.XattrFilterReserve)
	return append(b, make([]byte, 23)...)
}
