package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
)

// A file of rpm's ndb has a table of slots at its beginning, and each slot says where a header is, in blocks. All numbers are
// little-endian. lib/backend/ndb/rpmpkg.c of rpm is what describes it.
const (
	ndbPage    = 4096 // bytes of slots
	ndbSlot    = 16   // bytes: magic, package, first block, blocks
	ndbBlock   = 16   // bytes
	ndbHead    = 16   // bytes before a header: magic, package, generation, length
	ndbTail    = 12   // bytes behind it, at the end of its last block: checksum of all before, length, magic
	ndbHeader  = 32   // bytes, in place of the first slots: magic, version, generation, pages of slots
	ndbVersion = 0    // the only one there is
)

// ndb is a file of that format.
type ndb struct {
	*file
	left int64 // bytes that headers may still have
}

func readNdb(_ *tree, _ string, f *file, yield func(header []byte) error) error {
	var b [ndbHeader]byte
	if err := f.at(b[:], 0); err != nil {
		return err
	}
	if string(b[:4]) != "RpmP" || binary.LittleEndian.Uint32(b[4:]) != ndbVersion {
		return errors.New("it has not the beginning of rpm's ndb, version 0")
	}
	pages := int64(binary.LittleEndian.Uint32(b[12:]))
	n := ndb{file: f, left: f.size}
	for page := range pages {
		if err := n.slots(page, yield); err != nil {
			return err
		}
	}
	return nil
}

// slots reads a page of slots.
func (n *ndb) slots(page int64, yield func(header []byte) error) error {
	var b [ndbPage]byte
	if err := n.at(b[:], page*ndbPage); err != nil {
		return fmt.Errorf("page %d of slots: %w", page, err)
	}
	first := 0
	if page == 0 {
		first = ndbHeader
	}
	for off := first; off < ndbPage; off += ndbSlot {
		if err := n.slot(b[off:off+ndbSlot], yield); err != nil {
			return fmt.Errorf("slot at %d: %w", page*ndbPage+int64(off), err)
		}
	}
	return nil
}

// slot reads the header that a slot leads to, if it isn't free.
func (n *ndb) slot(slot []byte, yield func(header []byte) error) error {
	if string(slot[:4]) != "Slot" {
		return errors.New("it has not the beginning of a slot")
	}
	number, blocks := binary.LittleEndian.Uint32(slot[4:]), int64(binary.LittleEndian.Uint32(slot[12:]))
	if number == 0 {
		return nil
	}
	off := int64(binary.LittleEndian.Uint32(slot[8:])) * ndbBlock
	if err := claim(&n.left, blocks*ndbBlock); err != nil {
		return err
	}
	b := make([]byte, blocks*ndbBlock)
	if err := n.at(b, off); err != nil {
		return err
	}
	header, err := ndbContent(b, number)
	if err != nil {
		return fmt.Errorf("package %d at %d: %w", number, off, err)
	}
	return yield(header)
}

// ndbContent is the header in its blocks.
func ndbContent(b []byte, number uint32) ([]byte, error) {
	if len(b) < ndbHead+ndbTail || string(b[:4]) != "BlbS" || binary.LittleEndian.Uint32(b[4:]) != number {
		return nil, errors.New("its header doesn't begin there")
	}
	all, tail := b[:len(b)-ndbTail], b[len(b)-ndbTail:]
	size := binary.LittleEndian.Uint32(b[12:])
	if uint64(size) > uint64(len(all)-ndbHead) || string(tail[8:]) != "BlbE" || binary.LittleEndian.Uint32(tail[4:]) != size {
		return nil, fmt.Errorf("its header of %d bytes doesn't end in %d blocks", size, len(b)/ndbBlock)
	}
	if adler32.Checksum(all) != binary.LittleEndian.Uint32(tail) {
		return nil, errors.New("its header is damaged: the checksum is another")
	}
	return all[ndbHead:][:size], nil
}
