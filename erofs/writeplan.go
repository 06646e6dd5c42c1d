package erofs

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

const (
	blockBits = 12 // composefs fixes it
	blockSize = 1 << blockBits
	slotSize  = 1 << disk.SlotBits

	chunkBitsMin = blockBits                           // a chunk is at least a block
	chunkBitsMax = blockBits + int(disk.ChunkBitsMask) // as large as the format can say
	chunksMax    = 1024                                // of a file; C refuses more

	firstInode = disk.SuperblockOffset + disk.SuperblockSize

	generated = 256 // whiteouts 00 to ff that every root gets
)

// handle is a node of the tree or, from plan.first on, the n-th generated whiteout of the root.
type handle = uint32

// plan is the layout of an image: the order of its inodes and where each begins. It is made in one walk over the tree, and
// its second use, emit, computes each inode's place again rather than keep it.
type plan struct {
	t       *tree.Tree
	version int
	first   handle   // of the generated whiteouts
	order   []handle // all inodes, breadth first
	nid     []uint32 // by handle
	dirs    []dirPlan
	xattrs  *xattrPlan
	marked  map[handle]bool // directories that hold whiteouts of the input

	rootEntries []dirent

	minSec  int64
	minNsec uint32
	acl     bool // an inode has a POSIX ACL

	metaEnd   int64 // end of the inodes
	dataStart int64
	blocks    int64 // data blocks
}

// dirPlan is what a directory's entries come to, in the order of the directories.
type dirPlan struct {
	blocks, tail uint32
	subdirs      uint32
}

func newPlan(t *tree.Tree, f Format) (*plan, error) {
	p := &plan{
		t: t, first: handle(t.Len()), rootEntries: rootEntries(t), marked: map[handle]bool{}, minSec: math.MaxInt64,
	}
	if f == Format1 {
		p.version = 1
	}
	if err := p.walk(); err != nil {
		return nil, err
	}
	if f == FormatAuto && len(p.marked) > 0 {
		p.version = 1
	}
	p.xattrs = newXattrPlan(p)
	return p, p.layout()
}

// walk brings the inodes into their order: breadth first, the children of a directory in byte order of their names.
func (p *plan) walk() error {
	p.order = append(make([]handle, 0, p.t.Len()+generated), handle(tree.Root))
	p.nid = make([]uint32, p.t.Len()+generated)
	placed := make([]bool, p.t.Len())
	var linked []tree.Node
	var entries []dirent
	for i := 0; i < len(p.order); i++ {
		h := p.order[i]
		p.noteTime(h)
		if !p.isDir(h) {
			continue
		}
		entries = p.entries(entries[:0], h)
		p.dirs = append(p.dirs, p.planDir(entries))
		for _, e := range entries {
			switch {
			case e.link:
				linked = append(linked, tree.Node(e.target))
			case e.self:
			default:
				p.order = append(p.order, e.target)
				p.noteChild(h, e.target, placed)
			}
		}
	}
	for _, n := range linked {
		if n != tree.Root && !placed[n] {
			return fmt.Errorf("%w: a hard link leads to a file that has no place in the tree", ErrUnwritable)
		}
	}
	return nil
}

func (p *plan) noteChild(dir, child handle, placed []bool) {
	if child >= p.first {
		return
	}
	placed[child] = true
	if isWhiteout(p.t, tree.Node(child)) {
		p.marked[dir] = true
	}
}

func (p *plan) noteTime(h handle) {
	a := p.attr(h)
	if a.MtimeSec < p.minSec || a.MtimeSec == p.minSec && a.MtimeNsec < p.minNsec {
		p.minSec, p.minNsec = a.MtimeSec, a.MtimeNsec
	}
}

// isWhiteout tells whether a node of the input is an overlayfs whiteout, which an image must hold in escaped form.
func isWhiteout(t *tree.Tree, n tree.Node) bool {
	return t.Mode(n)&tree.TypeMask == tree.CharDevice && t.Attr(n).Rdev == 0
}

