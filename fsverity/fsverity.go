// Package fsverity computes, names and measures fs-verity file digests.
//
// The words are those of the kernel's Documentation/filesystems/fsverity.rst.
// A file is cut into 4096-byte data blocks, the last one filled with zeros; the
// hashes of the data blocks are the leaves of its Merkle tree. A tree block
// holds as many hashes as fit into 4096 bytes (128 of SHA-256, 64 of SHA-512)
// and is itself hashed into the level above, until one hash is left: the root
// hash. The fs-verity digest is the hash of the descriptor, 256 bytes that hold
// the root hash and the file's size. Here the block size is always 4096 and
// there is never a salt, so one algorithm and one content give one digest.
//
// Invariants:
//
//   - [Sum], [Hasher], the levels of [Algorithm.HashBlocks] and the kernel agree on
//     every content, the empty one (whose root hash is all zeros) included.
//   - A [Digest] is zero or holds exactly as many bytes as its algorithm has.
//   - A Hasher's memory grows with the depth of the tree, never with the number
//     of leaves: one data block and one tree block per level, at most ten.
//   - Which instructions hash the leaves (see [Hasher.Write]) never shows in a
//     result.
package fsverity

import "fmt"

// BlockSize is the size in bytes of data blocks and tree blocks. Every
// file system that has fs-verity supports 4096 on every machine with pages of
// at least that size, and composefs fixes it.
const BlockSize = 4096

// Algorithm is a hash algorithm under the number that the kernel gives it. The
// zero value is none.
type Algorithm uint8

// The values are FS_VERITY_HASH_ALG_* of linux/fsverity.h: they are stored in
// descriptors and passed to ioctls.
const (
	SHA256 Algorithm = 1
	SHA512 Algorithm = 2
)

const (
	sizeSHA256 = 32
	sizeSHA512 = 64
	// maxSize is FS_VERITY_MAX_DIGEST_SIZE, the room for a root hash in the
	// descriptor.
	maxSize = 64
)

// Size is the length of a hash in bytes, 0 of an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA256:
		return sizeSHA256
	case SHA512:
		return sizeSHA512
	}
	return 0
}

// perBlock is the number of hashes in a tree block.
func (a Algorithm) perBlock() int64 { return int64(BlockSize / a.Size()) }

// String is the algorithm's name as `fsverity digest --hash-alg` takes it.
func (a Algorithm) String() string {
	switch a {
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	}
	return fmt.Sprintf("fs-verity algorithm %d", uint8(a))
}

// MarshalText writes the name, so that JSON has it and not the kernel's number.
func (a Algorithm) MarshalText() ([]byte, error) {
	if a.Size() == 0 {
		return nil, fmt.Errorf("unknown %s", a)
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (a *Algorithm) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAlgorithm(string(text))
	return err
}

// ParseAlgorithm reads what [Algorithm.String] writes.
func ParseAlgorithm(s string) (Algorithm, error) {
	for _, a := range [...]Algorithm{SHA256, SHA512} {
		if s == a.String() {
			return a, nil
		}
	}
	return 0, fmt.Errorf("hash algorithm %q is unknown: use sha256 or sha512", s)
}

// mustKnow panics on an algorithm that is none of the constants. Bytes from
// outside never get here: ParseAlgorithm and NewDigest refuse them.
func (a Algorithm) mustKnow() {
	if a.Size() == 0 {
		panic("fsverity: " + a.String() + " is unknown")
	}
}
