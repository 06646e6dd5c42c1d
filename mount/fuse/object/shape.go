package object

import (
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
)

const blockSize = fsverity.BlockSize

// maxHash is the longest hash, SHA-512's.
const maxHash = 64

// contentKey names content. The size belongs to it, though the digest seals one:
// it is the image's word for it, and hashes that are kept under the key were
// compared with the digest for this size. Bytes of a longer file that are zeros
// would not show in the last leaf.
type contentKey struct {
	digest fsverity.Digest
	size   int64
}

// shape is how the content's Merkle tree is cut up.
type shape struct {
	alg  fsverity.Algorithm
	size int64 // bytes of content
	hash int   // bytes of a hash

	// level of the tree, leaves being 0, whose hashes are all kept: 0 if a leaf
	// is the root, else 1 or 2.
	level   int
	segment int64 // bytes of content below a tree block of leaves
	unit    int64 // bytes of content below a kept hash
}

// newShape chooses the lowest level above the leaves whose hashes take no more
// than max bytes.
func newShape(k contentKey, max int64) (shape, error) {
	s := shape{alg: k.digest.Algorithm(), size: k.size, hash: k.digest.Algorithm().Size()}
	perBlock := int64(blockSize / s.hash)
	s.segment = perBlock * blockSize
	s.unit = s.segment
	if s.size <= blockSize {
		return s, nil
	}
	s.level = 1
	if s.topBytes() > max {
		s.level, s.unit = 2, s.segment*perBlock
	}
	if s.topBytes() > max {
		return shape{}, fmt.Errorf("object of %d bytes is too long to be verified with %d bytes for the upper hashes of its Merkle tree",
			s.size, max)
	}
	return s, nil
}

// units is the number of kept hashes.
func (s *shape) units() int64 { return pieces(s.size, s.unit) }

// topBytes is the memory for the kept hashes.
func (s *shape) topBytes() int64 { return s.units() * int64(s.hash) }

// segments is the number of tree blocks of leaves.
func (s *shape) segments() int64 { return pieces(s.size, s.segment) }

// leafBytes is the length of all leaves together.
func (s *shape) leafBytes() int64 { return pieces(s.size, blockSize) * int64(s.hash) }

// pieces is how many pieces of length by it takes to hold n.
func pieces(n, by int64) int64 {
	if n <= 0 {
		return 0
	}
	return (n-1)/by + 1
}
