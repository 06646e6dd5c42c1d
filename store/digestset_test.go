package store

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
)

// randomDigest has random bytes, and the first ones all alike if they are meant to collide.
func randomDigest(rng *rand.Rand, a fsverity.Algorithm, collide bool) fsverity.Digest {
	raw := make([]byte, a.Size())
	for i := 0; i < len(raw); i += 8 {
		binary.BigEndian.PutUint64(raw[i:], rng.Uint64())
	}
	if collide {
		copy(raw, make([]byte, 8))
	}
	d, err := fsverity.NewDigest(a, raw)
	if err != nil {
		panic(err)
	}
	return d
}

// TestDigestSet compares the set with a map.
func TestDigestSet(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 0))
		alg := []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}[seed%2]
		size := []int{0, 1, 2, 100, 40_000}[seed%5]
		want := map[fsverity.Digest]bool{} // whether it is kept
		s := newDigestSet(alg)
		if seed%4 < 2 {
			s.thinAt = 1
		}
		fill := func(n int, put func(fsverity.Digest)) {
			for range n {
				d := randomDigest(rng, alg, seed%3 == 0)
				put(d)
				s.add(d)
				if rng.IntN(4) == 0 {
					s.add(d)
				}
			}
		}
		fill(size/2, func(d fsverity.Digest) { want[d] = false })
		before := s.mark()
		fill(rng.IntN(size+1), func(fsverity.Digest) {})
		s.undo(before)
		fill(size-size/2, func(d fsverity.Digest) { want[d] = false })
		s.add(randomDigest(rng, fsverity.SHA256+fsverity.SHA512-alg, false)) // of another store
		s.seal()
		for d := range want {
			if rng.IntN(2) == 0 {
				want[d] = true
				s.keep(d)
			}
			s.keep(randomDigest(rng, alg, seed%3 == 0))
		}
		got := map[fsverity.Digest]bool{}
		var order []fsverity.Digest
		for i := range s.len() {
			got[s.at(i)] = s.isKept(i)
			order = append(order, s.at(i))
			if s.keeps(s.at(i)) != s.isKept(i) {
				t.Fatalf("seed %d: what is said of %v differs", seed, s.at(i))
			}
		}
		if s.len() != len(want) || !maps.Equal(got, want) || !slices.IsSortedFunc(order, fsverity.Digest.Compare) {
			t.Fatalf("seed %d: %d digests, want %d; sorted: %v", seed, s.len(), len(want), slices.IsSortedFunc(order, fsverity.Digest.Compare))
		}
		kept := 0
		for _, k := range want {
			if k {
				kept++
			}
		}
		if s.numKept() != kept {
			t.Fatalf("seed %d: %d are kept, want %d", seed, s.numKept(), kept)
		}
	}
}

// TestDigestSetHostile: digests that all begin alike take a little longer than others, not a million times as long.
func TestDigestSetHostile(t *testing.T) {
	const n = 200_000
	took := map[bool]time.Duration{}
	for _, collide := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(1, 2))
		start := time.Now()
		s := newDigestSet(fsverity.SHA256)
		ds := make([]fsverity.Digest, n)
		for i := range ds {
			ds[i] = randomDigest(rng, fsverity.SHA256, collide)
			s.add(ds[i])
		}
		s.seal()
		for _, d := range ds {
			s.keep(d)
		}
		if s.numKept() != n {
			t.Fatalf("%d of %d are kept", s.numKept(), n)
		}
		took[collide] = time.Since(start)
	}
	if took[true] > 100*took[false]+time.Second {
		t.Errorf("%v, and %v if they collide", took[false], took[true])
	}
}
