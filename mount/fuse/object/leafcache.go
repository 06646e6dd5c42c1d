package object

import (
	"bytes"
	"sync"
)

// What an entry takes beside its hashes, bytes, counted roughly.
const (
	treeOverhead    = 512
	segmentOverhead = 256
)

// leafCache keeps what checks blocks, by content: whatever file has it. Trees and
// the leaves of segments are bounded each for itself, so that no run through
// leaves can push out the trees, which cost much more to make again.
type leafCache struct {
	workers int
	maxTop  int64

	mu       sync.Mutex
	trees    lru[contentKey, *tree]
	segments lru[segmentKey, []byte] // leaves
	built    int64                   // bytes of content that leaves were made from so far
}

type segmentKey struct {
	contentKey
	segment int64
}

func newLeafCache(bytes int64, workers int) *leafCache {
	c := &leafCache{workers: workers, maxTop: bytes/2 - treeOverhead}
	c.trees.init(bytes / 2)
	c.segments.init(bytes / 2)
	return c
}

// block is room for a block that is read for a part of it.
type block [blockSize]byte

var blocks = sync.Pool{New: func() any { return new(block) }}

// read fills b with checked content of d from off; all of b lies within it. When
// it fails b may hold anything.
func (c *leafCache) read(d *descriptor, k contentKey, b []byte, off int64) error {
	for len(b) > 0 {
		n := wholeBlocks(k, len(b), off)
		var err error
		if n > 0 {
			err = c.readBlocks(d, k, b[:n], off)
		} else {
			n, err = c.readPart(d, k, b, off)
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// wholeBlocks is how many of n bytes at off are blocks of one segment as a whole:
// they are read into the reader's own memory. The last block of the content
// counts, though it is short.
func wholeBlocks(k contentKey, n int, off int64) int {
	if off%blockSize != 0 {
		return 0
	}
	segment := int64(blockSize/k.digest.Algorithm().Size()) * blockSize
	end := min(off+int64(n), off-off%segment+segment)
	if end != k.size {
		end -= end % blockSize
	}
	return int(end - off)
}

func (c *leafCache) readBlocks(d *descriptor, k contentKey, b []byte, off int64) error {
	if err := d.readFull(b, off); err != nil {
		return err
	}
	return c.check(d, k, b, off)
}

// readPart fills b up to the end of the block that off lies in.
func (c *leafCache) readPart(d *descriptor, k contentKey, b []byte, off int64) (int, error) {
	p := blocks.Get().(*block)
	defer blocks.Put(p)
	skip := off % blockSize
	whole := p[:min(blockSize, k.size-off+skip)]
	if err := c.readBlocks(d, k, whole, off-skip); err != nil {
		return 0, err
	}
	return copy(b, whole[skip:]), nil
}

// check compares b, which was read from d at off, with leaves; it is blocks of one
// segment.
func (c *leafCache) check(d *descriptor, k contentKey, b []byte, off int64) error {
	alg := k.digest.Algorithm()
	segment := int64(blockSize/alg.Size()) * blockSize
	leaves, err := c.leaves(d, segmentKey{k, off / segment})
	if err != nil {
		return err
	}
	var got [blockSize]byte
	n := alg.HashBlocks(got[:], b)
	first := int(off%segment/blockSize) * alg.Size()
	if first+n > len(leaves) || !bytes.Equal(got[:n], leaves[first:first+n]) {
		return changed(d, off, int64(len(b)), k.digest)
	}
	return nil
}

// leaves returns the leaves of a segment, made from d if they are not there.
func (c *leafCache) leaves(d *descriptor, k segmentKey) ([]byte, error) {
	if l, ok := c.segment(k); ok {
		return l, nil
	}
	t, err := c.tree(d, k.contentKey)
	if err != nil {
		return nil, err
	}
	if l, ok := c.segment(k); ok { // the tree was built just now
		return l, nil
	}
	return c.load(d, t, k)
}

func (c *leafCache) segment(k segmentKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments.get(k)
}

// load makes the leaves of the segment's unit from d.
func (c *leafCache) load(d *descriptor, t *tree, k segmentKey) ([]byte, error) {
	unit := k.segment * t.segment / t.unit
	base := unit * t.unit / t.segment
	leaves := make(segmentLeaves, min(t.unit/t.segment, t.segments()-base))
	err := t.loadUnit(d, unit, func(i int64, l []byte) { leaves.keep(i-base, l) })
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.built += min(t.unit, t.size-unit*t.unit)
	c.putSegments(t.key, base, leaves)
	return leaves[k.segment-base], nil
}

func (c *leafCache) putSegments(k contentKey, base int64, leaves segmentLeaves) {
	for i, l := range leaves {
		c.segments.put(segmentKey{k, base + int64(i)}, l, int64(cap(l))+segmentOverhead)
		c.segments.shrink()
	}
}

// tree returns the content's tree, made from d if there is none.
func (c *leafCache) tree(d *descriptor, k contentKey) (*tree, error) {
	t, err := c.findTree(k)
	if err != nil {
		return nil, err
	}
	t.building.Lock()
	defer t.building.Unlock()
	if t.top != nil {
		return t, nil
	}
	return t, c.build(d, t)
}

func (c *leafCache) findTree(k contentKey) (*tree, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.trees.get(k); ok {
		return t, nil
	}
	s, err := newShape(k, c.maxTop)
	if err != nil {
		return nil, err
	}
	t := &tree{shape: s, key: k}
	c.trees.put(k, t, s.topBytes()+treeOverhead)
	c.trees.shrink()
	return t, nil
}

// build makes a tree, and keeps its leaves if there is room for all of them.
func (c *leafCache) build(d *descriptor, t *tree) error {
	cost := t.leafBytes() + t.segments()*segmentOverhead
	var leaves segmentLeaves
	if c.promise(cost) {
		leaves = make(segmentLeaves, t.segments())
	} else {
		cost = 0
	}
	err := t.build(d, c.workers, leaves)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments.max += cost
	c.built += t.size
	if err == nil {
		c.putSegments(t.key, 0, leaves)
	}
	return err
}

// promise takes room for leaves that are no segments yet.
func (c *leafCache) promise(cost int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost > c.segments.max {
		return false
	}
	c.segments.max -= cost
	c.segments.shrink()
	return true
}

// checkWhole compares d's content with the digest, and keeps nothing of it.
func (c *leafCache) checkWhole(d *descriptor, k contentKey) error {
	s, err := newShape(k, c.maxTop)
	if err != nil {
		return err
	}
	top, err := hashUnits(&s, d, c.workers, nil)
	if err != nil {
		return err
	}
	return d.compare(s.alg.TreeDigest(top, s.size), k.digest)
}
