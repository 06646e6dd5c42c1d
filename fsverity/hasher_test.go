package fsverity

import (
	"math"
	"math/rand/v2"
	"testing"
)

var algorithms = []Algorithm{SHA256, SHA512}

// borders are sizes around which the shape of a tree changes.
var borders = []int{1, 4096, 2 * 4096, 64 * 4096, 128 * 4096, 64 * 64 * 4096}

func randomBytes(n int) []byte {
	var seed [32]byte
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

func TestSumAndHasherAgree(t *testing.T) {
	data := randomBytes(64*64*4096 + 1)
	for _, a := range algorithms {
		h := NewHasher(a)
		for _, border := range borders {
			for n := border - 1; n <= border+1; n++ {
				want, _ := NewDigest(a, naive(a, data[:n]))
				if got := Sum(a, data[:n]); got != want {
					t.Errorf("Sum of %v over %d bytes is %v, want %v", a, n, got, want)
				}
				h.Reset()
				if m, err := h.Write(data[:n]); m != n || err != nil {
					t.Fatalf("write %d bytes: %d, %v", n, m, err)
				}
				if got := h.Sum(); got != want || h.Size() != int64(n) {
					t.Errorf("Hasher of %v over %d bytes: %v of %d bytes, want %v", a, n, got, h.Size(), want)
				}
			}
		}
	}
}

// TestHasherGoesOn takes sums on the way: they must be right and change nothing.
func TestHasherGoesOn(t *testing.T) {
	data := randomBytes(140 * 4096)
	for _, a := range algorithms {
		h := NewHasher(a)
		for n := 0; n < len(data); {
			step := min(1+(n*7919)%20000, len(data)-n)
			h.Write(data[n : n+step])
			n += step
			if got, want := h.Sum(), Sum(a, data[:n]); got != want {
				t.Fatalf("%v after %d bytes: %v, want %v", a, n, got, want)
			}
		}
	}
}

// TestWriteZeros compares holes with zeros that are written.
func TestWriteZeros(t *testing.T) {
	data := randomBytes(5000)
	for _, a := range algorithms {
		for _, before := range []int{0, 1, 4096, 5000} {
			for _, border := range append(borders, 3*64*4096, 300*4096) {
				for hole := border - 1; hole <= border+1; hole++ {
					holed, plain := NewHasher(a), NewHasher(a)
					for _, h := range []*Hasher{holed, plain} {
						h.Write(data[:before])
						if h == holed {
							h.WriteZeros(int64(hole))
						} else {
							h.Write(make([]byte, hole))
						}
						h.Write(data[:10])
					}
					if got, want := holed.Sum(), plain.Sum(); got != want || holed.Size() != plain.Size() {
						t.Errorf("%v, hole of %d behind %d bytes: %v, want %v", a, hole, before, got, want)
					}
				}
			}
		}
	}
}

// TestHoleInPieces writes a hole of 1 TiB, too long to be written as bytes, in
// pieces: where they end must not matter.
func TestHoleInPieces(t *testing.T) {
	const size = 1<<40 + 1
	r := rand.New(rand.NewPCG(1, 2))
	for _, a := range algorithms {
		whole := NewHasher(a)
		whole.WriteZeros(size)
		for range 20 {
			h := NewHasher(a)
			for h.Size() < size {
				n := min(1+r.Int64N(1<<(1+r.IntN(40))), size-h.Size())
				if n < 1<<20 {
					h.Write(make([]byte, n))
				} else {
					h.WriteZeros(n)
				}
				if r.IntN(4) == 0 { // up to a border that a whole subtree ends at
					span := int64(BlockSize) << (6 * r.IntN(5))
					h.WriteZeros(min((span-h.Size()%span)%span, size-h.Size()))
				}
			}
			if h.Size() != size || h.Sum() != whole.Sum() {
				t.Errorf("%v: %v of %d bytes, want %v", a, h.Sum(), h.Size(), whole.Sum())
			}
		}
	}
}

func TestTooLong(t *testing.T) {
	for _, a := range algorithms {
		h := NewHasher(a)
		h.WriteZeros(-1)
		h.WriteZeros(math.MaxInt64)
		if h.Sum().IsZero() || h.Size() != math.MaxInt64 {
			t.Errorf("%v: the longest file has no digest", a)
		}
		if n, err := h.Write([]byte{0}); n != 0 || err == nil {
			t.Errorf("%v: wrote %d bytes behind the longest file, %v", a, n, err)
		}
		if d := h.Sum(); !d.IsZero() {
			t.Errorf("%v: too long a content has digest %v", a, d)
		}
		h.Reset()
		if h.Sum() != Sum(a, nil) {
			t.Errorf("%v: reset keeps something", a)
		}
		h.WriteZeros(math.MaxInt64)
		h.WriteZeros(math.MaxInt64)
		h.WriteZeros(2)
		if d := h.Sum(); !d.IsZero() {
			t.Errorf("%v: too long a hole has digest %v", a, d)
		}
	}
}

func TestUnknownAlgorithmPanics(t *testing.T) {
	for _, f := range []func(){func() { NewHasher(0) }, func() { Sum(3, nil) }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		}()
	}
}

