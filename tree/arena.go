package tree

import (
	"bytes"
	"errors"
	"hash/maphash"
	"math"
)

// ErrTooLarge tells that a tree has more nodes or bytes of names and values than 32-bit handles can address.
var ErrTooLarge = errors.New("tree too large")

// Blocks of the arenas. They are never moved or copied while a tree grows, so that its peak is its size.
const (
	textBits  = 18 // bytes of names and values in a block, as a power of two
	textBlock = 1 << textBits
	nodeBits  = 10
	nodeBlock = 1 << nodeBits
	entryBits = 12
	entBlock  = 1 << entryBits
)

// text is a byte string in a textArena.
type text struct {
	addr uint32
	len  uint32
}

// textArena holds byte strings of at most textBlock bytes; a string never straddles two blocks.
type textArena struct {
	blocks [][]byte
}

func (a *textArena) put(b []byte) (text, error) {
	if len(b) == 0 {
		return text{}, nil
	}
	last := len(a.blocks) - 1
	if last < 0 || len(a.blocks[last])+len(b) > cap(a.blocks[last]) {
		if len(a.blocks) == 1<<(32-textBits) || len(b) > textBlock {
			return text{}, ErrTooLarge
		}
		size := textBlock
		if last < 0 {
			size = max(textBlock>>6, len(b)) // most trees in tests are tiny
		}
		a.blocks = append(a.blocks, make([]byte, 0, size))
		last++
	}
	blk := &a.blocks[last]
	off := len(*blk)
	*blk = append(*blk, b...)
	return text{uint32(last)<<textBits | uint32(off), uint32(len(b))}, nil
}

func (a *textArena) get(t text) []byte {
	if t.len == 0 {
		return nil
	}
	off := t.addr & (textBlock - 1)
	return a.blocks[t.addr>>textBits][off : off+t.len : off+t.len]
}

// blocks is a growing array of values in blocks of fixed size.
type blocks[T any] struct {
	b    [][]T
	n    uint32
	bits uint32
}

func (a *blocks[T]) at(i uint32) *T { return &a.b[i>>a.bits][i&(1<<a.bits-1)] }

func (a *blocks[T]) add(v T) (uint32, error) {
	if a.n == math.MaxUint32-1 {
		return 0, ErrTooLarge
	}
	i := a.n
	if i>>a.bits == uint32(len(a.b)) {
		size := 1 << a.bits
		if i == 0 {
			size >>= 6
		}
		a.b = append(a.b, make([]T, 0, size))
	}
	blk := &a.b[i>>a.bits]
	*blk = append(*blk, v) // the first block grows by copying, all others have their capacity
	a.n++
	return i, nil
}

// index is an open hash table from a 32-bit hash to candidates; the caller compares. A slot holds hash<<32 | value+1,
// so that most comparisons that fail never touch the candidate's memory. Value deleted marks a removed slot.
type index struct {
	slots []uint64
	used  int // with deleted ones
}

const deleted = math.MaxUint32 - 1

func (x *index) find(hash uint32, equal func(uint32) bool) (uint32, bool) {
	if len(x.slots) == 0 {
		return 0, false
	}
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return 0, false
		}
		if v := uint32(s) - 1; uint32(s>>32) == hash && v != deleted && equal(v) {
			return v, true
		}
	}
}

func (x *index) insert(hash, value uint32) {
	if (x.used+1)*4 > len(x.slots)*3 {
		x.grow()
	}
	x.put(uint64(hash)<<32 | uint64(value+1))
	x.used++
}

func (x *index) put(s uint64) {
	mask := uint32(len(x.slots) - 1)
	i := uint32(s>>32) & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

func (x *index) grow() {
	old := x.slots
	live := 0
	for _, s := range old {
		if s != 0 && uint32(s)-1 != deleted {
			live++
		}
	}
	size := 64
	for live*2 >= size {
		size *= 2
	}
	x.slots, x.used = make([]uint64, size), live
	for _, s := range old {
		if s != 0 && uint32(s)-1 != deleted {
			x.put(s)
		}
	}
}

func (x *index) remove(hash, value uint32) {
	if len(x.slots) == 0 {
		return
	}
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; x.slots[i] != 0; i = (i + 1) & mask {
		if x.slots[i] == uint64(hash)<<32|uint64(value+1) {
			x.slots[i] = uint64(hash)<<32 | (deleted + 1)
			return
		}
	}
}

// interner gives equal byte strings equal numbers, counted from 0 in order of first mention.
type interner struct {
	text  textArena
	items blocks[text]
	index index
	seed  maphash.Seed
}

func newInterner() interner {
	return interner{items: blocks[text]{bits: entryBits}, seed: maphash.MakeSeed()}
}

func (in *interner) id(b []byte) (uint32, error) {
	h := uint32(maphash.Bytes(in.seed, b))
	if id, ok := in.index.find(h, func(v uint32) bool { return bytes.Equal(in.get(v), b) }); ok {
		return id, nil
	}
	t, err := in.text.put(b)
	if err != nil {
		return 0, err
	}
	id, err := in.items.add(t)
	if err != nil {
		return 0, err
	}
	in.index.insert(h, id)
	return id, nil
}

func (in *interner) get(id uint32) []byte { return in.text.get(*in.items.at(id)) }

func (in *interner) len() int { return int(in.items.n) }
