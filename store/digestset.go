package store

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/flatroot/flatroot/fsverity"
)

// digestSet is a large set of digests, of which some are kept: their bytes side by
// side, in order. It is filled first, then sealed, then asked.
type digestSet struct {
	alg    fsverity.Algorithm
	pieces [][]byte // while it is filled
	raw    []byte   // sealed
	start  []uint32 // of the digests that begin with these 16 bits, and one more
	kept   []uint64 // a bit for each
}

const (
	setPiece = 1 << 20 // bytes, about
	setSlots = 1 << 16
)

func newDigestSet(a fsverity.Algorithm) *digestSet { return &digestSet{alg: a} }

// add puts a digest in; it may be there already.
func (s *digestSet) add(d fsverity.Digest) {
	if d.Algorithm() != s.alg {
		return // nothing of this store
	}
	last := len(s.pieces) - 1
	if last < 0 || len(s.pieces[last])+s.alg.Size() > cap(s.pieces[last]) {
		s.pieces = append(s.pieces, make([]byte, 0, setPiece))
		last++
	}
	s.pieces[last] = d.AppendTo(s.pieces[last])
}

// filled is how far a set was filled: its pieces, and the bytes in the last one.
type filled struct{ pieces, last int }

func (s *digestSet) mark() filled {
	n := len(s.pieces)
	if n == 0 {
		return filled{}
	}
	return filled{n, len(s.pieces[n-1])}
}

// undo takes out what was put in since mark.
func (s *digestSet) undo(to filled) {
	s.pieces = s.pieces[:to.pieces]
	if to.pieces > 0 {
		s.pieces[to.pieces-1] = s.pieces[to.pieces-1][:to.last]
	}
}

func slot(raw []byte) int { return int(binary.BigEndian.Uint16(raw)) }

// each calls f for every digest that was put in.
func (s *digestSet) each(f func(raw []byte)) {
	n := s.alg.Size()
	for _, p := range s.pieces {
		for at := 0; at < len(p); at += n {
			f(p[at : at+n])
		}
	}
}

// seal sorts: by the first 16 bits by counting, since digests are spread evenly, then
// within each slot by comparing, so that digests made to collide there cost no more
// than any sorting does.
func (s *digestSet) seal() {
	n := s.alg.Size()
	next := make([]uint32, setSlots+1)
	total := 0
	s.each(func(raw []byte) { next[slot(raw)+1]++; total++ })
	for i := range setSlots {
		next[i+1] += next[i]
	}
	s.raw = make([]byte, total*n)
	bounds := slices.Clone(next)
	s.each(func(raw []byte) {
		copy(s.raw[int(next[slot(raw)])*n:], raw)
		next[slot(raw)]++
	})
	s.pieces = nil
	s.compact(bounds)
	s.kept = make([]uint64, (s.len()+63)/64)
}

// compact sorts each slot and leaves out what occurs twice.
func (s *digestSet) compact(bounds []uint32) {
	n := s.alg.Size()
	s.start = make([]uint32, setSlots+1)
	to := 0
	for i := range setSlots {
		s.start[i] = uint32(to)
		part := rawDigests{s.raw[int(bounds[i])*n : int(bounds[i+1])*n], n}
		if part.Len() > 1 {
			sort.Sort(part)
		}
		for k := range part.Len() {
			d := part.at(k)
			if to > int(s.start[i]) && bytes.Equal(d, s.raw[(to-1)*n:to*n]) {
				continue
			}
			copy(s.raw[to*n:], d)
			to++
		}
	}
	s.start[setSlots] = uint32(to)
	s.raw = s.raw[:to*n]
}

// rawDigests sorts digests where they lie.
type rawDigests struct {
	raw []byte
	n   int
}

func (r rawDigests) at(i int) []byte    { return r.raw[i*r.n : (i+1)*r.n] }
func (r rawDigests) Len() int           { return len(r.raw) / r.n }
func (r rawDigests) Less(i, j int) bool { return bytes.Compare(r.at(i), r.at(j)) < 0 }
func (r rawDigests) Swap(i, j int) {
	var t [64]byte
	copy(t[:], r.at(i))
	copy(r.at(i), r.at(j))
	copy(r.at(j), t[:r.n])
}

func (s *digestSet) len() int { return len(s.raw) / s.alg.Size() }

// find gives the place of a digest, or -1.
func (s *digestSet) find(d fsverity.Digest) int {
	if d.Algorithm() != s.alg || len(s.raw) == 0 {
		return -1
	}
	var b [64]byte
	key, n := d.AppendTo(b[:0]), s.alg.Size()
	lo, hi := int(s.start[slot(key)]), int(s.start[slot(key)+1])
	i := lo + sort.Search(hi-lo, func(i int) bool { return bytes.Compare(s.raw[(lo+i)*n:(lo+i+1)*n], key) >= 0 })
	if i < hi && bytes.Equal(s.raw[i*n:(i+1)*n], key) {
		return i
	}
	return -1
}

// keep marks a digest, if it is in the set.
func (s *digestSet) keep(d fsverity.Digest) {
	if i := s.find(d); i >= 0 {
		s.kept[i/64] |= 1 << (i % 64)
	}
}

// keeps tells whether a digest is in the set and marked.
func (s *digestSet) keeps(d fsverity.Digest) bool {
	i := s.find(d)
	return i >= 0 && s.isKept(i)
}

func (s *digestSet) isKept(i int) bool { return s.kept[i/64]>>(i%64)&1 != 0 }

func (s *digestSet) at(i int) fsverity.Digest {
	n := s.alg.Size()
	d, _ := fsverity.NewDigest(s.alg, s.raw[i*n:(i+1)*n]) // the length is right
	return d
}

// numKept is the number of those that are marked.
func (s *digestSet) numKept() int {
	n := 0
	for i := range s.len() {
		if s.isKept(i) {
			n++
		}
	}
	return n
}
