// Package disk has the on-disk structures of EROFS and of the composefs header, with their constants: as many of them as
// reading uncompressed images and writing composefs images needs.
//
// Words and values are those of the kernel's fs/erofs/erofs_fs.h; each Go field has the C field beside it. All integers
// are little-endian. A structure has a Decode method, which wants at least Size bytes and panics with fewer (the caller
// has checked its range), and an AppendTo method, whose bytes Decode takes back. Neither looks at what the values mean.
package disk

import (
	"encoding/binary"
	"math"
)

// Where the fixed parts of an image lie, in bytes from its begin.
const (
	HeaderOffset     = 0
	SuperblockOffset = 1024 // EROFS_SUPER_OFFSET
)

// Sizes of the structures in bytes.
const (
	HeaderSize        = 32  // struct lcfs_erofs_header_s
	SuperblockSize    = 128 // struct erofs_super_block without extension slots
	CompactInodeSize  = 32  // struct erofs_inode_compact
	ExtendedInodeSize = 64  // struct erofs_inode_extended
	DirentSize        = 12  // struct erofs_dirent
	XattrHeaderSize   = 12  // struct erofs_xattr_ibody_header without the references
	XattrRefSize      = 4   // an element of h_shared_xattrs, and the unit that a reference counts
	XattrEntrySize    = 4   // struct erofs_xattr_entry without name and value
	BlockMapEntrySize = 4   // EROFS_BLOCK_MAP_ENTRY_SIZE
	ChunkIndexSize    = 8   // struct erofs_inode_chunk_index
)

// SlotBits is the binary logarithm of an inode slot's size: nid n lies n<<SlotBits bytes into the metadata area.
const SlotBits = 5 // EROFS_ISLOTBITS

// Block sizes that mkfs.erofs makes, as binary logarithms.
const (
	MinBlockBits = 9
	MaxBlockBits = 16
)

// NameMax is the length of the longest file name in bytes.
const NameMax = 255 // EROFS_NAME_LEN

// NullBlock stands where a block number would, for a hole.
const NullBlock = math.MaxUint32 // EROFS_NULL_ADDR, 32 bits of it

// SuperblockSlotSize is the size in bytes of the extension slots that may follow the superblock.
const SuperblockSlotSize = 16 // EROFS_SB_EXTSLOT_SIZE

var le = binary.LittleEndian
