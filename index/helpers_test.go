package index

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tree"
)

// memInput is a tarInput over a tar in memory. It keeps what passes it in
// pieces, so that a test can put the tar together again.
type memInput struct {
	tar     []byte
	pos     int
	err     error     // at the end, instead of io.EOF
	pieces  []piece   // of the tar, in order
	objects [][]byte  // expanded contents, by index
	maps    []segment // of the last sparse file
}

// piece is a part of a tar: read, or consumed as content.
type piece struct {
	data     []byte
	external bool
}

func (m *memInput) Read(b []byte) (int, error) {
	if m.pos == len(m.tar) {
		if m.err != nil {
			return 0, m.err
		}
		return 0, io.EOF
	}
	n := copy(b, m.tar[m.pos:])
	m.take(n, false)
	return n, nil
}

func (m *memInput) External(size int64) (int, error) {
	if size <= InlineMax {
		return 0, fmt.Errorf("test: External with %d bytes", size)
	}
	return m.consume(size)
}

func (m *memInput) Sparse(stored int64, segments []segment, size int64) (int, []byte, error) {
	data, err := m.next(stored)
	if err != nil {
		return 0, nil, err
	}
	m.maps = slices.Clone(segments)
	file := make([]byte, size)
	for _, s := range segments {
		data = data[copy(file[s.Offset:s.Offset+s.Length], data):]
	}
	if len(data) > 0 {
		return 0, nil, fmt.Errorf("test: %d stored bytes in no segment", len(data))
	}
	if size <= InlineMax {
		return -1, file, nil
	}
	m.objects = append(m.objects, file)
	return len(m.objects) - 1, nil, nil
}

func (m *memInput) consume(size int64) (int, error) {
	data, err := m.next(size)
	if err != nil {
		return 0, err
	}
	m.objects = append(m.objects, data)
	return len(m.objects) - 1, nil
}

func (m *memInput) next(size int64) ([]byte, error) {
	if size > int64(len(m.tar)-m.pos) {
		m.take(len(m.tar)-m.pos, true)
		return nil, io.ErrUnexpectedEOF
	}
	return m.take(int(size), true), nil
}

func (m *memInput) take(n int, external bool) []byte {
	data := m.tar[m.pos : m.pos+n]
	m.pos += n
	if last := len(m.pieces) - 1; last >= 0 && m.pieces[last].external == external {
		m.pieces[last].data = m.tar[m.pos-n-len(m.pieces[last].data) : m.pos]
	} else {
		m.pieces = append(m.pieces, piece{data, external})
	}
	return data
}

// joined returns the pieces put together.
func (m *memInput) joined() []byte {
	var b []byte
	for _, p := range m.pieces {
		b = append(b, p.data...)
	}
	return b
}

