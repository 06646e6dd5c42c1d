// Package tree is the file tree between a source (layers, a directory, a dump) and an image: names, attributes, extended
// attributes, and for each file its inline content or the fs-verity digest of its object.
//
// A tree is an arena. A Node is the handle of an inode; a directory's entries are names that lead to nodes. Nodes, names,
// digests and extended attributes lie in blocks without pointers, so that a tree of a million files costs the garbage
// collector nothing and grows without being copied. Equal digests, values and sets of extended attributes are stored once.
//
// Of a node's several names one is its home: the one under which it was added. The others are hard links. An image's
// order, and so its digest, depends on which name is home: a dump says it, elsewhere Canonicalize decides.
//
// What is removed is unlinked, not freed. A Tree must not be used by several goroutines at once, not even for reading:
// iteration sorts a directory when it must. Once all directories have been iterated over, as Canonicalize does, and nothing
// changes any more, it may be read by several.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"slices"

	"github.com/flatroot/flatroot/fsverity"
)

// Node is the handle of an inode of one tree.
type Node uint32

const (
	// Root is the root directory of every tree.
	Root Node = 0
	// None is no node.
	None Node = math.MaxUint32
)

// File types and the mask for them, as st_mode has them (inode(7)).
const (
	TypeMask    = 0o170000
	Socket      = 0o140000
	Symlink     = 0o120000
	Regular     = 0o100000
	BlockDevice = 0o060000
	Directory   = 0o040000
	CharDevice  = 0o020000
	FIFO        = 0o010000
)

const (
	// NameMax is the length of the longest name in bytes (NAME_MAX).
	NameMax = 255
	// ContentMax is the length in bytes of the longest inline content that the composefs dump format allows.
	ContentMax = 5000
	// TargetMax is the length in bytes of the longest symlink target and object path (PATH_MAX - 1).
	TargetMax = 4095
)

// Errors of building a tree.
var (
	ErrExist  = errors.New("name exists")
	ErrNotDir = errors.New("not a directory")
	ErrName   = errors.New("bad name")
	ErrType   = errors.New("wrong file type")
	ErrValue  = errors.New("bad value")
)

// Attr has an inode's attributes.
type Attr struct {
	Mode      uint32 // type and permission bits, as st_mode
	Nlink     uint32 // what an image says of a file; writers count a directory's themselves
	UID, GID  uint32
	Rdev      uint32 // devices: minor&0xff | major<<8 | (minor&^0xff)<<12, as inodes have it on disk
	Size      uint64 // bytes; regular files only
	MtimeSec  int64
	MtimeNsec uint32
}

// Entry is a name in a directory.
type Entry struct {
	Name []byte // valid as long as the tree; not to be changed
	Node Node
	Link bool // a hard link: the node's home is another name
}

const (
	flagUnsorted = 1 << iota // directory: the list of entries is not in byte order
	flagRemoved              // directory: the list has removed entries
	flagContent              // regular file: a, len are the content
	flagPath                 // regular file: a is the number of the digest that names the object's path
	flagPayload              // regular file: a is the number of the object's path
)

// node is an inode. What a and b are depends on the type: a directory's first and last entry (number + 1), a device's
// rdev, a symlink's target, a regular file's content or object path (see the flags).
type node struct {
	size           uint64
	mtime          int64
	nsec           uint32
	nlink          uint32
	uid, gid       uint32
	a, b           uint32
	digest, xattrs uint32 // number + 1; 0 none
	home           uint32 // entry
	mode           uint16
	len            uint16
	flags          uint8
}

// entry is a name. A removed one has node None until its directory's list is next looked at.
type entry struct {
	addr   uint32
	node   Node
	parent Node
	next   uint32 // number + 1; 0 last
	len    uint8
}

const noEntry = math.MaxUint32

// Tree is a file tree. New makes one.
type Tree struct {
	alg      fsverity.Algorithm
	nodes    blocks[node]
	entries  blocks[entry]
	names    textArena
	data     textArena // contents and targets
	index    index     // of entries by parent and name
	seed     maphash.Seed
	digests  interner
	payloads interner
	pairs    interner // length of the name (1 byte), name, value
	sets     interner // pair numbers in the order of their names, 4 bytes each
}

// New returns a tree of just a root directory, whose files' digests are of algorithm a.
func New(a fsverity.Algorithm, root Attr) *Tree {
	t := &Tree{
		alg:     a,
		nodes:   blocks[node]{bits: nodeBits},
		entries: blocks[entry]{bits: entryBits},
		seed:    maphash.MakeSeed(),
		digests: newInterner(), payloads: newInterner(), pairs: newInterner(), sets: newInterner(),
	}
	root.Mode = root.Mode&^TypeMask | Directory
	n, err := t.addNode(root)
	if err != nil || n != Root {
		panic("tree: the first node is not the root") // cannot happen: the arena is empty
	}
	return t
}

