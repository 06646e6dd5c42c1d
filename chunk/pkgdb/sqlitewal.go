package pkgdb

import (
	"encoding/binary"
	"fmt"
)

// The write-ahead log of an SQLite database has pages that are newer than the file's, each with a head before it, in the
// order in which they were written. They count up to the last one that ends a transaction, or that doesn't fit to those
// before: a log is written over from its beginning, with new salts, once all of it was copied to the file. rpm leaves one
// behind if it was killed, or if an image was made while it had the database open. Section 4 of the format's description.
const (
	walMagic     = 0x377f0682 // checksums of little-endian words; the next number: of big-endian ones
	walVersion   = 3007000
	walHead      = 32 // bytes before the first page's head: magic, version, size of pages, number, two salts, two checksums
	walFrameHead = 24 // bytes before a page: its number, pages of the database if it ends a transaction, salts, checksums
)

// wal is a write-ahead log.
type wal struct {
	*file
	pages map[uint32]int64 // where the last one of a number is
}

// find is where a page is, if the log has it. There may be no log.
func (w *wal) find(n uint32) (off int64, ok bool) {
	if w == nil {
		return 0, false
	}
	off, ok = w.pages[n]
	return off, ok
}

// readWAL reads a log. One that isn't whole from its beginning on is as good as none, for SQLite too.
func readWAL(f *file, pageSize int) (*wal, error) {
	w := &wal{file: f, pages: map[uint32]int64{}}
	if f.size < walHead {
		return w, nil
	}
	head := make([]byte, walHead)
	if err := f.at(head, 0); err != nil {
		return nil, err
	}
	magic := binary.BigEndian.Uint32(head)
	sum := walSum{order: binary.LittleEndian}
	if magic&1 != 0 {
		sum.order = binary.BigEndian
	}
	sum.add(head[:24])
	if magic&^1 != walMagic || binary.BigEndian.Uint32(head[4:]) != walVersion || !sum.is(head[24:]) {
		return w, nil
	}
	if size := binary.BigEndian.Uint32(head[8:]); size != uint32(pageSize) {
		return nil, fmt.Errorf("pages of %d bytes, where the database has %d", size, pageSize)
	}
	return w, w.frames(sum, head[16:24], pageSize)
}

// frames notes where pages are, as long as heads have the salts and the checksums go on.
func (w *wal) frames(sum walSum, salts []byte, pageSize int) error {
	frame := make([]byte, walFrameHead+pageSize)
	pending := map[uint32]int64{}
	for off := int64(walHead); off <= w.size-int64(len(frame)); off += int64(len(frame)) {
		if err := w.at(frame, off); err != nil {
			return err
		}
		sum.add(frame[:8])
		sum.add(frame[walFrameHead:])
		if string(frame[8:16]) != string(salts) || !sum.is(frame[16:]) {
			return nil
		}
		pending[binary.BigEndian.Uint32(frame)] = off + walFrameHead
		if binary.BigEndian.Uint32(frame[4:]) == 0 {
			continue
		}
		for n, at := range pending {
			w.pages[n] = at
		}
		clear(pending)
	}
	return nil
}

// walSum is the checksum of a log, which goes on from page to page.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

// add adds bytes, a multiple of eight.
func (s *walSum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		s.s0 += s.order.Uint32(b) + s.s1
		s.s1 += s.order.Uint32(b[4:]) + s.s0
	}
}

// is compares with what is stored.
func (s *walSum) is(stored []byte) bool {
	return binary.BigEndian.Uint32(stored) == s.s0 && binary.BigEndian.Uint32(stored[4:]) == s.s1
}
