package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// ErrBacked tells that a file's data is in an object and not in the image.
var ErrBacked = errors.New("the data is not in the image but in an object")

// extent is a run of an inode's data. The hole's is zeros.
type extent struct {
	off  uint64 // in the image
	n    uint64 // bytes
	hole bool
}

// ReadAt reads a regular file's data from the image, or a symlink's target; holes are zeros. It is an io.ReaderAt. A
// backed file gives ErrBacked. It doesn't allocate for an image in memory.
func (i *Inode) ReadAt(p []byte, off int64) (int, error) {
	if err := i.checkData(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read inode %d: negative offset", i.nid)
	}
	if uint64(off) >= i.attr.Size {
		return 0, io.EOF
	}
	n := int(min(uint64(len(p)), i.attr.Size-uint64(off)))
	if err := i.readData(p[:n], uint64(off)); err != nil {
		return 0, fmt.Errorf("read inode %d: %w", i.nid, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Data reads the same as ReadAt.
func (i *Inode) Data() *io.SectionReader { return io.NewSectionReader(i, 0, int64(i.attr.Size)) }

func (i *Inode) checkData() error {
	switch typ := i.attr.Mode & tree.TypeMask; {
	case typ != tree.Regular && typ != tree.Symlink:
		return fmt.Errorf("read inode %d: %w: neither regular file nor symlink", i.nid, tree.ErrType)
	case i.maybeBacked():
		return fmt.Errorf("read inode %d: %w", i.nid, ErrBacked)
	}
	return nil
}

// maybeBacked tells whether the image has no data of a file. composefs writes all such files, and no others, with chunks
// that are holes.
func (i *Inode) maybeBacked() bool {
	return i.img.composefs() && i.isRegular() && i.layout == disk.ChunkBased
}

// readData fills p from offset off of the inode's data, all of it before the end.
func (i *Inode) readData(p []byte, off uint64) error {
	for len(p) > 0 {
		e, err := i.extent(off)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), e.n)
		if e.hole {
			clear(p[:n])
		} else if err := i.img.read(p[:n], e.off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// dataBytes is the same as bytes, unless they lie in several runs or in a hole: then they are put together in memory that
// is allocated. They must be before the end.
func (i *Inode) dataBytes(off, n uint64) ([]byte, error) {
	e, err := i.extent(off)
	if err != nil {
		return nil, err
	}
	if !e.hole && e.n >= n {
		return i.img.bytes(e.off, n)
	}
	b := make([]byte, n)
	return b, i.readData(b, off)
}

// extent finds the run that has the data from pos on, which must be below the size.
func (i *Inode) extent(pos uint64) (extent, error) {
	if i.layout == disk.ChunkBased {
		return i.chunkExtent(pos)
	}
	size := i.attr.Size
	tail := size // offset of the part that follows the inode
	if i.layout == disk.FlatInline {
		tail = (size - 1) >> i.img.super.BlockBits << i.img.super.BlockBits
	}
	if pos >= tail {
		return i.tailExtent(pos, tail)
	}
	if i.layout == disk.FlatPlain && i.u == disk.NullBlock {
		return extent{n: size - pos, hole: true}, nil
	}
	return extent{off: i.img.blockOffset(i.u) + pos, n: tail - pos}, nil
}

// tailExtent is the run from pos on in the tail, which begins at offset tail. The kernel reads it with the inode's block,
// so it must not cross the end of that.
func (i *Inode) tailExtent(pos, tail uint64) (extent, error) {
	inBlock := i.data & uint64(i.img.BlockSize()-1)
	if inBlock+i.attr.Size-tail > uint64(i.img.BlockSize()) {
		return extent{}, corrupt("inline data crosses the end of a block")
	}
	return extent{off: i.data + pos - tail, n: i.attr.Size - pos}, nil
}

func (i *Inode) chunkExtent(pos uint64) (extent, error) {
	format := i.u & disk.ChunkFormatMask
	if format&^(disk.ChunkBitsMask|disk.ChunkIndexes) != 0 {
		return extent{}, &UnsupportedError{fmt.Sprintf("chunk format %#x", format)}
	}
	bits := uint32(i.img.super.BlockBits) + format&disk.ChunkBitsMask // at most 47
	number := pos >> bits
	block, err := i.chunkBlock(number, format&disk.ChunkIndexes != 0)
	if err != nil {
		return extent{}, err
	}
	start := number << bits
	e := extent{n: min(start+1<<bits, i.attr.Size) - pos}
	if block == disk.NullBlock {
		e.hole = true
	} else {
		e.off = i.img.blockOffset(block) + pos - start
	}
	return e, nil
}

// chunkBlock is the first block of a chunk, from the map of block numbers or of chunk indexes.
func (i *Inode) chunkBlock(number uint64, indexes bool) (uint32, error) {
	if !indexes {
		b, err := i.img.bytes(i.data+disk.BlockMapEntrySize*number, disk.BlockMapEntrySize)
		if err != nil {
			return 0, err
		}
		return binary.LittleEndian.Uint32(b), nil
	}
	start := (i.data + disk.ChunkIndexSize - 1) &^ (disk.ChunkIndexSize - 1)
	b, err := i.img.bytes(start+disk.ChunkIndexSize*number, disk.ChunkIndexSize)
	if err != nil {
		return 0, err
	}
	var c disk.ChunkIndex
	c.Decode(b)
	if c.Device != 0 {
		return 0, &UnsupportedError{fmt.Sprintf("data on device %d", c.Device)}
	}
	return c.Block, nil
}

// Target is a symlink's target. It doesn't allocate for an image in memory.
func (i *Inode) Target() ([]byte, error) {
	if i.attr.Mode&tree.TypeMask != tree.Symlink {
		return nil, fmt.Errorf("inode %d: %w: not a symlink", i.nid, tree.ErrType)
	}
	if i.attr.Size == 0 || i.attr.Size > tree.TargetMax {
		return nil, fmt.Errorf("inode %d: %w", i.nid, corrupt("symlink target of %d bytes", i.attr.Size))
	}
	b, err := i.dataBytes(0, i.attr.Size)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", i.nid, err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, fmt.Errorf("inode %d: %w", i.nid, corrupt("NUL byte in a symlink's target"))
	}
	return b, nil
}
