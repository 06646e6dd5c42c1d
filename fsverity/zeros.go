package fsverity

// WriteZeros adds n zero bytes, as a hole in a sparse file stands for them; n
// below 1 adds nothing. Whole subtrees of zeros are not hashed but looked up, so
// the cost grows with the depth of the tree and not with n. If the content gets
// longer than a file can be, [Hasher.Sum] is the zero Digest.
func (h *Hasher) WriteZeros(n int64) {
	if n <= 0 || !h.grow(n) {
		return
	}
	if h.tailLen > 0 {
		m := min(n, int64(BlockSize-h.tailLen))
		h.zeroTail(int(m))
		h.addBlocks(nil)
		n -= m
	}
	h.addZeros(0, n/BlockSize)
	h.zeroTail(int(n % BlockSize))
}

// zeroTail adds n zero bytes to the tail, which has room for them.
func (h *Hasher) zeroTail(n int) {
	clear(h.tail[h.tailLen : h.tailLen+n])
	h.tailLen += n
}

// addZeros adds to level i count hashes over zeros: fills the open block, passes
// whole blocks on to the level above, and begins a new block with the rest.
func (h *Hasher) addZeros(i int, count int64) {
	perBlock := h.alg.perBlock()
	if used := int64(h.level(i).len / h.alg.Size()); used > 0 {
		m := min(count, perBlock-used)
		h.copyZeros(i, int(m))
		count -= m
	}
	if count >= perBlock {
		h.addZeros(i+1, count/perBlock)
		count %= perBlock
	}
	h.copyZeros(i, int(count))
}

// copyZeros puts count hashes over zeros into the open block of level i, which
// has room for them.
func (h *Hasher) copyZeros(i, count int) {
	if count == 0 {
		return
	}
	l, hash := h.level(i), h.zeroHash(i)
	size := h.alg.Size()
	for k := range count {
		copy(l.buf[l.len+k*size:], hash[:size])
	}
	h.filled(i, count)
}

// zeroHash is the hash on level i over zeros. The table grows on demand: few
// files have holes.
func (h *Hasher) zeroHash(i int) *[maxSize]byte {
	size := h.alg.Size()
	for len(h.zeros) <= i {
		var b block
		if n := len(h.zeros); n > 0 {
			for k := 0; k < BlockSize; k += size {
				copy(b[k:], h.zeros[n-1][:size])
			}
		}
		var hash [maxSize]byte
		h.alg.hashInto(hash[:], b[:])
		h.zeros = append(h.zeros, hash)
	}
	return &h.zeros[i]
}
