package powercut

import (
	"bytes"
	"maps"
)

const (
	blockSize  = 4096 // in which disks are kept, bytes
	sectorSize = 512  // of loop devices, bytes
)

var zeroBlock [blockSize]byte

// blocks is what a disk holds. A block that is there is never written again, only exchanged, so that copies share them; one
// that is not there is zero.
type blocks struct {
	size int64 // bytes
	m    map[int64][]byte
}

func newBlocks(size int64) *blocks { return &blocks{size, map[int64][]byte{}} }

func (b *blocks) clone() *blocks { return &blocks{b.size, maps.Clone(b.m)} }

// write keeps parts of p, which the caller must not change then. It is within the disk.
func (b *blocks) write(p []byte, off int64) {
	for len(p) > 0 {
		n, at := off/blockSize, off%blockSize
		part := p[:min(int64(len(p)), blockSize-at)]
		b.put(n, at, part)
		p, off = p[len(part):], off+int64(len(part))
	}
}

func (b *blocks) put(n, at int64, part []byte) {
	if len(part) < blockSize {
		whole := make([]byte, blockSize)
		copy(whole, b.m[n])
		copy(whole[at:], part)
		part = whole
	}
	if bytes.Equal(part, zeroBlock[:]) {
		delete(b.m, n)
	} else {
		b.m[n] = part
	}
}

// zero makes n bytes zero.
func (b *blocks) zero(off, n int64) {
	for n > 0 {
		part := min(n, blockSize-off%blockSize)
		b.put(off/blockSize, off%blockSize, zeroBlock[:part])
		off, n = off+part, n-part
	}
}

// read fills p, and returns how much of it is within the disk.
func (b *blocks) read(p []byte, off int64) int {
	p = p[:max(0, min(int64(len(p)), b.size-off))]
	for rest := p; len(rest) > 0; {
		n, at := off/blockSize, off%blockSize
		part := rest[:min(int64(len(rest)), blockSize-at)]
		if had := b.m[n]; had != nil {
			copy(part, had[at:])
		} else {
			clear(part)
		}
		rest, off = rest[len(part):], off+int64(len(part))
	}
	return len(p)
}
