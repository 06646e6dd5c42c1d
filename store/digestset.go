package store

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"

	"github.com/flatroot/flatroot/fsverity"
)

// digestSet is a large set of digests, of which some are kept: their bytes side by
// side, in order. It is filled first, then sealed, then asked.
type digestSet struct {
	alg    fsverity.Algorithm
	pieces [][]byte // while it is filled
	thinAt int      // bytes in pieces at which what occurs twice is taken out
	raw    []byte   // sealed
	bits   int      // at the beginning of a digest, that tell its slot
	start  []uint32 // of the digests in a slot, and one more
	kept   []uint64 // a bit for each
}

const (
	setPiece    = 1 << 20 // bytes, about
	maxSlotBits = 21      // a slot takes 4 bytes
	firstThin   = 32 << 20
)

func newDigestSet(a fsverity.Algorithm) *digestSet { return &digestSet{alg: a, thinAt: firstThin} }

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

// size is how many bytes were put in.
func (s *digestSet) size() (n int) {
	for _, p := range s.pieces {
		n += len(p)
	}
	return n
}

// thin takes out what occurs twice, as versions of an image have nearly all in common.
func (s *digestSet) thin() {
	s.seal()
	s.pieces = [][]byte{bytes.Clone(s.raw)}
	s.raw, s.start, s.kept = nil, nil, nil
	s.thinAt = max(firstThin, 2*s.size())
}

// filled is how far a set was filled: its pieces, and the bytes in the last one.
type filled struct{ pieces, last int }

// mark gives that. It may move what is in the set, so that an earlier one is of no use any more.
func (s *digestSet) mark() filled {
	if s.size() >= s.thinAt {
		s.thin()
	}
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

func (s *digestSet) slot(raw []byte) int { return int(binary.BigEndian.Uint32(raw) >> (32 - s.bits)) }

// each calls f for every digest that was put in.
func (s *digestSet) each(f func(raw []byte)) {
	n := s.alg.Size()
	for _, p := range s.pieces {
		for at := 0; at < len(p); at += n {
			f(p[at : at+n])
		}
	}
}

// seal sorts: by the first bits by counting, into more slots than there are digests,
// since these are spread evenly, so that most of what is not in the set meets an empty
// one; then within each slot by comparing, so that digests made to collide there cost
// no more than any sorting does.
func (s *digestSet) seal() {
	n, total := s.alg.Size(), 0
	for _, p := range s.pieces {
		total += len(p) / n
	}
	s.bits = min(bits.Len(uint(total))+2, maxSlotBits)
	next := make([]uint32, 1<<s.bits+1)
	s.each(func(raw []byte) { next[s.slot(raw)+1]++ })
	for i := range 1 << s.bits {
		next[i+1] += next[i]
	}
	s.raw = make([]byte, total*n)
	bounds := slices.Clone(next)
	s.each(func(raw []byte) {
		at := &next[s.slot(raw)]
		copy(s.raw[int(*at)*n:], raw)
		*at++
	})
	s.pieces = nil
	s.compact(bounds)
	s.kept = make([]uint64, (s.len()+63)/64)
}

// compact sorts each slot and leaves out what occurs twice.
func (s *digestSet) compact(bounds []uint32) {
	n := s.alg.Size()
	s.start = make([]uint32, len(bounds))
	to := 0
	for i := range len(bounds) - 1 {
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
	s.start[len(bounds)-1] = uint32(to)
	if s.raw = s.raw[:to*n]; len(s.raw) < cap(s.raw)/2 {
		s.raw = bytes.Clone(s.raw)
	}
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
	at := s.slot(key)
	lo, hi := int(s.start[at]), int(s.start[at+1])
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch bytes.Compare(s.raw[mid*n:(mid+1)*n], key) {
		case 0:
			return mid
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
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
