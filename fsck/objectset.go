package fsck

import (
	"bytes"
	"sort"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
)

// objectSet is the set of the objects that a store has: the digests' bytes in order,
// by their first byte, and a bit for each that is referred to, and that was checked.
type objectSet struct {
	alg   fsverity.Algorithm
	raw   [256][]byte
	used  [256][]uint64
	done  [256][]uint64
	sizes *[256][]int64 // in bytes, by images; 0: not known. Nil: they are of no use
}

func newObjectSet(a fsverity.Algorithm, sizes bool) *objectSet {
	s := &objectSet{alg: a}
	if sizes {
		s.sizes = new([256][]int64)
	}
	return s
}

// fill puts in all digests that begin with first; they are sorted.
func (s *objectSet) fill(first byte, ds []fsverity.Digest) {
	raw := make([]byte, 0, len(ds)*s.alg.Size())
	for _, d := range ds {
		raw = d.AppendTo(raw)
	}
	s.raw[first] = raw
	s.used[first] = make([]uint64, (len(ds)+63)/64)
	s.done[first] = make([]uint64, (len(ds)+63)/64)
	if s.sizes != nil {
		s.sizes[first] = make([]int64, len(ds))
	}
}

// expect notes what size an image has of an object.
func (s *objectSet) expect(o erofs.Object) {
	if first, i, ok := s.find(o.Digest); ok && s.sizes != nil {
		s.sizes[first][i] = o.Size
	}
}

// size is what an object has to have; 0: that is not known.
func (s *objectSet) size(d fsverity.Digest) int64 {
	if first, i, ok := s.find(d); ok && s.sizes != nil {
		return s.sizes[first][i]
	}
	return 0
}

func (s *objectSet) len(first int) int { return len(s.raw[first]) / s.alg.Size() }

func (s *objectSet) at(first, i int) fsverity.Digest {
	n := s.alg.Size()
	d, _ := fsverity.NewDigest(s.alg, s.raw[first][i*n:(i+1)*n]) // the length is right
	return d
}

// find gives the place of a digest.
func (s *objectSet) find(d fsverity.Digest) (first, i int, ok bool) {
	if d.Algorithm() != s.alg {
		return 0, 0, false
	}
	var b [64]byte
	key := d.AppendTo(b[:0])
	first, n := int(key[0]), len(key)
	raw := s.raw[first]
	i = sort.Search(len(raw)/n, func(i int) bool { return bytes.Compare(raw[i*n:(i+1)*n], key) >= 0 })
	return first, i, (i+1)*n <= len(raw) && bytes.Equal(raw[i*n:(i+1)*n], key)
}

// use marks an object as referred to, and tells whether it is there.
func (s *objectSet) use(d fsverity.Digest) bool {
	first, i, ok := s.find(d)
	if ok {
		s.used[first][i/64] |= 1 << (i % 64)
	}
	return ok
}

func (s *objectSet) isUsed(first, i int) bool { return s.used[first][i/64]>>(i%64)&1 != 0 }

// finish marks an object as checked.
func (s *objectSet) finish(d fsverity.Digest) {
	if first, i, ok := s.find(d); ok {
		s.done[first][i/64] |= 1 << (i % 64)
	}
}

// redo takes that back: the object has changed.
func (s *objectSet) redo(d fsverity.Digest) {
	if first, i, ok := s.find(d); ok {
		s.done[first][i/64] &^= 1 << (i % 64)
	}
}

func (s *objectSet) isDone(first, i int) bool { return s.done[first][i/64]>>(i%64)&1 != 0 }

// count counts the objects that want is true of.
func (s *objectSet) count(want func(first, i int) bool) int {
	n := 0
	for first := range s.raw {
		for i := range s.len(first) {
			if want(first, i) {
				n++
			}
		}
	}
	return n
}
