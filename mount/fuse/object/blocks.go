package object

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/flatroot/flatroot/fsverity"
)

// Blocks reads a file, such as an image, of one digest: each block that is read
// is checked. It is safe for concurrent use.
type Blocks struct {
	f      *os.File // kept from being closed by the garbage collector
	d      *descriptor
	key    contentKey
	leaves *leafCache
	sets   [blockSets]blockSet
}

// Blocks that were checked are kept, since a walk reads dozens of inodes and
// directory entries from one: blockSets*blockWays of them, 1 MiB.
const (
	blockSets = 64
	blockWays = 4
)

// blockSet keeps the last blocks whose number modulo blockSets is the set's.
type blockSet struct {
	mu     sync.Mutex
	number [blockWays]int64 // of the block, and 1 more: 0 is none
	block  [blockWays]*block
	used   [blockWays]uint64 // by clock
	clock  uint64
}

// NewBlocks hashes the first size bytes of f on workers processors, 0 for
// GOMAXPROCS, and compares them with want: an error that wraps [ErrBad] says that
// they differ, or that f has another size. f must stay open and is the caller's.
// Of leaves at most 64 MiB are kept, 8 GiB's worth in SHA-256; those of a longer
// file are computed when they are needed, from the content and upper hashes.
func NewBlocks(f *os.File, size int64, want fsverity.Digest, workers int) (*Blocks, error) {
	if want.IsZero() {
		return nil, fmt.Errorf("check blocks of %s: no digest is given: %w", f.Name(), ErrBad)
	}
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	d := &descriptor{fd: int(f.Fd()), kind: "image", name: f.Name()}
	if err := d.stat(); err != nil {
		return nil, fmt.Errorf("check blocks of %s: %w", f.Name(), err)
	}
	if d.size != size {
		return nil, fmt.Errorf("image %s has %d bytes, want %d: %w", f.Name(), d.size, size, ErrBad)
	}
	b := &Blocks{f: f, d: d, key: contentKey{want, size}, leaves: newLeafCache(2*defaultLeafBytes, workers)}
	if _, err := b.leaves.tree(d, b.key); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadAt is that of [io.ReaderAt], within the size; with an error other than
// io.EOF nothing was read, and p is zeros. Errors wrap [ErrBad] if the file is no
// longer what it was.
func (b *Blocks) ReadAt(p []byte, off int64) (int, error) {
	n, eof := clip(b.key.size, p, off)
	if n == 0 {
		return 0, eof
	}
	if err := b.read(p[:n], off); err != nil {
		clear(p)
		return 0, err
	}
	return n, eof
}

// read fills p. Long reads are not kept: they are of a file's content.
func (b *Blocks) read(p []byte, off int64) error {
	const long = 4 * blockSize
	if len(p) >= long {
		return b.leaves.read(b.d, b.key, p, off)
	}
	for len(p) > 0 {
		n, err := b.readPart(p, off)
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readPart fills p up to the end of the block that off lies in.
func (b *Blocks) readPart(p []byte, off int64) (int, error) {
	number := off / blockSize
	set := &b.sets[number%blockSets]
	set.mu.Lock()
	defer set.mu.Unlock()
	whole, at := set.find(number)
	if whole == nil {
		whole = set.room(at)
		start := number * blockSize
		if err := b.leaves.readBlocks(b.d, b.key, whole[:min(blockSize, b.key.size-start)], start); err != nil {
			return 0, err
		}
		set.number[at] = number + 1
	}
	set.clock++
	set.used[at] = set.clock
	return copy(p, whole[off%blockSize:min(blockSize, b.key.size-number*blockSize)]), nil
}

// find returns the block and where it is, or nil and where it can be put.
func (s *blockSet) find(number int64) (*block, int) {
	oldest := 0
	for i := range blockWays {
		if s.number[i] == number+1 {
			return s.block[i], i
		}
		if s.used[i] < s.used[oldest] {
			oldest = i
		}
	}
	return nil, oldest
}

// room empties a place and returns its memory.
func (s *blockSet) room(at int) *block {
	s.number[at] = 0
	if s.block[at] == nil {
		s.block[at] = new(block)
	}
	return s.block[at]
}
