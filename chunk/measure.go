package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/flatroot/flatroot/tree"
)

const (
	// headerCost is what an entry has in a tar besides content: a header. Content is padded to as many bytes.
	headerCost = 512
	// extendedCost is what an extended header adds, itself and what it says.
	extendedCost = 1024
	// maxPlainPath is the longest path, in bytes, that most writers manage without an extended header.
	maxPlainPath = 100
	// maxSize is the most that a component's size is said to be, in bytes, so that what a tree says of its files can't have
	// the sum over components overflow.
	maxSize = 1 << 46
)

// Measure gives components their sizes and digests. Claim does, too: it is to be done again when the tree has got digests of
// contents that it did not have then.
//
// A digest is the SHA-256 of records, in the order of the tree: for each entry of the component one, and before it one for
// each directory above that is not above the entry before too. A layer has those directories as well, so that what they are
// counts. Each field of a record has its length before it, or always the same. It is empty if the tree has of a file neither
// content nor digest.
func (c *Claims) Measure(t *tree.Tree) {
	m := &measurer{
		t: t, owners: c.Owners, sums: make([]sum, len(c.Components)), number: make([]uint32, len(c.Owners)),
	}
	for i := range m.sums {
		m.sums[i].hash = sha256.New()
	}
	m.visit(tree.Root)
	for i := range m.sums {
		s := &m.sums[i]
		c.Components[i].Size = s.size
		c.Components[i].Digest = ""
		if !s.unknown {
			c.Components[i].Digest = hex.EncodeToString(s.hash.Sum(nil))
		}
	}
}

// sum is what is known of a component yet.
type sum struct {
	hash    hash.Hash
	size    int64
	entries uint32
	above   []tree.Node // directories above the entry that came last
	unknown bool        // what a file has in it
}

func (s *sum) add(size int64) { s.size = min(s.size+size, maxSize) }

type measurer struct {
	t      *tree.Tree
	owners []int32
	sums   []sum
	number []uint32    // of a node's record in its component, from 1 on
	above  []directory // from the root to the one that is looked at
	path   []byte
	buf    []byte
}

type directory struct {
	node tree.Node
	path int // length in bytes
}

// visit measures what is at the path: a directory for all that is in it.
func (m *measurer) visit(n tree.Node) {
	if owner := m.owners[n]; owner >= 0 {
		m.entry(&m.sums[owner], n)
		return
	}
	m.above = append(m.above, directory{n, len(m.path)})
	for e := range m.t.Entries(n) {
		end := len(m.path)
		m.path = append(append(m.path, '/'), e.Name...)
		m.visit(e.Node)
		m.path = m.path[:end]
	}
	m.above = m.above[:len(m.above)-1]
}

func (m *measurer) entry(s *sum, n tree.Node) {
	m.buf = m.buf[:0]
	m.parents(s)
	s.add(headerCost)
	if m.number[n] != 0 {
		m.begin('l', m.path)
		m.buf = binary.LittleEndian.AppendUint32(m.buf, m.number[n])
	} else {
		m.inode(s, n)
	}
	s.hash.Write(m.buf)
}

// parents records the directories above that are new to the component.
func (m *measurer) parents(s *sum) {
	same := 0
	for same < min(len(s.above), len(m.above)) && s.above[same] == m.above[same].node {
		same++
	}
	s.above = s.above[:same]
	for _, d := range m.above[same:] {
		s.above = append(s.above, d.node)
		m.begin('d', m.path[:d.path])
		m.attributes(d.node)
	}
}

func (m *measurer) inode(s *sum, n tree.Node) {
	s.entries++
	m.number[n] = s.entries
	m.begin('e', m.path)
	a := m.attributes(n)
	if a.Mode&tree.TypeMask == tree.Regular {
		s.add(int64(min(a.Size, maxSize)+headerCost-1) / headerCost * headerCost)
	}
	if len(m.path) > maxPlainPath || a.MtimeNsec != 0 || m.t.XattrSet(n) >= 0 {
		s.add(extendedCost)
	}
	switch {
	case a.Mode&tree.TypeMask == tree.Symlink:
		m.bytes(m.t.Target(n))
	case a.Mode&tree.TypeMask != tree.Regular || a.Size == 0:
	case m.t.Content(n) != nil:
		m.begin('c', m.t.Content(n))
	case m.t.RawDigest(n) != nil:
		m.begin('o', m.t.RawDigest(n))
	default:
		s.unknown = true
	}
}

func (m *measurer) begin(kind byte, b []byte) {
	m.buf = append(m.buf, kind)
	m.bytes(b)
}

func (m *measurer) bytes(b []byte) {
	m.buf = binary.LittleEndian.AppendUint32(m.buf, uint32(len(b)))
	m.buf = append(m.buf, b...)
}

// attributes records all but the number of links, which other entries tell.
func (m *measurer) attributes(n tree.Node) tree.Attr {
	a := m.t.Attr(n)
	for _, v := range []uint32{a.Mode, a.UID, a.GID, a.Rdev, a.MtimeNsec} {
		m.buf = binary.LittleEndian.AppendUint32(m.buf, v)
	}
	size := a.Size
	if m.t.IsDir(n) {
		size = 0
	}
	m.buf = binary.LittleEndian.AppendUint64(m.buf, size)
	m.buf = binary.LittleEndian.AppendUint64(m.buf, uint64(a.MtimeSec))
	xs := m.t.Xattrs(n)
	m.buf = binary.LittleEndian.AppendUint32(m.buf, uint32(len(xs)))
	for _, x := range xs {
		m.bytes([]byte(x.Name))
		m.bytes(x.Value)
	}
	return a
}