// cloneEntry returns a copy of e that stays when the parser goes on.
func cloneEntry(e *Entry) Entry {
	c := *e
	c.Name, c.Link, c.Content = bytes.Clone(e.Name), bytes.Clone(e.Link), bytes.Clone(e.Content)
	c.Xattrs = nil
	for _, x := range e.Xattrs {
		c.Xattrs = append(c.Xattrs, tree.Xattr{Name: x.Name, Value: bytes.Clone(x.Value)})
	}
	slices.SortFunc(c.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// parseBytes parses a tar and returns its entries, with xattrs by name.
func parseBytes(b []byte, l Limits) ([]Entry, *memInput, tarReport, error) {
	in := &memInput{tar: b}
	var entries []Entry
	report, err := parseTar(in, l, func(e *Entry) error {
		entries = append(entries, cloneEntry(e))
		return nil
	})
	return entries, in, report, err
}

// mustParse is parseBytes for a tar that must be read without an error.
func mustParse(t testing.TB, b []byte) ([]Entry, *memInput) {
	t.Helper()
	entries, in, _, err := parseBytes(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return entries, in
}

// content returns the content of a regular file.
func (m *memInput) content(e Entry) []byte {
	if e.Object >= 0 {
		return m.objects[e.Object]
	}
	return e.Content
}

// tarBuilder builds a tar, block by block, also such as no tar program would.
type tarBuilder struct {
	buf     bytes.Buffer
	endless bool // no blocks at the end
}

// head is a header to be built; zero fields get what a plain file would have.
type head struct {
	typ    byte // '0' if zero
	name   string
	size   int64 // of content, if there is none here
	data   string
	mode   int64
	uid    int64
	gid    int64
	mtime  int64
	link   string
	major  int64
	minor  int64
	magic  string // "ustar\x0000" if empty
	prefix string
	// edit changes the block before, tail after the checksum is put in.
	edit, tail func(b []byte)
}

const magicGNU = "ustar  \x00"

// block returns the header block of h.
func (h head) block() []byte {
	b := make([]byte, tarBlock)
	put := func(f field, s string) { copy(b[f.off:f.end], s) }
	if h.typ == 0 {
		h.typ = typeFile
	}
	if h.magic == "" {
		h.magic = "ustar\x0000"
	}
	size := max(h.size, int64(len(h.data)))
	put(fieldName, h.name)
	put(fieldMode, octal(h.mode, 8))
	put(fieldUID, octal(h.uid, 8))
	put(fieldGID, octal(h.gid, 8))
	put(fieldSize, octal(size, 12))
	put(fieldMtime, octal(h.mtime, 12))
	b[offType] = h.typ
	put(fieldLink, h.link)
	put(fieldMagic, h.magic)
	if h.magic[0] == 'u' {
		put(fieldDevMajor, octal(h.major, 8))
		put(fieldDevMinor, octal(h.minor, 8))
	}
	put(fieldPrefix, h.prefix)
	if h.edit != nil {
		h.edit(b)
	}
	put(fieldChecksum, fmt.Sprintf("%06o\x00 ", (*tarHeader)(b).sum()))
	if h.tail != nil {
		h.tail(b)
	}
	return b
}

// octal formats n for a field of width bytes, or in base-256 if it doesn't fit.
func octal(n int64, width int) string {
	if s := strconv.FormatInt(n, 8); n >= 0 && len(s) < width {
		return strings.Repeat("0", width-1-len(s)) + s
	}
	return base256(n, width)
}

// base256 formats n in GNU's base-256.
func base256(n int64, width int) string {
	b := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	b[0] |= 0x80
	return string(b)
}

// add adds an entry: header, content, padding.
func (t *tarBuilder) add(h head) *tarBuilder { return t.raw(h.block()).padded(h.data) }

// raw adds b as it is.
func (t *tarBuilder) raw(b []byte) *tarBuilder {
	t.buf.Write(b)
	return t
}

// padded adds data and zeros up to a whole block.
func (t *tarBuilder) padded(data string) *tarBuilder {
	t.buf.WriteString(data)
	t.buf.Write(zeroBlock[:-len(data)&(tarBlock-1)])
	return t
}

// pax adds an extended header of records "key=value" for the next entry.
func (t *tarBuilder) pax(records ...string) *tarBuilder {
	return t.add(head{typ: typePAX, name: "PaxHeaders/x", data: paxRecords(records...)})
}

// global adds a global extended header.
func (t *tarBuilder) global(records ...string) *tarBuilder {
	return t.add(head{typ: typeGlobal, name: "PaxHeaders/g", data: paxRecords(records...)})
}

// cut makes the tar one that ends where it ends.
func (t *tarBuilder) cut() *tarBuilder {
	t.endless = true
	return t
}

// end returns the tar with the two zero blocks at its end.
func (t *tarBuilder) end() []byte {
	if t.endless {
		return t.bytes()
	}
	t.raw(zeroBlock[:]).raw(zeroBlock[:])
	return t.bytes()
}

// bytes returns the tar as it is.
func (t *tarBuilder) bytes() []byte { return bytes.Clone(t.buf.Bytes()) }

// paxRecords formats records "key=value" with their lengths before them.
func paxRecords(records ...string) string {
	var b strings.Builder
	for _, r := range records {
		n := len(r) + len(" \n")
		for len(strconv.Itoa(n))+len(r)+len(" \n") > n {
			n++
		}
		fmt.Fprintf(&b, "%d %s\n", n, r)
	}
	return b.String()
}
