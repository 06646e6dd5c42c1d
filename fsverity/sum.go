package fsverity

// Sum is the fs-verity digest of a file whose content is data. It allocates
// nothing. It panics on an unknown algorithm.
func Sum(a Algorithm, data []byte) Digest {
	a.mustKnow()
	if len(data) == 0 {
		return a.seal(nil, 0)
	}
	var root [maxSize]byte
	a.node(root[:], data, a.span(len(data)))
	return a.seal(root[:a.Size()], uint64(len(data)))
}

// span is how many bytes of a file one hash covers on the lowest level where a
// single hash covers n bytes.
func (a Algorithm) span(n int) int64 {
	span := int64(BlockSize)
	for span < int64(n) {
		span *= a.perBlock()
	}
	return span
}

// node writes to dst the hash over data, 1 to span bytes, on the level where
// one hash covers span bytes. It goes down one level per call, so that a level
// costs one block of stack and nothing is kept of the blocks that are done.
func (a Algorithm) node(dst, data []byte, span int64) {
	var b block
	if span == BlockSize {
		copy(b[:], data)
		a.hashInto(dst, b[:])
		return
	}
	size := a.Size()
	rest := b[:]
	span /= a.perBlock()
	if span == BlockSize {
		full := len(data) &^ (BlockSize - 1)
		a.hashBlocks(rest, nil, data[:full])
		rest, data = rest[full/BlockSize*size:], data[full:]
	}
	for len(data) > 0 {
		n := min(span, int64(len(data)))
		a.node(rest, data[:n], span)
		rest, data = rest[size:], data[n:]
	}
	a.hashInto(dst, b[:])
}