func TestAllocations(t *testing.T) {
	data := randomBytes(1 << 20)
	for _, a := range algorithms {
		for _, n := range []int{0, 500, 4096, 36 << 10, 1 << 20} {
			if got := testing.AllocsPerRun(5, func() { Sum(a, data[:n]) }); got != 0 {
				t.Errorf("Sum of %v over %d bytes allocates %v times", a, n, got)
			}
		}
		h := NewHasher(a)
		got := testing.AllocsPerRun(5, func() {
			h.Reset()
			h.Write(data[:100])
			h.WriteZeros(1 << 20)
			h.Write(data)
			h.Sum()
		})
		if got != 0 {
			t.Errorf("a used Hasher of %v allocates %v times", a, got)
		}
	}
}

// FuzzHasher writes a content in pieces and holes as the script says, and
// compares with the naive digest of the whole.
func FuzzHasher(f *testing.F) {
	f.Add([]byte{0x00, 0x41, 0x82, 0xff, 0x10}, false)
	f.Add([]byte{0xbf, 0x7f, 0xbf, 0x01, 0xbf, 0xc3, 0x20}, true)
	f.Add([]byte{0x3f, 0x3f, 0x3f, 0x3f, 0xfe, 0xfe, 0xfe, 0x01, 0x7f}, false)
	source := randomBytes(1 << 19)
	f.Fuzz(func(t *testing.T, script []byte, wide bool) {
		if len(script) > 64 {
			return
		}
		a := SHA256
		if wide {
			a = SHA512
		}
		h := NewHasher(a)
		var all []byte
		for i, op := range script {
			n := opLength(op, len(all))
			if op&0x80 != 0 {
				h.WriteZeros(int64(n))
				all = append(all, make([]byte, n)...)
				continue
			}
			piece := source[i*100 : i*100+n]
			h.Write(piece)
			all = append(all, piece...)
		}
		want, _ := NewDigest(a, naive(a, all))
		if got := h.Sum(); got != want || h.Size() != int64(len(all)) {
			t.Errorf("%v over %d bytes: %v, want %v", a, len(all), got, want)
		}
		if got := Sum(a, all); got != want {
			t.Errorf("Sum of %v over %d bytes: %v, want %v", a, len(all), got, want)
		}
	})
}

// opLength turns an operation's low seven bits into a length: few bytes, about
// a number of blocks, what is missing to a full block, or many blocks.
func opLength(op byte, size int) int {
	n := int(op & 0x1f)
	switch op >> 5 & 3 {
	case 0:
		return n * 37
	case 1:
		return max(0, n*BlockSize+int(op&3)-1)
	case 2:
		return n*BlockSize + (BlockSize-size%BlockSize)%BlockSize
	default:
		return n * 3 * BlockSize
	}
}
