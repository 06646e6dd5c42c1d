package index

import (
	"encoding/binary"
	"errors"
	"iter"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
)

// Layer is what a layer's tar says: its entries in order, and the digests of the objects that they have. It is kept in
// about a hundred bytes for an entry.
type Layer struct {
	DiffID  oci.DiffID
	entries entryLog
	objects digestTable
	refs    int // different objects that its stream refers to
}

func newLayer(a fsverity.Algorithm, diffID oci.DiffID) *Layer {
	return &Layer{DiffID: diffID, objects: digestTable{alg: a}}
}

// Len is the number of entries.
func (l *Layer) Len() int { return l.entries.n }

// Entries yields the layer's entries in the order of its tar. An entry is good until the next is asked for.
func (l *Layer) Entries() iter.Seq[*Entry] { return l.entries.all() }

// NumObjects is the number of objects that it has, the same one counted each time.
func (l *Layer) NumObjects() int { return l.objects.n }

// Digest is that of the object which Entry.Object numbers, in the order of the tar.
func (l *Layer) Digest(object int) (fsverity.Digest, error) { return l.objects.at(object) }

// digestTable is a list of digests in blocks without pointers.
type digestTable struct {
	alg    fsverity.Algorithm
	blocks [][]byte
	n      int
}

const digestsPerBlock = 2048

func (t *digestTable) add(d fsverity.Digest) int {
	if t.n%digestsPerBlock == 0 {
		t.blocks = append(t.blocks, nil)
	}
	last := &t.blocks[len(t.blocks)-1]
	*last = d.AppendTo(*last)
	t.n++
	return t.n - 1
}

var errObjectNumber = errors.New("entry names an object that its layer does not have")

func (t *digestTable) at(i int) (fsverity.Digest, error) {
	if i < 0 || i >= t.n {
		return fsverity.Digest{}, errObjectNumber
	}
	size := t.alg.Size()
	at := i % digestsPerBlock * size
	return fsverity.NewDigest(t.alg, t.blocks[i/digestsPerBlock][at:at+size])
}

// entryLog holds entries one after the other as bytes: numbers as varints, strings with their lengths.
type entryLog struct {
	blocks [][]byte
	n      int
}

const logBlock = 256 << 10

const (
	logHardlink = 1 << iota
	logObject
)

// add appends an entry and tells how many bytes it takes.
func (g *entryLog) add(e *Entry) int {
	// A block takes whole entries; the largest entry alone may be larger than a block.
	need := entrySize(e)
	if last := len(g.blocks) - 1; last < 0 || cap(g.blocks[last])-len(g.blocks[last]) < need {
		size := logBlock
		if last < 0 {
			size = 4 << 10
		}
		g.blocks = append(g.blocks, make([]byte, 0, max(size, need)))
	}
	b := &g.blocks[len(g.blocks)-1]
	before := len(*b)
	*b = appendEntry(*b, e)
	g.n++
	return len(*b) - before
}

// entrySize bounds the length of what appendEntry appends.
func entrySize(e *Entry) int {
	n := 16*binary.MaxVarintLen64 + len(e.Name) + len(e.Link) + len(e.Content)
	for _, x := range e.Xattrs {
		n += 2*binary.MaxVarintLen64 + len(x.Name) + len(x.Value)
	}
	return n
}

func appendEntry(b []byte, e *Entry) []byte {
	flags := uint64(0)
	if e.Hardlink {
		flags |= logHardlink
	}
	if e.Object >= 0 {
		flags |= logObject
	}
	b = appendBytes(b, e.Name)
	b = binary.AppendUvarint(b, flags)
	for _, v := range [...]uint32{e.Mode, e.UID, e.GID, e.Rdev, e.MtimeNsec} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendVarint(b, e.MtimeSec)
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = appendBytes(b, e.Link)
	b = appendBytes(b, e.Content)
	if e.Object >= 0 {
		b = binary.AppendUvarint(b, uint64(e.Object))
	}
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		b = binary.AppendUvarint(b, uint64(len(x.Name)))
		b = append(b, x.Name...)
		b = appendBytes(b, x.Value)
	}
	return b
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (g *entryLog) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		var e Entry
		for _, b := range g.blocks {
			for r := (logReader{b}); len(r.b) > 0; {
				r.entry(&e)
				if !yield(&e) {
					return
				}
			}
		}
	}
}

// logReader reads what appendEntry wrote in this process; it has nothing to check.
type logReader struct{ b []byte }

func (r *logReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.b = r.b[n:]
	return v
}

func (r *logReader) int() int64 {
	v, n := binary.Varint(r.b)
	r.b = r.b[n:]
	return v
}

func (r *logReader) bytes() []byte {
	n := r.uint()
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *logReader) entry(e *Entry) {
	e.Name = r.bytes()
	flags := r.uint()
	for _, p := range [...]*uint32{&e.Mode, &e.UID, &e.GID, &e.Rdev, &e.MtimeNsec} {
		*p = uint32(r.uint())
	}
	e.MtimeSec = r.int()
	e.Size = int64(r.uint())
	e.Link = r.bytes()
	e.Content = r.bytes()
	e.Hardlink = flags&logHardlink != 0
	e.Object = -1
	if flags&logObject != 0 {
		e.Object = int(r.uint())
	}
	e.Xattrs = e.Xattrs[:0]
	for range r.uint() {
		name := string(r.bytes())
		e.Xattrs = append(e.Xattrs, tree.Xattr{Name: name, Value: r.bytes()})
	}
}
