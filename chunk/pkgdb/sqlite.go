package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// A file of SQLite has pages of one size. A table is a B-tree of them: inner pages lead to others, leaves have cells, and a
// cell has a row, whose rest, if it is long, is in a list of pages of its own, the overflow pages. Page 1 begins with the
// file's header, and with the root of a table that has all tables' names and roots. All numbers are big-endian.
// https://www.sqlite.org/fileformat2.html is what describes it.
const (
	sqliteMagic  = "SQLite format 3\x00"
	sqliteHeader = 100 // bytes

	sqliteInner     = 5  // type of a page
	sqliteLeaf      = 13 // type of a page
	sqliteInnerHead = 12 // bytes before the list of cells
	sqliteLeafHead  = 8  // bytes before the list of cells

	// sqliteDepth bounds the levels of a table. Each inner page leads to two at least, and there are 2³² of them.
	sqliteDepth = 32
	// sqliteTable is where rpm has all headers (lib/backend/sqlite.c):
	//
	//	CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)
	sqliteTable = "Packages"
	// journalMagic begins a rollback journal that counts.
	journalMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
)

// sqlite is a file of that format, with what its write-ahead log adds.
type sqlite struct {
	main     *file
	log      *wal
	pageSize int
	usable   int // bytes of a page
	seen     map[uint32]bool
	left     int64 // bytes that rows may still have
	levels   [][]byte
	overflow []byte
}

func readSQLite(t *tree, name string, f *file, yield func(header []byte) error) error {
	if err := checkJournal(t, name); err != nil {
		return err
	}
	logFile, err := t.openFile(name + "-wal")
	if err != nil {
		return err
	}
	if logFile == nil {
		return readTable(f, nil, yield)
	}
	defer logFile.close()
	return readTable(f, logFile, yield)
}

// checkJournal refuses a database that an earlier state should be restored of, as nobody but SQLite can.
func checkJournal(t *tree, name string) error {
	f, err := t.openFile(name + "-journal")
	if err != nil || f == nil {
		return err
	}
	defer f.close()
	var b [len(journalMagic)]byte
	if f.size < int64(len(b)) {
		return nil
	}
	if err := f.at(b[:], 0); err != nil {
		return err
	}
	if string(b[:]) == journalMagic {
		return errors.New("beside it is the journal of a change that was broken off; let `rpm --rebuilddb` go back first")
	}
	return nil
}

// readTable calls yield for each header.
func readTable(f, logFile *file, yield func(header []byte) error) error {
	db, err := openSQLite(f, logFile)
	if err != nil {
		return err
	}
	root, err := db.findTable()
	if err != nil || root == 0 {
		return err
	}
	return db.walk(root, 0, func(row []byte) error {
		pair, err := columns(row, 2) // number, header
		if err != nil {
			return err
		}
		if kind := pair[1].kind; kind < serialBlob || kind%2 != 0 {
			return fmt.Errorf("its header is no BLOB but of type %d", kind)
		}
		return yield(pair[1].bytes)
	})
}

func openSQLite(f, logFile *file) (*sqlite, error) {
	var b [sqliteHeader]byte
	if err := f.at(b[:], 0); err != nil {
		return nil, err
	}
	if string(b[:len(sqliteMagic)]) != sqliteMagic {
		return nil, errors.New("it has not the beginning of an SQLite database, version 3")
	}
	size := int(binary.BigEndian.Uint16(b[16:]))
	if size == 1 {
		size = 64 << 10
	}
	usable := size - int(b[20])
	if bits.OnesCount(uint(size)) != 1 || size < 512 || usable < 480 {
		return nil, fmt.Errorf("pages of %d bytes, of which %d can be used", size, usable)
	}
	db := &sqlite{main: f, pageSize: size, usable: usable, seen: map[uint32]bool{}, left: f.size, overflow: make([]byte, size)}
	if logFile == nil {
		return db, nil
	}
	var err error
	if db.log, err = readWAL(logFile, size); err != nil {
		return nil, fmt.Errorf("its write-ahead log: %w", err)
	}
	db.left += logFile.size
	return db, nil
}

// page reads a page, as the log has it or else the file.
func (db *sqlite) page(b []byte, n uint32) error {
	if off, ok := db.log.find(n); ok {
		return db.log.at(b, off)
	}
	return db.main.at(b, (int64(n)-1)*int64(db.pageSize))
}

