package erofs

import (
	"encoding/binary"
	"math"

	"github.com/flatroot/flatroot/tree"
)

const (
	headerMagic   = 0xd078629a // LCFS_EROFS_MAGIC
	headerVersion = 1          // LCFS_EROFS_VERSION
	headerFlagACL = 1          // LCFS_EROFS_FLAGS_HAS_ACL

	superMagic       = 0xE0F5E1E2 // EROFS_SUPER_MAGIC_V1
	superOffset      = 1024       // EROFS_SUPER_OFFSET
	compatMtime      = 2          // EROFS_FEATURE_COMPAT_MTIME
	compatFilter     = 4          // EROFS_FEATURE_COMPAT_XATTR_FILTER
	blockBits        = 12
	layoutPlain      = 0 // EROFS_INODE_FLAT_PLAIN
	layoutInline     = 2 // EROFS_INODE_FLAT_INLINE
	layoutChunk      = 4 // EROFS_INODE_CHUNK_BASED
	inodeExtendedBit = 1
	noBlock          = math.MaxUint32 // EROFS_NULL_ADDR: the content is elsewhere
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

func (e *emitter) writeHead() {
	le := binary.LittleEndian
	var b [firstInode]byte
	le.PutUint32(b[0:], headerMagic)
	le.PutUint32(b[4:], headerVersion)
	if e.acl {
		le.PutUint32(b[8:], headerFlagACL)
	}
	le.PutUint32(b[12:], uint32(e.version))

	s := b[superOffset:]
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], compatMtime|compatFilter)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(e.nid[tree.Root])) // the first inode: at most a block from the start
	le.PutUint64(s[16:], uint64(len(e.order)))
	le.PutUint64(s[24:], uint64(e.minSec))
	le.PutUint32(s[32:], e.minNsec)
	le.PutUint32(s[36:], uint32(e.dataStart/blockSize+e.blocks))
	le.PutUint32(s[44:], uint32(e.metaEnd/blockSize)) // xattr_blkaddr
	e.out.write(b[:])
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
		return u&^math.MaxUint16 | uint32(chunkBits(n.attr.Size)-blockBits)
	}
	return u
}

func (e *emitter) appendInode(b []byte, n *inode, number, u uint32) []byte {
	le := binary.LittleEndian
	a := &n.attr
	format := uint16(layoutPlain)
	switch {
	case n.backed:
		format = layoutChunk << 1
	case n.tail > 0:
		format = layoutInline << 1
	}
	size := a.Size
	switch a.Mode & tree.TypeMask {
	case tree.Directory, tree.Symlink, tree.Regular:
	default:
		size = 0
	}
	if !n.compact {
		format |= inodeExtendedBit
	}
	b = le.AppendUint16(b, format)
	b = le.AppendUint16(b, xattrCount(n.xattrSize))
	b = le.AppendUint16(b, uint16(a.Mode))
	if n.compact {
		b = le.AppendUint16(b, uint16(a.Nlink))
		b = le.AppendUint32(b, uint32(size))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, u)
		b = le.AppendUint32(b, number)
		b = le.AppendUint16(b, uint16(a.UID))
		b = le.AppendUint16(b, uint16(a.GID))
		return le.AppendUint32(b, 0)
	}
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, size)
	b = le.AppendUint32(b, u)
	b = le.AppendUint32(b, number)
	b = le.AppendUint32(b, a.UID)
	b = le.AppendUint32(b, a.GID)
	b = le.AppendUint64(b, uint64(a.MtimeSec))
	b = le.AppendUint32(b, a.MtimeNsec)
	b = le.AppendUint32(b, a.Nlink)
	return append(b, zeros[:16]...)
}

// xattrCount is i_xattr_icount: the header counts as one, the rest in words.
func xattrCount(size int64) uint16 {
	if size == 0 {
		return 0
	}
	return uint16((size-xattrHeaderSize)/4 + 1)
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
		for range n.tail / chunkSize {
			b = binary.LittleEndian.AppendUint32(b, noBlock)
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
		for range blockSize / chunkSize { // a chunk array that moved out fills its block
			e.out.write([]byte{0xff, 0xff, 0xff, 0xff})
		}
	}
	e.out.padTo(end)
}

// blockLen is the number of entries that a directory block takes.
func blockLen(entries []dirent) int {
	size := 0
	for i, e := range entries {
		if size += direntSize + len(e.name); size > blockSize {
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
	le := binary.LittleEndian
	name := direntSize * len(entries)
	for _, d := range entries {
		b = le.AppendUint64(b, uint64(e.nid[d.target]))
		b = le.AppendUint16(b, uint16(name))
		b = append(b, e.fileType(d.target), 0)
		name += len(d.name)
	}
	for _, d := range entries {
		b = append(b, d.name...)
	}
	return b
}

// fileType is a dirent's type (EROFS_FT_*).
func (e *emitter) fileType(h handle) byte {
	switch e.attr(h).Mode & tree.TypeMask {
	case tree.Regular:
		return 1
	case tree.Directory:
		return 2
	case tree.CharDevice:
		return 3
	case tree.BlockDevice:
		return 4
	case tree.FIFO:
		return 5
	case tree.Socket:
		return 6
	case tree.Symlink:
		return 7
	}
	return 0
}
