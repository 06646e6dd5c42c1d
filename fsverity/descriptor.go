package fsverity

import "encoding/binary"

// Offsets in struct fsverity_descriptor of linux/fsverity.h. The fields that are
// not named, salt and reserved ones, are zero here.
const (
	descriptorVersion  = 0  // u8 version
	descriptorAlg      = 1  // u8 hash_algorithm
	descriptorLogBlock = 2  // u8 log_blocksize
	descriptorDataSize = 8  // le64 data_size
	descriptorRootHash = 16 // u8 root_hash[64]
	descriptorSize     = 256

	logBlockSize = 12 // 1<<12 == BlockSize
)

// seal is the digest of a file of size bytes with this root hash: the hash of
// its descriptor. An empty file has no root hash: pass none, and the field stays
// zero, as the kernel has it.
func (a Algorithm) seal(root []byte, size uint64) Digest {
	var desc [descriptorSize]byte
	desc[descriptorVersion] = 1
	desc[descriptorAlg] = byte(a)
	desc[descriptorLogBlock] = logBlockSize
	binary.LittleEndian.PutUint64(desc[descriptorDataSize:], size)
	copy(desc[descriptorRootHash:descriptorRootHash+maxSize], root)
	d := Digest{alg: a}
	a.hashInto(d.raw[:], desc[:])
	return d
}
