package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A file of Berkeley DB's hash method, as rpm had them up to 4.16, has pages of one size. Its first page tells that, and in
// which order bytes of numbers are. Pages of the hash have keys and values by turns; a value that is long, as a header is, is
// in a list of pages of its own, the overflow pages. Which bucket a page belongs to doesn't matter to who wants all of them.
// src/dbinc/db_page.h of Berkeley DB is what describes it.
const (
	bdbMagic = 0x061561 // of hashes, DB_HASHMAGIC

	bdbUnsorted = 2  // type of a page: a hash, by Berkeley DB before 4.6
	bdbOverflow = 7  // type of a page: part of a long value
	bdbMeta     = 8  // type of a page: the first
	bdbHash     = 13 // type of a page: a hash

	bdbInline  = 1 // type of a value: it follows, H_KEYDATA
	bdbOutside = 3 // type of a value: it is in overflow pages, H_OFFPAGE

	bdbPageHead    = 26 // bytes before what a page has
	bdbOutsideSize = 12 // bytes: type, nothing, first page, length
	bdbMinPage     = 512
	bdbMaxPage     = 64 << 10
	bdbChecksums   = 1 // flag: pages have checksums, and longer heads
)

// bdb is a file of that format.
type bdb struct {
	*file
	order    binary.ByteOrder
	pageSize int
	left     int64 // bytes that headers may still have
	overflow []byte
}

func readBDB(_ *tree, _ string, f *file, yield func(header []byte) error) error {
	db, last, err := openBDB(f)
	if err != nil {
		return err
	}
	page := make([]byte, db.pageSize)
	for n := int64(1); n <= last; n++ {
		err := db.page(page, n)
		if kind := page[25]; err == nil && (kind == bdbHash || kind == bdbUnsorted) {
			err = db.hash(page, yield)
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
	}
	return nil
}

// openBDB reads the first page. last is the number of the last one.
func openBDB(f *file) (db *bdb, last int64, err error) {
	var b [72]byte
	if err := f.at(b[:], 0); err != nil {
		return nil, 0, err
	}
	db = &bdb{file: f, order: binary.LittleEndian, left: f.size}
	if binary.BigEndian.Uint32(b[12:]) == bdbMagic {
		db.order = binary.BigEndian
	}
	if db.order.Uint32(b[12:]) != bdbMagic || b[25] != bdbMeta {
		return nil, 0, errors.New("it has not the beginning of a hash of Berkeley DB")
	}
	if b[24] != 0 || b[26]&bdbChecksums != 0 {
		return nil, 0, errors.New("encryption or checksums of pages, which rpm doesn't use")
	}
	size := db.order.Uint32(b[20:])
	if size < bdbMinPage || size > bdbMaxPage || size&(size-1) != 0 {
		return nil, 0, fmt.Errorf("pages of %d bytes", size)
	}
	db.pageSize, db.overflow = int(size), make([]byte, size)
	return db, int64(db.order.Uint32(b[32:])), nil
}

// page reads a page.
func (db *bdb) page(b []byte, n int64) error { return db.at(b, n*int64(db.pageSize)) }

// hash reads a page with keys and values: how many there are, and behind the head where each is.
func (db *bdb) hash(page []byte, yield func(header []byte) error) error {
	count := int(db.order.Uint16(page[20:]))
	if count%2 != 0 || bdbPageHead+2*count > len(page) {
		return fmt.Errorf("%d keys and values", count)
	}
	end := len(page) // of the item: they grow downwards
	for i := range count {
		start := int(db.order.Uint16(page[bdbPageHead+2*i:]))
		if start < bdbPageHead+2*count || start >= end {
			return fmt.Errorf("item %d is at %d to %d", i, start, end)
		}
		if i%2 == 1 { // a value
			if err := db.value(page[start:end], yield); err != nil {
				return fmt.Errorf("value %d: %w", i/2, err)
			}
		}
		end = start
	}
	return nil
}

// value reads a value, which is a header, or the number of the next package that rpm would add.
func (db *bdb) value(b []byte, yield func(header []byte) error) error {
	const nextPackage = 4 // bytes
	switch {
	case b[0] == bdbOutside && len(b) >= bdbOutsideSize:
		header, err := db.outside(int64(db.order.Uint32(b[4:])), int64(db.order.Uint32(b[8:])))
		if err != nil {
			return err
		}
		return yield(header)
	case b[0] == bdbInline && len(b) == 1+nextPackage:
		return nil
	case b[0] == bdbInline:
		return yield(b[1:])
	}
	return fmt.Errorf("%d bytes of type %d are no header", len(b), b[0])
}

// outside reads size bytes from a list of overflow pages.
func (db *bdb) outside(n, size int64) ([]byte, error) {
	if err := claim(&db.left, size); err != nil {
		return nil, err
	}
	value := make([]byte, 0, size)
	for n != 0 {
		if err := db.page(db.overflow, n); err != nil {
			return nil, err
		}
		length := int(db.order.Uint16(db.overflow[22:]))
		if db.overflow[25] != bdbOverflow || length == 0 || length > db.pageSize-bdbPageHead {
			return nil, fmt.Errorf("page %d, of type %d, doesn't go on with a header", n, db.overflow[25])
		}
		if int64(len(value)+length) > size {
			break
		}
		value = append(value, db.overflow[bdbPageHead:bdbPageHead+length]...)
		n = int64(db.order.Uint32(db.overflow[16:]))
	}
	if n != 0 || int64(len(value)) != size {
		return nil, fmt.Errorf("a header of %d bytes is longer or shorter", size)
	}
	return value, nil
}