func (p *plan) isDir(h handle) bool { return h < p.first && p.t.IsDir(tree.Node(h)) }

// attr is what an inode of the image has: a whiteout of the input has become an empty file.
func (p *plan) attr(h handle) tree.Attr {
	if h >= p.first {
		root := p.t.Attr(tree.Root)
		return tree.Attr{
			Mode: tree.CharDevice | 0o644, Nlink: 1, UID: root.UID, GID: root.GID,
			MtimeSec: root.MtimeSec, MtimeNsec: root.MtimeNsec,
		}
	}
	a := p.t.Attr(tree.Node(h))
	if a.Mode&tree.TypeMask == tree.CharDevice && a.Rdev == 0 {
		a.Mode = a.Mode&^tree.TypeMask | tree.Regular
		a.Size = 0
	}
	return a
}

// mode is attr's alone.
func (p *plan) mode(h handle) uint32 {
	if h >= p.first || isWhiteout(p.t, tree.Node(h)) {
		return p.attr(h).Mode
	}
	return p.t.Mode(tree.Node(h))
}

// dirent is an entry as the image has it.
type dirent struct {
	name   []byte
	target handle
	link   bool // the target's home is elsewhere
	self   bool // . or ..
}

var dot, dotDot = []byte("."), []byte("..")

// entries appends all entries of a directory, . and .. and the generated whiteouts among them, in byte order.
func (p *plan) entries(list []dirent, h handle) []dirent {
	n := tree.Node(h)
	own := [2]dirent{
		{name: dot, target: h, self: true},
		{name: dotDot, target: handle(p.t.Parent(n)), self: true},
	}
	more := own[:]
	if n == tree.Root {
		more = p.rootEntries
	}
	for e := range p.t.Entries(n) {
		for len(more) > 0 && bytes.Compare(more[0].name, e.Name) < 0 {
			list = append(list, more[0])
			more = more[1:]
		}
		list = append(list, dirent{name: e.Name, target: handle(e.Node), link: e.Link})
	}
	return append(list, more...)
}

// rootEntries lists what the root has besides the tree's entries, in byte order: . and .. and the generated whiteouts, but
// for those whose name the tree has.
func rootEntries(t *tree.Tree) []dirent {
	root := handle(tree.Root)
	list := []dirent{{name: dot, target: root, self: true}, {name: dotDot, target: root, self: true}}
	for i := range generated {
		name := fmt.Appendf(nil, "%02x", i)
		if _, ok := t.Lookup(tree.Root, name); !ok {
			list = append(list, dirent{name: name, target: handle(t.Len() + i)})
		}
	}
	return list
}

// planDir cuts a directory into blocks: an entry that would cross a block's end begins the next, and what is left at the
// end is a block of its own if it is more than half of one, else the tail, which is stored behind the inode.
func (p *plan) planDir(entries []dirent) dirPlan {
	var d dirPlan
	for _, e := range entries {
		size := uint32(disk.DirentSize + len(e.name))
		if d.tail+size > blockSize {
			d.blocks++
			d.tail = 0
		}
		d.tail += size
		if !e.self && !e.link && p.isDir(e.target) {
			d.subdirs++
		}
	}
	if d.tail > blockSize/2 {
		d.blocks++
		d.tail = 0
	}
	return d
}

// inode is an inode with its place.
type inode struct {
	attr      tree.Attr
	xattrSize int64
	compact   bool
	backed    bool  // content is an object: chunk layout
	tail      int64 // bytes that follow the xattrs
	blocks    int64 // data blocks
	pos       int64
	end       int64
	dir       *dirPlan
}

func (p *plan) layout() error {
	pos, dir := int64(firstInode), 0
	for _, h := range p.order {
		n, err := p.inode(h, &dir)
		if err != nil {
			return err
		}
		n.place(pos)
		if n.pos/slotSize > math.MaxUint32 {
			return fmt.Errorf("%w: more than %d slots of inodes", ErrUnwritable, uint32(math.MaxUint32))
		}
		p.nid[h] = uint32(n.pos / slotSize)
		p.blocks += n.blocks
		pos = n.end
	}
	p.metaEnd = roundUp(pos, slotSize)
	p.dataStart = roundUp(p.metaEnd+p.xattrs.tableSize, blockSize)
	if p.dataStart/blockSize+p.blocks > math.MaxUint32 {
		return fmt.Errorf("%w: more than %d blocks", ErrUnwritable, uint32(math.MaxUint32))
	}
	return nil
}

