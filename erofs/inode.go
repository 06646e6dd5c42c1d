package erofs

import (
	"fmt"
	"math"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// Inode is an inode of an image.
type Inode struct {
	img    *Image
	nid    Nid
	ino    uint32
	layout disk.Layout
	attr   tree.Attr
	u      uint32 // i_u: first block, device number or chunk format
	xattrs uint64 // offset of the xattr area
	data   uint64 // offset of its end: there is the inline tail or the chunk map
}

// Inode reads an inode. Nothing tells whether there is one at nid; other bytes may pass for one.
func (m *Image) Inode(nid Nid) (*Inode, error) {
	i := new(Inode)
	if err := m.Load(nid, i); err != nil {
		return nil, err
	}
	return i, nil
}

// Load is Inode into memory that the caller has, whatever was in it. It doesn't allocate for an image in memory.
func (m *Image) Load(nid Nid, i *Inode) error {
	*i = Inode{img: m, nid: nid}
	if err := i.load(); err != nil {
		return fmt.Errorf("inode %d: %w", nid, err)
	}
	return nil
}

// Nid is the inode's number, which leads to it.
func (i *Inode) Nid() Nid { return i.nid }

// Ino is the inode's number as stat had it with 32 bits; composefs counts inodes by it.
func (i *Inode) Ino() uint32 { return i.ino }

// Attr has the attributes as they are on disk; of a directory the size is that of its dirents.
func (i *Inode) Attr() tree.Attr { return i.attr }

// IsDir tells whether the inode is a directory.
func (i *Inode) IsDir() bool { return i.attr.Mode&tree.TypeMask == tree.Directory }

func (i *Inode) isRegular() bool { return i.attr.Mode&tree.TypeMask == tree.Regular }

func (i *Inode) load() error {
	off, err := i.img.inodeOffset(i.nid)
	if err != nil {
		return err
	}
	if err := i.img.checkRange(off, disk.CompactInodeSize); err != nil {
		return err
	}
	b, err := i.img.bytes(off, min(disk.ExtendedInodeSize, i.img.size-off)) // an extended inode is most likely
	if err != nil {
		return err
	}
	var c disk.CompactInode
	c.Decode(b) // the fields in front are the same in both forms
	if c.Format&^disk.FormatKnown != 0 {
		return &UnsupportedError{fmt.Sprintf("inode format %#x", uint16(c.Format))}
	}
	head := uint64(disk.CompactInodeSize)
	if c.Format.Extended() {
		head = disk.ExtendedInodeSize
		if err := i.img.checkRange(off, head); err != nil {
			return err
		}
		i.setExtended(b)
	} else {
		i.setCompact(&c)
	}
	i.xattrs = off + head
	i.data = i.xattrs + uint64(disk.XattrAreaSize(c.XattrCount))
	i.layout = c.Format.Layout()
	return i.check()
}

func (i *Inode) setCompact(c *disk.CompactInode) {
	s := &i.img.super
	i.ino, i.u = c.Ino, c.U
	i.attr = tree.Attr{
		Mode: uint32(c.Mode), Nlink: uint32(c.Nlink), UID: uint32(c.UID), GID: uint32(c.GID), Size: uint64(c.Size),
		MtimeSec: int64(s.Epoch + uint64(c.MtimeDelta)), MtimeNsec: s.EpochNsec,
	}
}

func (i *Inode) setExtended(b []byte) {
	var e disk.ExtendedInode
	e.Decode(b)
	i.ino, i.u = e.Ino, e.U
	i.attr = tree.Attr{
		Mode: uint32(e.Mode), Nlink: e.Nlink, UID: e.UID, GID: e.GID, Size: e.Size,
		MtimeSec: int64(e.Mtime), MtimeNsec: e.MtimeNsec,
	}
}

func (i *Inode) check() error {
	switch {
	case i.layout.Compressed():
		return &UnsupportedError{"compressed data"}
	case i.layout > disk.ChunkBased:
		return &UnsupportedError{fmt.Sprintf("data layout %d", i.layout)}
	case disk.TypeOfMode(i.attr.Mode) == disk.TypeUnknown:
		return corrupt("mode %#o has no file type", i.attr.Mode)
	case i.attr.Size > math.MaxInt64:
		return corrupt("size %d", i.attr.Size)
	}
	if err := i.img.checkRange(i.xattrs, i.data-i.xattrs); err != nil {
		return fmt.Errorf("xattrs: %w", err)
	}
	if t := i.attr.Mode & tree.TypeMask; t == tree.CharDevice || t == tree.BlockDevice {
		i.attr.Rdev = i.u
	}
	return nil
}
