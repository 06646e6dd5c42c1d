package fsverity

import (
	"bytes"
	"testing"
)

// levelSizes are sizes around which a tree gets another leaf, block or level.
func levelSizes() []int {
	sizes := []int{0, 2, 4095, 5000, 3*4096 - 7, 130*4096 + 100}
	for _, b := range borders {
		sizes = append(sizes, b-1, b, b+1)
	}
	return append(sizes, 127*4096, 127*4096+1, 63*4096, 63*4096+1, 2*128*4096, 2*128*4096+1)
}

// TestLevels makes every level of the tree and takes the digest from each.
func TestLevels(t *testing.T) {
	data := randomBytes(64*64*4096 + 1)
	for _, a := range algorithms {
		for _, n := range levelSizes() {
			want := Sum(a, data[:n])
			level := data[:n]
			for depth := 0; ; depth++ {
				above := make([]byte, (len(level)+4095)/4096*a.Size())
				if got := a.HashBlocks(above, level); got != len(above) {
					t.Fatalf("%v: hashes of %d bytes take %d bytes, want %d", a, len(level), got, len(above))
				}
				if !bytes.Equal(above, chop(a, level)) {
					t.Fatalf("%v: wrong hashes of %d bytes, %d levels above the content", a, len(level), depth)
				}
				kept := bytes.Clone(above)
				if got := a.TreeDigest(above, int64(n)); got != want {
					t.Errorf("%v of %d bytes by level %d: %v, want %v", a, n, depth, got, want)
				}
				if !bytes.Equal(above, kept) {
					t.Fatalf("%v: TreeDigest changed its argument", a)
				}
				if level = above; len(level) <= a.Size() {
					break
				}
			}
		}
	}
}

// TestHashBlocksInPlace overwrites the content with its leaves.
func TestHashBlocksInPlace(t *testing.T) {
	data := randomBytes(130*4096 + 1)
	for _, a := range algorithms {
		for _, n := range []int{0, 1, 10, 31, 32, 33, 100, 4095, 4096, 4097, 3*4096 + 10, 5 * 4096, 130*4096 + 1} {
			buf := make([]byte, n+maxSize)
			copy(buf, data[:n])
			if got := buf[:a.HashBlocks(buf, buf[:n])]; !bytes.Equal(got, chop(a, data[:n])) {
				t.Errorf("%v of %d bytes in place: wrong hashes", a, n)
			}
		}
	}
}

// TestTreeDigestTellsSize: the same leaves under another size are another file.
func TestTreeDigestTellsSize(t *testing.T) {
	for _, a := range algorithms {
		leaves := chop(a, make([]byte, 5000))
		if a.TreeDigest(leaves, 5000) == a.TreeDigest(leaves, 5001) {
			t.Errorf("%v: digest does not hold the size", a)
		}
		if d := a.TreeDigest(nil, 0); d != Sum(a, nil) {
			t.Errorf("%v of nothing: %v", a, d)
		}
	}
}

func TestHashBlocksAllocates(t *testing.T) {
	data := randomBytes(9*4096 + 5)
	out := make([]byte, 10*maxSize)
	for _, a := range algorithms {
		if n := testing.AllocsPerRun(10, func() { a.HashBlocks(out, data) }); n != 0 {
			t.Errorf("%v: %v allocations", a, n)
		}
	}
}
