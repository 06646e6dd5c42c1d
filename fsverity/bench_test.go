package fsverity

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// BenchmarkLeaves compares the hashing of runs of blocks: std is one block at a
// time with crypto/sha256, lanes is what the package does. Compare within one
// run only.
func BenchmarkLeaves(b *testing.B) {
	data := randomBytes(128 * BlockSize)
	out := make([]byte, 128*sizeSHA512)
	b.Run("std", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for i := 0; i < len(data); i += BlockSize {
				sum := sha256.Sum256(data[i : i+BlockSize])
				copy(out, sum[:])
			}
		}
	})
	b.Run("lanes", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			SHA256.hashBlocks(out, nil, data)
		}
	})
	b.Run("sha512", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			SHA512.hashBlocks(out, nil, data)
		}
	})
}

// BenchmarkSum is the cost of a file in memory, by its size.
func BenchmarkSum(b *testing.B) {
	data := randomBytes(1 << 20)
	for _, a := range algorithms {
		for _, n := range []int{500, 4 << 10, 8 << 10, 36 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%v/%d", a, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					Sum(a, data[:n])
				}
			})
		}
	}
}

// BenchmarkHasher streams 64 MiB in pieces: long and aligned, as they come from
// inflate with headers between, and short.
func BenchmarkHasher(b *testing.B) {
	data := randomBytes(1 << 20)
	const total = 64 << 20
	for _, a := range algorithms {
		for _, piece := range []int{1 << 20, 32<<10 - 512, 1000} {
			b.Run(fmt.Sprintf("%v/%d", a, piece), func(b *testing.B) {
				h := NewHasher(a)
				b.SetBytes(total)
				for b.Loop() {
					h.Reset()
					for n := 0; n < total; n += piece {
						h.Write(data[:piece])
					}
					h.Sum()
				}
			})
		}
	}
}

// BenchmarkHole is a hole of 1 TiB behind an odd piece of data.
func BenchmarkHole(b *testing.B) {
	for _, a := range algorithms {
		b.Run(a.String(), func(b *testing.B) {
			for b.Loop() {
				h := NewHasher(a)
				h.Write([]byte("data"))
				h.WriteZeros(1 << 40)
				h.Sum()
			}
		})
	}
}
