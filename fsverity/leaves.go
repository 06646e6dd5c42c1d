package fsverity

import (
	"crypto/sha256"
	"crypto/sha512"
)

type block = [BlockSize]byte

// hashInto writes the hash of msg to dst, which must have room for it.
func (a Algorithm) hashInto(dst, msg []byte) {
	if a == SHA512 {
		sum := sha512.Sum512(msg)
		copy(dst[:sizeSHA512], sum[:])
		return
	}
	sum := sha256.Sum256(msg)
	copy(dst[:sizeSHA256], sum[:])
}

// hashBlocks writes to dst, one behind the other, the hash of head, unless it is
// nil, and those of the blocks in body, whose length must be a multiple of
// BlockSize. That head may lie elsewhere lets a block that was collected from
// several writes share a run with those that follow it.
func (a Algorithm) hashBlocks(dst []byte, head *block, body []byte) {
	if a == SHA256 {
		dst, head, body = hashLanes(dst, head, body)
	}
	a.hashEach(dst, head, body)
}

// hashEach is hashBlocks one block at a time.
func (a Algorithm) hashEach(dst []byte, head *block, body []byte) {
	size := a.Size()
	if head != nil {
		a.hashInto(dst, head[:])
		dst = dst[size:]
	}
	for ; len(body) > 0; body = body[BlockSize:] {
		a.hashInto(dst, body[:BlockSize])
		dst = dst[size:]
	}
}
