// Package erofs reads EROFS images and writes composefs images, which are EROFS images without the files' data: a backed
// file has an overlayfs metacopy xattr with the fs-verity digest of its object, and a redirect to the object's path.
//
// Words are the kernel's: a nid is an inode's number and place, a dirent a name in a directory, a block the unit of
// addresses. The structures are package disk's.
//
// An image is hostile until its digest was measured, so the reader trusts no number in it. Every access goes through one
// bounds-checked function, nothing is allocated that the image's own size does not justify, and walks visit a directory
// once. What the reader does not know it refuses, by an UnsupportedError; what can't be is ErrCorrupt. It does not judge
// whether an image is one that Write would make: to know that, read the tree, write it, and compare the digests.
//
// Images and inodes don't change and may be used by several goroutines if the io.ReaderAt may.
package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/flatroot/flatroot/erofs/disk"
)

// Errors of reading an image.
var (
	// ErrNotImage: there is no EROFS superblock.
	ErrNotImage = errors.New("not an EROFS image")
	// ErrCorrupt is wrapped by errors that tell what in an image can't be.
	ErrCorrupt = errors.New("corrupt image")
)

// UnsupportedError tells that an image uses something that this package does not know or does not want to know.
type UnsupportedError struct {
	Feature string // in words, after "uses"
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("unsupported image: it uses %s", e.Feature)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// Nid is the number of an inode in one image.
type Nid uint64

// Image is an open image.
type Image struct {
	r        io.ReaderAt
	mem      []byte // the image, if it is in memory; then r is not used
	size     uint64
	super    disk.Superblock
	version  int
	hasACL   bool
	prefixes []string // long xattr name prefixes, by their index
}

// Open reads the superblock of an image of size bytes and the composefs header, if there is one. It refuses images with
// compressed data, with data on other devices, with 48-bit block numbers and with features that it does not know.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	return open(&Image{r: r}, size)
}

// OpenBytes is Open for an image that is in memory, such as a mapped file. The bytes that methods of the image and of its
// inodes return are views of b then, which the caller must not change, and none of those that say so allocates.
//
// b may change meanwhile, as a mapped file does that somebody writes to: each access checks what it finds anew. Where a
// mapped file became shorter an access faults; how to survive that is the caller's business (debug.SetPanicOnFault).
func OpenBytes(b []byte) (*Image, error) {
	return open(&Image{mem: b}, int64(len(b)))
}

