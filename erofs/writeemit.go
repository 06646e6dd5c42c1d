package erofs

import (
	"bytes"
	"encoding/binary"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// emitter writes a plan. It walks the inodes as layout did and comes to the same places.
type emitter struct {
	*plan
	out     *output
	buf     []byte
	entries []dirent
	block   int64   // number of the next data block
	outside []moved // inodes with data blocks, in the order of these
}

// moved is an inode that has data blocks, and how many.
type moved struct {
	h      handle
	blocks int64
}

func (p *plan) emit(out *output) error {
	e := &emitter{plan: p, out: out, block: p.dataStart / blockSize}
	e.writeHead()
	dir := 0
	for number, h := range p.order {
		n, err := p.inode(h, &dir)
		if err != nil {
			return err
		}
		n.place(out.pos)
		out.padTo(n.pos)
		e.writeInode(h, &n, uint32(number))
	}
	out.padTo(p.metaEnd)
	for _, i := range p.xattrs.table {
		e.buf = p.xattrs.appendEntry(e.buf[:0], i)
		out.write(e.buf)
	}
	out.padTo(p.dataStart)
	for _, m := range e.outside {
		e.writeBlocks(m)
	}
	return out.flush()
}

// writeHead writes all that comes before the inodes.
func (e *emitter) writeHead() {
	head := disk.Header{Magic: disk.HeaderMagic, Version: disk.HeaderVersion, ComposefsVersion: uint32(e.version)}
	if e.acl {
		head.Flags = disk.HeaderHasACL
	}
	// C leaves out the checksum, the UUID and the feature bit of chunk-based files.
	super := disk.Superblock{
		Magic:         disk.SuperMagic,
		FeatureCompat: disk.CompatMtime | disk.CompatXattrFilter,
		BlockBits:     blockBits,
		RootNid:       uint16(e.nid[tree.Root]), // the first inode: at most a block from the start
		Inodes:        uint64(len(e.order)),
		Epoch:         uint64(e.minSec),
		EpochNsec:     e.minNsec,
		Blocks:        uint32(e.dataStart/blockSize + e.blocks),
		XattrBlock:    uint32(e.metaEnd / blockSize),
	}
	e.out.write(head.AppendTo(nil))
	e.out.padTo(disk.SuperblockOffset)
	e.out.write(super.AppendTo(nil))
}

func (e *emitter) writeInode(h handle, n *inode, number uint32) {
	e.buf = e.appendInode(e.buf[:0], n, number, e.union(n))
	e.buf = e.xattrs.appendArea(e.buf, h, e.metaEnd)
	e.buf = e.appendTail(e.buf, h, n)
	e.out.write(e.buf)
	if n.blocks > 0 {
		e.block += n.blocks
		e.outside = append(e.outside, moved{h, n.blocks})
	}
}

// union is the inode's i_u: device number, first block, chunk format.
func (e *emitter) union(n *inode) uint32 {
	var u uint32
	if n.blocks > 0 {
		u = uint32(e.block)
	}
	switch typ := n.attr.Mode & tree.TypeMask; {
	case typ == tree.CharDevice || typ == tree.BlockDevice:
		return n.attr.Rdev
	case n.backed:
		// The kernel looks at the low half only. C leaves the block number of an array that moved out in the high one.
		return u&^disk.ChunkFormatMask | uint32(chunkBits(n.attr.Size)-blockBits)
	}
	return u
}

func (e *emitter) appendInode(b []byte, n *inode, number, u uint32) []byte {
	a := &n.attr
	layout := disk.FlatPlain
	switch {
	case n.backed:
		layout = disk.ChunkBased
	case n.tail > 0:
		layout = disk.FlatInline
	}
	size := a.Size
	switch a.Mode & tree.TypeMask {
	case tree.Directory, tree.Symlink, tree.Regular:
	default:
		size = 0
	}
	format, count := disk.MakeFormat(layout, !n.compact), disk.XattrCount(int(n.xattrSize))
	if n.compact {
		return (&disk.CompactInode{
			Format: format, XattrCount: count, Mode: uint16(a.Mode), Nlink: uint16(a.Nlink), Size: uint32(size),
			U: u, Ino: number, UID: uint16(a.UID), GID: uint16(a.GID),
		}).AppendTo(b)
	}
	return (&disk.ExtendedInode{
		Format: format, XattrCount: count, Mode: uint16(a.Mode), Size: size, U: u, Ino: number, UID: a.UID, GID: a.GID,
		Mtime: uint64(a.MtimeSec), MtimeNsec: a.MtimeNsec, Nlink: a.Nlink,
	}).AppendTo(b)
}

func (e *emitter) appendTail(b []byte, h handle, n *inode) []byte {
	if n.tail == 0 {
		return b
	}
	switch node := tree.Node(h); {
	case n.dir != nil:
		e.entries = e.plan.entries(e.entries[:0], h)
		return e.appendDirents(b, lastBlock(e.entries))
	case n.backed:
		for range n.tail / disk.BlockMapEntrySize {
			b = binary.LittleEndian.AppendUint32(b, disk.NullBlock)
		}
		return b
	case n.attr.Mode&tree.TypeMask == tree.Symlink:
		return append(b, e.t.Target(node)...)
	default:
		content := e.t.Content(node)
		return append(b, content[int64(len(content))-n.tail:]...)
	}
}

// writeBlocks writes an inode's data blocks, the last one filled up with zeros.
func (e *emitter) writeBlocks(m moved) {
	end := e.out.pos + m.blocks*blockSize
	node := tree.Node(m.h)
	switch e.t.Mode(node) & tree.TypeMask {
	case tree.Directory:
		e.entries = e.plan.entries(e.entries[:0], m.h)
		rest := e.entries
		for range m.blocks {
			n := blockLen(rest)
			e.buf = e.appendDirents(e.buf[:0], rest[:n])
			e.out.write(e.buf)
			e.out.padTo(roundUp(e.out.pos, blockSize))
			rest = rest[n:]
		}
	case tree.Symlink:
		e.out.write(e.t.Target(node))
	default:
		if content := e.t.Content(node); content != nil {
			e.out.write(content[:min(int64(len(content)), m.blocks*blockSize)])
			break
		}
		// A chunk array that moved out fills its block with holes (disk.NullBlock), whatever its length.
		e.out.write(bytes.Repeat([]byte{0xff}, blockSize))
	}
	e.out.padTo(end)
}

// blockLen is the number of entries that a directory block takes.
func blockLen(entries []dirent) int {
	size := 0
	for i, e := range entries {
		if size += disk.DirentSize + len(e.name); size > blockSize {
			return i
		}
	}
	return len(entries)
}

// lastBlock cuts all full blocks off.
func lastBlock(entries []dirent) []dirent {
	for {
		n := blockLen(entries)
		if n == len(entries) {
			return entries
		}
		entries = entries[n:]
	}
}

// appendDirents appends a directory block: the heads, then the names.
func (e *emitter) appendDirents(b []byte, entries []dirent) []byte {
	name := disk.DirentSize * len(entries)
	for _, d := range entries {
		b = (&disk.Dirent{
			Nid: uint64(e.nid[d.target]), NameOffset: uint16(name), Type: disk.TypeOfMode(e.mode(d.target)),
		}).AppendTo(b)
		name += len(d.name)
	}
	for _, d := range entries {
		b = append(b, d.name...)
	}
	return b
}