// findTable is the root of the table with the headers. It is 0 if there is none, as in a database that was only just made.
func (db *sqlite) findTable() (root uint32, err error) {
	err = db.walk(1, 0, func(row []byte) error {
		table, err := columns(row, 4) // type, name, name of the table, root
		if err == nil && string(table[0].bytes) == "table" && string(table[1].bytes) == sqliteTable {
			root, err = rootNumber(table[3].bytes)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("names of tables: %w", err)
	}
	return root, nil
}

// rootNumber is the number of a page.
func rootNumber(b []byte) (n uint32, err error) {
	if len(b) > 4 || len(b) == 0 {
		return 0, fmt.Errorf("the root of table %s has %d bytes", sqliteTable, len(b))
	}
	for _, c := range b {
		n = n<<8 | uint32(c)
	}
	return n, nil
}

// level is a buffer for a page of a level.
func (db *sqlite) level(depth int) []byte {
	if depth == len(db.levels) {
		db.levels = append(db.levels, make([]byte, db.pageSize))
	}
	return db.levels[depth]
}

// walk calls yield for each row below a page. The row is only valid during the call.
func (db *sqlite) walk(n uint32, depth int, yield func(row []byte) error) error {
	if depth == sqliteDepth || db.seen[n] {
		return fmt.Errorf("page %d is in a table twice, or %d levels deep", n, depth)
	}
	db.seen[n] = true
	page := db.level(depth)
	if err := db.page(page, n); err != nil {
		return fmt.Errorf("page %d: %w", n, err)
	}
	head := 0
	if n == 1 {
		head = sqliteHeader
	}
	switch count := int(binary.BigEndian.Uint16(page[head+3:])); page[head] {
	case sqliteInner:
		return db.inner(page, head, count, func(child uint32) error { return db.walk(child, depth+1, yield) })
	case sqliteLeaf:
		if err := db.leaf(page, head, count, yield); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		return nil
	}
	return fmt.Errorf("page %d has type %d, and is no part of a table", n, page[head])
}

// inner calls yield for each page that an inner one leads to.
func (db *sqlite) inner(page []byte, head, count int, yield func(child uint32) error) error {
	for i := range count {
		cell, err := db.cell(page, head+sqliteInnerHead, i)
		if err != nil {
			return err
		}
		if len(cell) < 4 {
			return errors.New("a cell of less than four bytes")
		}
		if err := yield(binary.BigEndian.Uint32(cell)); err != nil {
			return err
		}
	}
	return yield(binary.BigEndian.Uint32(page[head+8:]))
}

// leaf calls yield for each row of a leaf.
func (db *sqlite) leaf(page []byte, head, count int, yield func(row []byte) error) error {
	for i := range count {
		cell, err := db.cell(page, head+sqliteLeafHead, i)
		if err == nil {
			cell, err = db.row(cell)
		}
		if err == nil {
			err = yield(cell)
		}
		if err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

// cell is the i-th of a page, from its first byte to the end of the page. list is where the offsets of cells are.
func (db *sqlite) cell(page []byte, list, i int) ([]byte, error) {
	if list+2*i+2 > db.usable {
		return nil, fmt.Errorf("there can't be a cell %d", i)
	}
	off := int(binary.BigEndian.Uint16(page[list+2*i:]))
	if off >= db.usable {
		return nil, fmt.Errorf("cell %d is at %d", i, off)
	}
	return page[off:db.usable], nil
}

// row is the row in a cell of a leaf: its length and its number come first, and as much of it as belongs on the page.
func (db *sqlite) row(cell []byte) ([]byte, error) {
	size, cell, ok := varint(cell)
	_, cell, ok2 := varint(cell)
	if !ok || !ok2 || size > maxHeader {
		return nil, fmt.Errorf("a length of %d", size)
	}
	if err := claim(&db.left, int64(size)); err != nil {
		return nil, err
	}
	local := db.local(int(size))
	if local == int(size) && local <= len(cell) {
		return cell[:local], nil
	}
	if local+4 > len(cell) {
		return nil, fmt.Errorf("%d of %d bytes are behind the end of the page", local, size)
	}
	row := append(make([]byte, 0, size), cell[:local]...)
	return db.rest(row, int(size), binary.BigEndian.Uint32(cell[local:]))
}

// local is how many bytes of a row are in the leaf, by section 1.6 of the format's description.
func (db *sqlite) local(size int) int {
	most, least := db.usable-35, (db.usable-12)*32/255-23
	if size <= most {
		return size
	}
	if n := least + (size-least)%(db.usable-4); n <= most {
		return n
	}
	return least
}

// rest adds to a row what overflow pages have of it. Each begins with the number of the next.
func (db *sqlite) rest(row []byte, size int, n uint32) ([]byte, error) {
	for len(row) < size {
		if err := db.page(db.overflow, n); err != nil {
			return nil, fmt.Errorf("page %d: %w", n, err)
		}
		row = append(row, db.overflow[4:][:min(size-len(row), db.usable-4)]...)
		n = binary.BigEndian.Uint32(db.overflow)
	}
	if n != 0 {
		return nil, fmt.Errorf("page %d goes on behind the end", n)
	}
	return row, nil
}

// Types of values in a row: 1 to 6 are whole numbers, 7 is a float, 8 and 9 are 0 and 1, and from 12 on even ones are BLOBs
// and odd ones texts, of half as many bytes as they are above 12 or 13.
const (
	serialReserved = 10
	serialBlob     = 12
)

// serialSize is how many bytes a value of a type has.
func serialSize(kind uint64) uint64 {
	if kind >= serialBlob {
		return (kind - serialBlob) / 2
	}
	return uint64([serialBlob]uint8{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0}[kind])
}

// value is one of a row.
type value struct {
	kind  uint64
	bytes []byte
}

// columns are the first n values of a row: types come first, and then the values.
func columns(row []byte, n int) ([]value, error) {
	size, types, ok := varint(row)
	if !ok || size > uint64(len(row)) || size < uint64(len(row)-len(types)) {
		return nil, errors.New("its list of types is longer than the row")
	}
	types, rest := row[len(row)-len(types):size], row[size:]
	values := make([]value, n)
	for i := range values {
		v := &values[i]
		if v.kind, types, ok = varint(types); !ok || v.kind == serialReserved || v.kind == serialReserved+1 {
			return nil, errors.New("it has too few values, or one of an unknown type")
		}
		size := serialSize(v.kind)
		if size > uint64(len(rest)) {
			return nil, fmt.Errorf("a value of %d bytes, of which there are %d", size, len(rest))
		}
		v.bytes, rest = rest[:size], rest[size:]
	}
	return values, nil
}

// varint cuts off a number of one to nine bytes: seven bits each, but eight of the ninth.
func varint(b []byte) (n uint64, rest []byte, ok bool) {
	const longest = 9
	for i, c := range b[:min(len(b), longest)] {
		if i == longest-1 {
			return n<<8 | uint64(c), b[longest:], true
		}
		n = n<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}
