package object

import (
	"sync"

	"github.com/flatroot/flatroot/fsverity"
)

// readBytes is the length of one read while hashing: it stays in a processor's
// second cache, and is hashed several blocks at a time.
const readBytes = 128 << 10

// worker is what one goroutine needs to hash content.
type worker struct {
	buf    [readBytes]byte
	leaves [blockSize]byte // of a segment
	hashes [blockSize]byte // of a unit's segments
	sum    [maxHash]byte   // of the unit
	data   int64           // before it, from where dataFrom was asked, all is hole

	zeros    [3][maxHash]byte // hash over zeros by level, of zerosOf
	zerosAlg fsverity.Algorithm
}

// workers is shared by all pools: a worker holds nothing of its last one's but
// hashes of zeros.
var workers = sync.Pool{New: func() any { return new(worker) }}

func getWorker() *worker {
	w := workers.Get().(*worker)
	w.data = 0
	return w
}

// keepFunc is told the leaves of a segment; they are the worker's and get
// overwritten.
type keepFunc func(segment int64, leaves []byte)

// hashUnit computes the hash of unit i of d's content; it is overwritten by the
// next call. Nothing of it has been compared with a digest yet.
func (w *worker) hashUnit(s *shape, d *descriptor, i int64, keep keepFunc) ([]byte, error) {
	from := i * s.unit
	to := min(from+s.unit, s.size)
	if keep == nil && to-from == s.unit && w.isHole(d, from, to) {
		return w.zeroHash(s.alg, s.level), nil
	}
	n := 0
	for off := from; off < to; off += s.segment {
		leaves, err := w.hashSegment(s, d, off)
		if err != nil {
			return nil, err
		}
		if keep != nil {
			keep(off/s.segment, leaves)
		}
		if s.level == 0 {
			return leaves, nil
		}
		n += s.alg.HashBlocks(w.hashes[n:], leaves)
	}
	if s.level == 1 {
		return w.hashes[:n], nil
	}
	return w.sum[:s.alg.HashBlocks(w.sum[:], w.hashes[:n])], nil
}

// hashSegment computes the leaves of the segment at off.
func (w *worker) hashSegment(s *shape, d *descriptor, off int64) ([]byte, error) {
	to := min(off+s.segment, s.size)
	leaves := w.leaves[:pieces(to-off, blockSize)*int64(s.hash)]
	if w.isHole(d, off, to) {
		for n := 0; n < len(leaves); n += s.hash {
			copy(leaves[n:], w.zeroHash(s.alg, 0))
		}
		return leaves, nil
	}
	for n := 0; off < to; {
		b := w.buf[:min(readBytes, to-off)]
		if err := d.readFull(b, off); err != nil {
			return nil, err
		}
		n += s.alg.HashBlocks(leaves[n:], b)
		off += int64(len(b))
	}
	return leaves, nil
}

// isHole tells whether all from from to to is hole. What is asked for only grows
// while a worker hashes one file. A file system that is wrong about it makes
// hashes wrong, which no digest agrees with then.
func (w *worker) isHole(d *descriptor, from, to int64) bool {
	if !d.sparse {
		return false
	}
	if w.data <= from {
		w.data = d.dataFrom(from)
	}
	return w.data >= to
}

// zeroHash is the hash on a level over zeros, of a full subtree.
func (w *worker) zeroHash(a fsverity.Algorithm, level int) []byte {
	if w.zerosAlg != a {
		w.zerosAlg = a
		var b [blockSize]byte
		for i := range w.zeros {
			a.HashBlocks(w.zeros[i][:], b[:])
			for n := 0; n < blockSize; n += a.Size() {
				copy(b[n:], w.zeros[i][:a.Size()])
			}
		}
	}
	return w.zeros[level][:a.Size()]
}
