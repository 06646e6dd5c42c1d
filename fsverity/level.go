package fsverity

// HashBlocks hashes the 4096-byte blocks of data, the last one filled with zeros
// if it is short, writes the hashes to dst, one behind the other, and returns
// how many bytes they take. Of content these are leaves; of all hashes on one
// level of a Merkle tree they are the level above. dst must have room for a
// hash per block; it may lie elsewhere or begin where data does, which is
// overwritten then. It allocates nothing. It panics on an unknown algorithm.
func (a Algorithm) HashBlocks(dst, data []byte) int {
	a.mustKnow()
	full := len(data) &^ (BlockSize - 1)
	n := full / BlockSize * a.Size()
	// What may be overwritten by the first hashes is kept before.
	var last block
	rest := copy(last[:], data[full:])
	a.hashBlocks(dst, nil, data[:full])
	if rest > 0 {
		a.hashInto(dst[n:], last[:])
		n += a.Size()
	}
	return n
}

// TreeDigest is the digest of a file of size bytes by all the hashes on one
// level of its Merkle tree, as [Algorithm.HashBlocks] makes them; an empty file
// has none. It takes hashes for whole ones and the level for one that such a
// file has: others give a digest that no file has. It panics on an unknown
// algorithm.
func (a Algorithm) TreeDigest(hashes []byte, size int64) Digest {
	a.mustKnow()
	if len(hashes) > a.Size() {
		above := make([]byte, (len(hashes)+BlockSize-1)/BlockSize*a.Size())
		for n := a.HashBlocks(above, hashes); ; n = a.HashBlocks(above, hashes) {
			hashes = above[:n]
			if n == a.Size() {
				break
			}
		}
	}
	return a.seal(hashes, uint64(size))
}