// Algorithm is that of the files' digests.
func (t *Tree) Algorithm() fsverity.Algorithm { return t.alg }

// SetAlgorithm says what the files' digests are of. That can change until the tree has the first digest or object path
// that is a digest's.
func (t *Tree) SetAlgorithm(a fsverity.Algorithm) error {
	if a == t.alg {
		return nil
	}
	if t.digests.len() > 0 {
		return fmt.Errorf("%w: the tree has %s digests, not %s", ErrValue, t.alg, a)
	}
	for i := range t.payloads.items.n {
		if d, err := fsverity.ParseObjectPath(t.payloads.get(i)); err == nil {
			return fmt.Errorf("%w: the tree has paths of %s objects", ErrValue, d.Algorithm())
		}
	}
	t.alg = a
	return nil
}

// Len is the number of nodes ever added, removed ones included. All nodes are below Node(Len()).
func (t *Tree) Len() int { return int(t.nodes.n) }

func (t *Tree) node(n Node) *node { return t.nodes.at(uint32(n)) }

func (t *Tree) addNode(a Attr) (Node, error) {
	i, err := t.nodes.add(node{home: noEntry})
	if err != nil {
		return None, err
	}
	t.node(Node(i)).setAttr(a)
	return Node(i), nil
}

func (n *node) setAttr(a Attr) {
	n.mode = uint16(a.Mode)
	n.nlink, n.uid, n.gid = a.Nlink, a.UID, a.GID
	n.size, n.mtime, n.nsec = a.Size, a.MtimeSec, a.MtimeNsec
	if n.isDevice() {
		n.a = a.Rdev
	}
}

func (n *node) fileType() uint16 { return n.mode & TypeMask }

func (n *node) isDevice() bool {
	return n.fileType() == CharDevice || n.fileType() == BlockDevice
}

// Add makes a new node named name in directory dir. Only the low 16 bits of a.Mode are kept.
func (t *Tree) Add(dir Node, name []byte, a Attr) (Node, error) {
	if err := t.checkNew(dir, name); err != nil {
		return None, err
	}
	n, err := t.addNode(a)
	if err != nil {
		return None, err
	}
	e, err := t.addEntry(dir, name, n)
	if err != nil {
		return None, err
	}
	t.node(n).home = e
	return n, nil
}

// Link gives target, which must be no directory, one more name.
func (t *Tree) Link(dir Node, name []byte, target Node) error {
	if err := t.checkNew(dir, name); err != nil {
		return err
	}
	if t.IsDir(target) {
		return fmt.Errorf("%w: hard link to a directory", ErrType)
	}
	_, err := t.addEntry(dir, name, target)
	return err
}

func (t *Tree) checkNew(dir Node, name []byte) error {
	if !t.IsDir(dir) {
		return ErrNotDir
	}
	if err := CheckName(name); err != nil {
		return err
	}
	if _, ok := t.lookup(dir, name); ok {
		return ErrExist
	}
	return nil
}

// CheckName tells whether a directory can have an entry of this name.
func CheckName(name []byte) error {
	switch {
	case len(name) == 0:
		return fmt.Errorf("%w: empty", ErrName)
	case len(name) > NameMax:
		return fmt.Errorf("%w: %d bytes, at most %d are possible", ErrName, len(name), NameMax)
	case string(name) == "." || string(name) == "..":
		return fmt.Errorf("%w: %q", ErrName, name)
	case bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: %q has a slash or a NUL byte", ErrName, name)
	}
	return nil
}

func (t *Tree) hash(dir Node, name []byte) uint32 {
	h := maphash.Bytes(t.seed, name) ^ uint64(dir)*0x9e3779b97f4a7c15 // any odd constant spreads the directory's number
	return uint32(h ^ h>>32)
}

func (t *Tree) addEntry(dir Node, name []byte, n Node) (uint32, error) {
	s, err := t.names.put(name)
	if err != nil {
		return 0, err
	}
	i, err := t.entries.add(entry{addr: s.addr, len: uint8(s.len), node: n, parent: dir})
	if err != nil {
		return 0, err
	}
	d := t.node(dir)
	if d.b == 0 {
		d.a = i + 1
	} else {
		last := t.entries.at(d.b - 1)
		last.next = i + 1
		if bytes.Compare(t.name(last), name) >= 0 {
			d.flags |= flagUnsorted
		}
	}
	d.b = i + 1
	t.index.insert(t.hash(dir, name), i)
	return i, nil
}

func (t *Tree) name(e *entry) []byte { return t.names.get(text{e.addr, uint32(e.len)}) }

func (t *Tree) lookup(dir Node, name []byte) (uint32, bool) {
	return t.index.find(t.hash(dir, name), func(i uint32) bool {
		e := t.entries.at(i)
		return e.parent == dir && bytes.Equal(t.name(e), name)
	})
}

// Lookup finds the node that name leads to in directory dir.
func (t *Tree) Lookup(dir Node, name []byte) (Node, bool) {
	i, ok := t.lookup(dir, name)
	if !ok {
		return None, false
	}
	return t.entries.at(i).node, true
}