// inode sizes an inode up. dir counts the directories met.
func (p *plan) inode(h handle, dir *int) (inode, error) {
	n := inode{attr: p.attr(h), xattrSize: p.xattrs.areaSize(h)}
	switch n.attr.Mode & tree.TypeMask {
	case tree.Directory:
		n.dir = &p.dirs[*dir]
		*dir++
		n.attr.Nlink = 2 + n.dir.subdirs
		n.blocks, n.tail = int64(n.dir.blocks), int64(n.dir.tail)
		n.attr.Size = uint64(n.blocks*blockSize + n.tail)
	case tree.Symlink:
		n.tail = int64(len(p.t.Target(tree.Node(h))))
		n.attr.Size = uint64(n.tail)
	case tree.Regular:
		if err := p.sizeFile(&n, h); err != nil {
			return n, err
		}
	}
	a := &n.attr
	n.compact = a.MtimeSec == p.minSec && a.MtimeNsec == p.minNsec &&
		a.Nlink <= math.MaxUint16 && a.UID <= math.MaxUint16 && a.GID <= math.MaxUint16 && a.Size <= math.MaxUint32
	return n, nil
}

func (p *plan) sizeFile(n *inode, h handle) error {
	size := n.attr.Size
	if size == 0 {
		return nil
	}
	if content := p.t.Content(tree.Node(h)); content != nil {
		if uint64(len(content)) != size {
			return fmt.Errorf("%w: %s has %d bytes of inline content but a size of %d",
				ErrUnwritable, p.t.Path(tree.Node(h)), len(content), size)
		}
		n.blocks, n.tail = int64(size/blockSize), int64(size%blockSize)
		if n.tail > blockSize/2 {
			n.blocks++
			n.tail = 0
		}
		return nil
	}
	n.backed = true
	chunks := (size-1)>>chunkBits(size) + 1
	if chunks > chunksMax {
		return fmt.Errorf("%w: %s: a file of %d bytes is too large, 8 PiB are possible",
			ErrUnwritable, p.t.Path(tree.Node(h)), size)
	}
	n.tail = int64(disk.BlockMapEntrySize * chunks)
	return nil
}

// chunkBits is the binary logarithm of a backed file's chunk size: one chunk if that can be.
func chunkBits(size uint64) int {
	return min(max(bits.Len64(size-1), chunkBitsMin), chunkBitsMax)
}

// place finds the inode's place at or after pos. Its tail must not cross the border of a block: a symlink moves to the next
// block as a whole, any other inode just so far that the tail begins there. What fits nowhere becomes a data block.
func (n *inode) place(pos int64) {
	pos = roundUp(pos, slotSize)
	head := n.headSize() + n.xattrSize
	switch {
	case n.attr.Mode&tree.TypeMask == tree.Symlink:
		// The padding is that of the whole symlink even where its target moves out.
		total := head + n.tail
		last := (pos + total - 1) / blockSize
		if total >= blockSize {
			n.blocks, n.tail = 1, 0
		}
		if pos/blockSize != last {
			pos = roundUp(pos, blockSize)
		}
	default:
		if room := blockSize - (pos+head)%blockSize; room < n.tail {
			pad := roundUp(room, slotSize)
			if n.tail <= blockSize-(pos+head+pad)%blockSize {
				pos += pad
			} else {
				n.blocks++
				n.tail = 0
				pos = roundUp(pos, blockSize)
			}
		}
	}
	n.pos, n.end = pos, pos+head+n.tail
}

func (n *inode) headSize() int64 {
	if n.compact {
		return disk.CompactInodeSize
	}
	return disk.ExtendedInodeSize
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
