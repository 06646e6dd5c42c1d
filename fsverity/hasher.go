package fsverity

import (
	"fmt"
	"math"
)

// Hasher computes the fs-verity digest of content that comes in pieces. It is
// not safe for concurrent use. Make one with [NewHasher].
type Hasher struct {
	alg     Algorithm
	size    int64
	tooLong bool // size would not fit an int64: no file can be that long

	tail    block // the data block that is not full yet
	tailLen int

	// levels[0] collects leaves, levels[i+1] the hashes of levels[i]'s blocks.
	// A block that is full is hashed away at once, so none here is ever full.
	levels []treeBlock

	// zeros[i] is the hash on level i over a subtree of zeros: of a block of
	// zeros first, then of a tree block full of the one before.
	zeros [][maxSize]byte
}

// treeBlock is a tree block that is being filled.
type treeBlock struct {
	len int // bytes
	buf block
}

// NewHasher returns a hasher for an empty file. It panics on an unknown
// algorithm.
func NewHasher(a Algorithm) *Hasher {
	a.mustKnow()
	return &Hasher{alg: a}
}

// Reset makes h as good as new; it keeps the memory.
func (h *Hasher) Reset() {
	h.size, h.tooLong, h.tailLen = 0, false, 0
	for i := range h.levels {
		h.levels[i].len = 0
	}
}

// Size is the number of bytes written, holes included.
func (h *Hasher) Size() int64 { return h.size }

// Write adds p to the content. Blocks that lie in p as a whole are hashed where
// they are, several at a time where the processor gains by it: long writes are
// cheaper than short ones. The only error is that of a content longer than a
// file can be, 2^63-1 bytes.
func (h *Hasher) Write(p []byte) (int, error) {
	if !h.grow(int64(len(p))) {
		return 0, fmt.Errorf("content is longer than %d bytes", int64(math.MaxInt64))
	}
	n := len(p)
	if h.tailLen > 0 {
		m := copy(h.tail[h.tailLen:], p)
		h.tailLen += m
		p = p[m:]
	}
	full := len(p) &^ (BlockSize - 1)
	h.addBlocks(p[:full])
	h.tailLen += copy(h.tail[h.tailLen:], p[full:])
	return n, nil
}

// grow counts n more bytes and tells whether a file can be that long.
func (h *Hasher) grow(n int64) bool {
	if n > math.MaxInt64-h.size {
		h.tooLong = true
	}
	if h.tooLong {
		return false
	}
	h.size += n
	return true
}

// addBlocks adds the tail, if it is full, and the blocks of body to the leaves.
func (h *Hasher) addBlocks(body []byte) {
	for head := h.takeTail(); head != nil || len(body) > 0; head = nil {
		l := h.level(0)
		room := (BlockSize - l.len) / h.alg.Size()
		count := 0
		if head != nil {
			count = 1
		}
		run := body[:min((room-count)*BlockSize, len(body))]
		count += len(run) / BlockSize
		h.alg.hashBlocks(l.buf[l.len:], head, run)
		body = body[len(run):]
		h.filled(0, count)
	}
}

// takeTail empties the tail if it is full and returns it; the bytes stand until
// the next write to it.
func (h *Hasher) takeTail() *block {
	if h.tailLen < BlockSize {
		return nil
	}
	h.tailLen = 0
	return &h.tail
}

// level returns the tree block of level i, which is at most one above the
// highest so far. The pointer is good until the next call.
func (h *Hasher) level(i int) *treeBlock {
	if i == len(h.levels) {
		h.levels = append(h.levels, treeBlock{})
	}
	return &h.levels[i]
}

// filled notes that count more hashes lie in the block of level i; a block that
// is full is hashed into the level above.
func (h *Hasher) filled(i, count int) {
	l := h.level(i)
	l.len += count * h.alg.Size()
	if l.len < BlockSize {
		return
	}
	var hash [maxSize]byte
	h.alg.hashInto(hash[:], l.buf[:])
	l.len = 0
	h.add(i+1, hash[:h.alg.Size()])
}

// add adds one hash to level i.
func (h *Hasher) add(i int, hash []byte) {
	l := h.level(i)
	copy(l.buf[l.len:], hash)
	h.filled(i, 1)
}

// Sum is the digest of what was written so far; writing may go on. It is the
// zero Digest if more was written than a file can hold.
func (h *Hasher) Sum() Digest {
	if h.tooLong {
		return Digest{}
	}
	var b block // the tree block that is closed
	var carry [maxSize]byte
	size, carried := h.alg.Size(), 0
	if h.tailLen > 0 {
		copy(b[:], h.tail[:h.tailLen])
		h.alg.hashInto(carry[:], b[:])
		carried = size
	}
	// Each level's block takes the hash that comes from below, is filled with
	// zeros and hashed into the level above. On the highest level one hash alone
	// is the root.
	top := h.top()
	for i := 0; i <= top; i++ {
		n := copy(b[:], h.levels[i].buf[:h.levels[i].len])
		n += copy(b[n:], carry[:carried])
		if n == 0 {
			continue
		}
		if i == top && n == size {
			return h.alg.seal(b[:size], uint64(h.size))
		}
		clear(b[n:])
		h.alg.hashInto(carry[:], b[:])
		carried = size
	}
	return h.alg.seal(carry[:carried], uint64(h.size))
}

// top is the highest level that holds a hash, -1 if none does.
func (h *Hasher) top() int {
	top := len(h.levels) - 1
	for top >= 0 && h.levels[top].len == 0 {
		top--
	}
	return top
}
