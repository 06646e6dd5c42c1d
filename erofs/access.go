package erofs

import (
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/flatroot/flatroot/erofs/disk"
)

// read fills b from offset off of the image. All reading of images happens here and in bytes.
func (m *Image) read(b []byte, off uint64) error {
	if err := m.checkRange(off, uint64(len(b))); err != nil {
		return err
	}
	if m.mem != nil {
		copy(b, m.mem[off:])
		return nil
	}
	n, err := m.r.ReadAt(b, int64(off))
	if n == len(b) {
		return nil // with io.EOF too, at the very end
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than Open was told
	}
	return fmt.Errorf("read image at %d: %w", off, err)
}

// bytes are n bytes at off, which nobody may change: of an image in memory they are a view of it. Otherwise they are
// read, and allocated only if they are there.
func (m *Image) bytes(off, n uint64) ([]byte, error) {
	if err := m.checkRange(off, n); err != nil {
		return nil, err
	}
	if m.mem != nil {
		return m.mem[off : off+n : off+n], nil
	}
	b := make([]byte, n)
	return b, m.read(b, off)
}

// checkRange tells whether n bytes from off on are all in the image.
func (m *Image) checkRange(off, n uint64) error {
	if end, carry := bits.Add64(off, n, 0); carry != 0 || end > m.size {
		return corrupt("%d bytes at %d are behind the end at %d", n, off, m.size)
	}
	return nil
}

// blockOffset is where a block begins. It can't overflow: block numbers have 32 bits, and blocks are at most 64 KiB.
func (m *Image) blockOffset(block uint32) uint64 { return uint64(block) << m.super.BlockBits }

// inodeOffset is where an inode begins.
func (m *Image) inodeOffset(n Nid) (uint64, error) {
	if uint64(n) > m.size>>disk.SlotBits {
		return 0, corrupt("inode %d is behind the end", n)
	}
	return m.blockOffset(m.super.MetaBlock) + uint64(n)<<disk.SlotBits, nil
}