// Remove takes a name away and, if it leads to a directory, all that is below it. It tells whether there was one.
// If it was the home of a node that has other names, Canonicalize must be called before the tree is written.
func (t *Tree) Remove(dir Node, name []byte) bool {
	i, ok := t.lookup(dir, name)
	if ok {
		t.unlink(i)
		t.node(dir).flags |= flagRemoved
	}
	return ok
}

// unlink takes an entry out of the index and marks it; its directory's list drops it when it is next looked at, so that
// removing all of a large directory one by one is not quadratic.
func (t *Tree) unlink(i uint32) {
	e := t.entries.at(i)
	t.index.remove(t.hash(e.parent, t.name(e)), i)
	e.node = None
}

// RemoveChildren empties a directory.
func (t *Tree) RemoveChildren(dir Node) {
	d := t.node(dir)
	if d.fileType() != Directory {
		return
	}
	for i := d.a; i != 0; {
		e := t.entries.at(i - 1)
		if e.node != None {
			t.unlink(i - 1)
		}
		i = e.next
	}
	d.a, d.b = 0, 0
	d.flags &^= flagUnsorted | flagRemoved
}

// tidy brings a directory's list into byte order, without removed entries.
func (t *Tree) tidy(d *node) {
	if d.flags&(flagUnsorted|flagRemoved) == 0 {
		return
	}
	var list []uint32
	for i := d.a; i != 0; i = t.entries.at(i - 1).next {
		if t.entries.at(i-1).node != None {
			list = append(list, i)
		}
	}
	if d.flags&flagUnsorted != 0 {
		slices.SortFunc(list, func(x, y uint32) int {
			return bytes.Compare(t.name(t.entries.at(x-1)), t.name(t.entries.at(y-1)))
		})
	}
	d.a, d.b = 0, 0
	for _, i := range list {
		if d.b == 0 {
			d.a = i
		} else {
			t.entries.at(d.b - 1).next = i
		}
		d.b = i
		t.entries.at(i - 1).next = 0
	}
	d.flags &^= flagUnsorted | flagRemoved
}

// Entries yields a directory's entries in byte order. The directory must not be changed meanwhile.
func (t *Tree) Entries(dir Node) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		d := t.node(dir)
		if d.fileType() != Directory {
			return
		}
		t.tidy(d)
		for i := d.a; i != 0; {
			e := t.entries.at(i - 1)
			if !yield(Entry{t.name(e), e.node, t.node(e.node).home != i-1}) {
				return
			}
			i = e.next
		}
	}
}

// Children yields a directory's names and the nodes they lead to, in byte order.
func (t *Tree) Children(dir Node) iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		for e := range t.Entries(dir) {
			if !yield(string(e.Name), e.Node) {
				return
			}
		}
	}
}

// Parent is the directory of a node's home, and the root's is the root. A node that has no home is in None.
func (t *Tree) Parent(n Node) Node {
	h := t.node(n).home
	switch {
	case n == Root:
		return Root
	case h == noEntry:
		return None
	}
	return t.entries.at(h).parent
}

// Path is a node's home as an absolute path.
func (t *Tree) Path(n Node) string {
	var parts [][]byte
	for n != Root && n != None {
		h := t.node(n).home
		if h == noEntry {
			break
		}
		e := t.entries.at(h)
		parts = append(parts, t.name(e))
		n = e.parent
	}
	slices.Reverse(parts)
	return "/" + string(bytes.Join(parts, []byte{'/'}))
}

// Canonicalize makes the homes canonical, as Rehome does, and counts every node's links: a directory has 2 and one for each
// directory in it.
func (t *Tree) Canonicalize() {
	t.Rehome()
	for i := range t.nodes.n {
		t.nodes.at(i).nlink = 0
	}
	t.node(Root).nlink = 2
	t.countLinks(Root)
}

func (t *Tree) countLinks(dir Node) {
	d := t.node(dir)
	for i := d.a; i != 0; {
		e := t.entries.at(i - 1)
		n := t.node(e.node)
		if n.fileType() == Directory {
			n.nlink = 2
			d.nlink++
			t.countLinks(e.node)
		} else {
			n.nlink++
		}
		i = e.next
	}
}

// Rehome makes of each node's several names the one that comes first, depth first with siblings in byte order, its home.
func (t *Tree) Rehome() {
	for i := range t.nodes.n {
		t.nodes.at(i).home = noEntry
	}
	t.rehome(Root)
}

func (t *Tree) rehome(dir Node) {
	d := t.node(dir)
	t.tidy(d)
	for i := d.a; i != 0; {
		e := t.entries.at(i - 1)
		n := t.node(e.node)
		if n.home == noEntry {
			n.home = i - 1
			if n.fileType() == Directory {
				t.rehome(e.node)
			}
		}
		i = e.next
	}
}