func open(m *Image, size int64) (*Image, error) {
	if size < disk.SuperblockOffset+disk.SuperblockSize {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrNotImage, size)
	}
	m.size = uint64(size)
	for _, step := range []func() error{
		m.readSuperblock, m.checkSize, m.checkFeatures, m.readHeader, m.checkChecksum, m.readPrefixes, m.checkRoot,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Root is the root directory.
func (m *Image) Root() Nid { return Nid(m.super.RootNid) }

// Version is the composefs format version, 0, 1 or 2, or -1 if the image has no composefs header.
func (m *Image) Version() int { return m.version }

// HasACL tells whether inodes may have POSIX ACLs. If not, the image is meant to be mounted with noacl. Only composefs
// images can say no.
func (m *Image) HasACL() bool { return m.hasACL }

// Inodes is the number of inodes as the superblock has it. Nothing checks it.
func (m *Image) Inodes() uint64 { return m.super.Inodes }

// Size is the number of bytes that Open was told.
func (m *Image) Size() int64 { return int64(m.size) }

// Blocks is the number of blocks as the superblock has it. They are no more than the image has room for.
func (m *Image) Blocks() uint32 { return m.super.Blocks }

// BlockSize is the size of a block in bytes.
func (m *Image) BlockSize() int { return 1 << m.super.BlockBits }

func (m *Image) composefs() bool { return m.version >= 0 }

func (m *Image) readSuperblock() error {
	b := make([]byte, disk.SuperblockSize)
	if err := m.read(b, disk.SuperblockOffset); err != nil {
		return err
	}
	m.super.Decode(b)
	if m.super.Magic != disk.SuperMagic {
		return fmt.Errorf("%w: magic %#x, want %#x", ErrNotImage, m.super.Magic, uint32(disk.SuperMagic))
	}
	return nil
}

func (m *Image) checkSize() error {
	s := &m.super
	if s.BlockBits < disk.MinBlockBits || s.BlockBits > disk.MaxBlockBits {
		return corrupt("block size 2^%d, it is 2^%d to 2^%d", s.BlockBits, disk.MinBlockBits, disk.MaxBlockBits)
	}
	if end := m.blockOffset(s.Blocks); end > m.size {
		return corrupt("%d blocks of %d bytes are more than the %d bytes that are there: truncated?", s.Blocks, m.BlockSize(), m.size)
	}
	slots := disk.SuperblockSlotSize * uint64(s.ExtSlots)
	return m.checkRange(disk.SuperblockOffset+disk.SuperblockSize, slots)
}

// Incompatible features that are refused. Chunks and xattr prefixes are known; zero padding tells how compressed data is
// packed and says nothing of an image that has none.
var refused = []struct {
	bit  uint32
	name string
}{
	{disk.IncompatComprConfigs, "compressed data"},
	{disk.IncompatDeviceTable, "a device table (data in other files)"},
	{disk.IncompatTailPacking, "compressed data in inodes (ztailpacking)"},
	{disk.IncompatFragments, "fragments or deduplicated compressed data"},
	{disk.Incompat48Bit, "48-bit block numbers"},
	{disk.IncompatMetabox, "compressed metadata (metabox)"},
}

const incompatKnown = disk.IncompatZeroPadding | disk.IncompatChunkedFile | disk.IncompatXattrPrefixes

func (m *Image) checkFeatures() error {
	bits := m.super.FeatureIncompat &^ incompatKnown
	var names []string
	for _, f := range refused {
		if bits&f.bit != 0 {
			names = append(names, f.name)
			bits &^= f.bit
		}
	}
	if bits != 0 {
		names = append(names, fmt.Sprintf("unknown incompatible features %#x", bits))
	}
	if m.super.DirBlockBits != 0 {
		names = append(names, "directory blocks of another size")
	}
	if names != nil {
		return &UnsupportedError{strings.Join(names, ", ")}
	}
	return nil
}

// The highest composefs version that there is.
const versionMax = 2

func (m *Image) readHeader() error {
	m.version, m.hasACL = -1, true
	b := make([]byte, disk.HeaderSize)
	if err := m.read(b, disk.HeaderOffset); err != nil {
		return err
	}
	var h disk.Header
	h.Decode(b)
	if h.Magic != disk.HeaderMagic {
		return nil
	}
	switch {
	case h.Version != disk.HeaderVersion:
		return &UnsupportedError{fmt.Sprintf("version %d of the composefs header", h.Version)}
	case h.ComposefsVersion > versionMax:
		return &UnsupportedError{fmt.Sprintf("version %d of the composefs format", h.ComposefsVersion)}
	case h.Flags&^disk.HeaderHasACL != 0:
		return &UnsupportedError{fmt.Sprintf("unknown flags %#x in the composefs header", h.Flags&^disk.HeaderHasACL)}
	}
	m.version, m.hasACL = int(h.ComposefsVersion), h.Flags&disk.HeaderHasACL != 0
	return m.checkComposefs()
}

// checkComposefs refuses what no composefs writer makes although EROFS has it.
func (m *Image) checkComposefs() error {
	s := &m.super
	switch {
	case m.BlockSize() != blockSize:
		return corrupt("composefs image with blocks of %d bytes, want %d", m.BlockSize(), blockSize)
	case s.FeatureIncompat&^disk.IncompatChunkedFile != 0:
		return corrupt("composefs image with incompatible features %#x", s.FeatureIncompat)
	case s.FeatureCompat&^(disk.CompatChecksum|disk.CompatMtime|disk.CompatXattrFilter) != 0:
		return corrupt("composefs image with compatible features %#x", s.FeatureCompat)
	case s.MetaBlock != 0, s.XattrPrefixCount != 0, s.ExtraDevices != 0, s.PackedNid != 0:
		return corrupt("composefs image with a separate metadata area, xattr prefixes, devices or a packed inode")
	}
	return nil
}

// checkChecksum checks the superblock's CRC-32C, if it has one. It covers the rest of the superblock's block or, where
// blocks are so small that the superblock has one of its own, that block; the checksum counts as zero. EROFS does not
// invert the result as others do.
func (m *Image) checkChecksum() error {
	if m.super.FeatureCompat&disk.CompatChecksum == 0 {
		return nil
	}
	n := m.BlockSize()
	if n > disk.SuperblockOffset {
		n -= disk.SuperblockOffset
	}
	b, err := m.bytes(disk.SuperblockOffset, uint64(n))
	if err != nil {
		return err
	}
	b = bytes.Clone(b)
	clear(b[4:8])
	// Not a variable of the package: few images have a checksum, and the tables take every program 0.1 ms to make.
	if got := ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)); got != m.super.Checksum {
		return corrupt("superblock checksum %#08x, want %#08x", got, m.super.Checksum)
	}
	return nil
}

func (m *Image) checkRoot() error {
	root, err := m.Inode(m.Root())
	if err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if !root.IsDir() {
		return corrupt("the root is not a directory")
	}
	return nil
}
