package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

var errNegative = errors.New("number is negative")

// parseTar reads a tar by the rules of oci-1 and calls yield for each entry,
// with its content already consumed. The entry is only valid during the call.
// All of in is consumed, bytes behind the end of the archive too. Errors, also
// those of in and yield, are wrapped in an EntryError once an entry has begun.
func parseTar(in tarInput, l Limits, yield func(*Entry) error) (tarReport, error) {
	p := &tarParser{in: in, limits: l.withDefaults(), yield: yield}
	p.records.limits = &p.limits
	err := p.run()
	return p.report, err
}

// tarParser reads a tar. It owns the one Entry and all that this points to.
type tarParser struct {
	in     tarInput
	limits Limits
	yield  func(*Entry) error
	report tarReport

	pos     int64 // in the tar, in bytes
	start   int64 // of the header block being read
	padding int64 // behind the last content, not yet read
	content int64 // bytes of the files so far, expanded
	xattrs  int64 // bytes of the extended attributes so far

	headBuf  [2 * tarBlock]byte // padding and the header behind it
	block    [tarBlock]byte     // of a sparse map, or small content
	ext      extension
	pax      paxState
	records  paxParser
	segments []segment

	entry   Entry
	rawName []byte // backs the names that a header alone gives
	name    []byte // backs entry.Name
	link    []byte // backs entry.Link
}

// extKind is a kind of extension header that says something about one entry.
type extKind uint8

const (
	extPAX extKind = iota
	extLongName
	extLongLink
	numExtKinds
)

// extension holds the extension headers read for the entry to come. The buffers
// are apart, since all of them are in use until it is yielded.
type extension struct {
	seen     [numExtKinds]bool
	pax      []byte
	longName []byte
	longLink []byte
}

// any reports whether an entry must follow.
func (x *extension) any() bool { return x.seen != [numExtKinds]bool{} }

// run reads all of the tar.
func (p *tarParser) run() error {
	for {
		h, err := p.nextHeader()
		if err == nil && h != nil {
			err = p.handle(h)
		}
		if err == nil && h == nil && p.ext.any() {
			err = errors.New("extension header without an entry behind it")
		}
		if err != nil {
			return p.entryError(err)
		}
		if h == nil {
			return nil
		}
	}
}

// entryError adds the place in the tar to err.
func (p *tarParser) entryError(err error) error {
	return &EntryError{Index: p.report.Entries + 1, Name: string(p.entry.Name), Offset: p.start, Err: err}
}

// nextHeader reads the next header block, with the padding before it, or, at the
// end of the archive, all that follows, and returns nil then.
func (p *tarParser) nextHeader() (*tarHeader, error) {
	p.start = p.pos + p.padding
	padding := int(p.padding)
	p.padding = 0
	n, err := p.fill(p.headBuf[:padding+tarBlock])
	if err != nil {
		return nil, err
	}
	if err := p.checkLayer(p.pos); err != nil {
		return nil, err
	}
	b := p.headBuf[min(n, padding):n]
	switch {
	case len(b) < tarBlock:
		// Without padding or end the archive is still whole, but a part of a
		// header means that it isn't. Zeros are part of the end.
		return nil, needZeros(b, "header")
	case b[0] != 0 || !bytes.Equal(b, zeroBlock[:]):
		h := (*tarHeader)(b)
		return h, h.verify()
	}
	return nil, p.readEnd()
}

// readEnd reads what follows the first zero block. Two are the end of an
// archive. After only one GNU tar goes on reading and others stop, so with
// anything but the end of the input behind it it is an error.
func (p *tarParser) readEnd() error {
	n, err := p.fill(p.block[:])
	if err != nil {
		return err
	}
	if !bytes.Equal(p.block[:n], zeroBlock[:n]) {
		return errors.New("a single zero block, and more behind it: the end of an archive is two")
	}
	if n < tarBlock {
		return nil
	}
	return p.drain()
}

// drain reads up to the end of the input: what is behind the archive belongs to
// the layer, since its diffID covers it.
func (p *tarParser) drain() error {
	buf := make([]byte, 32<<10)
	for {
		n, err := p.fill(buf)
		if err != nil {
			return err
		}
		if err := p.checkLayer(p.pos); err != nil {
			return err
		}
		if n < len(buf) {
			return nil
		}
	}
}

// fill reads len(b) bytes, or fewer at the end of the input only. io.ReadFull
// would not do: it can't tell the end of the input from a compressed stream cut
// short, which gives io.ErrUnexpectedEOF too.
func (p *tarParser) fill(b []byte) (int, error) {
	n, empty := 0, 0
	for n < len(b) {
		m, err := p.in.Read(b[n:])
		n += m
		p.pos += int64(m)
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, fmt.Errorf("read tar: %w", err)
		}
		if empty++; m > 0 {
			empty = 0
		} else if empty == 100 {
			return n, fmt.Errorf("read tar: %w", io.ErrNoProgress)
		}
	}
	return n, nil
}

// readAll fills b, or fails naming what it was to hold.
func (p *tarParser) readAll(b []byte, what string) error {
	n, err := p.fill(b)
	if err == nil && n < len(b) {
		err = fmt.Errorf("the tar ends inside the %s: %w", what, io.ErrUnexpectedEOF)
	}
	return err
}

// needZeros accepts the input's end after b only if b has nothing but zeros.
func needZeros(b []byte, what string) error {
	if bytes.Equal(b, zeroBlock[:len(b)]) {
		return nil
	}
	return fmt.Errorf("the tar ends inside the %s: %w", what, io.ErrUnexpectedEOF)
}

// setPadding notes that size bytes of content have been consumed.
func (p *tarParser) setPadding(size int64) { p.padding = -size & (tarBlock - 1) }

// handle reads what belongs to a header.
func (p *tarParser) handle(h *tarHeader) error {
	switch h[offType] {
	case typePAX:
		return p.readPAX(h)
	case typeLongName:
		return p.readLong(h, extLongName, &p.ext.longName)
	case typeLongLink:
		return p.readLong(h, extLongLink, &p.ext.longLink)
	case typeGlobal:
		return p.readGlobal(h)
	}
	if err := p.readEntry(h); err != nil {
		return err
	}
	if err := p.yield(&p.entry); err != nil {
		return err
	}
	p.report.Entries++
	p.ext.seen = [numExtKinds]bool{}
	p.pax.local.reset()
	p.entry.Name = nil
	return nil
}

// readPAX reads an extended header for the next entry.
func (p *tarParser) readPAX(h *tarHeader) error {
	if err := p.readExtension(h, extPAX, &p.ext.pax); err != nil {
		return err
	}
	return p.records.parse(&p.pax.local, p.ext.pax)
}

// readLong reads a GNU long name or link target: a C string in the content.
func (p *tarParser) readLong(h *tarHeader, kind extKind, buf *[]byte) error {
	if err := p.readExtension(h, kind, buf); err != nil {
		return err
	}
	*buf = bytes.TrimRight(*buf, "\x00")
	switch {
	case len(*buf) == 0:
		return fmt.Errorf("GNU long name (type %q) is empty", h[offType])
	case bytes.IndexByte(*buf, 0) >= 0:
		return fmt.Errorf("GNU long name (type %q) has a NUL byte", h[offType])
	}
	return nil
}

// readGlobal reads a global extended header: defaults for what follows. Readers
// that do not know global headers lose nothing but these, unless they say where
// the next header is. Between an extended header and its entry readers disagree
// to which the first one then belongs.
func (p *tarParser) readGlobal(h *tarHeader) error {
	if p.ext.any() {
		return errors.New("global header between an extension header and its entry")
	}
	if err := p.readBody(h, &p.ext.pax); err != nil {
		return err
	}
	var records paxHeader
	if err := p.records.parse(&records, p.ext.pax); err != nil {
		return err
	}
	if records.framing() {
		p.report.Inexact = true
	}
	p.pax.addGlobal(&records)
	return p.records.checkXattrCount(p.pax.global.xattrs)
}

// readExtension reads the content of an extension header, of which an entry may
// have one of each kind: which of two holds, readers do not agree on.
func (p *tarParser) readExtension(h *tarHeader, kind extKind, buf *[]byte) error {
	if p.ext.seen[kind] {
		return fmt.Errorf("two extension headers of type %q for one entry", h[offType])
	}
	p.ext.seen[kind] = true
	return p.readBody(h, buf)
}

// readBody reads the content of an extension header into buf. The memory grows
// with what is really there.
func (p *tarParser) readBody(h *tarHeader, buf *[]byte) error {
	if h.format() == formatV7 {
		p.report.Inexact = true // its types are not v7's: some readers say "file"
	}
	size, err := parseSize(h)
	if err != nil {
		return err
	}
	if err := checkLimit("bytes of an extension header", size, p.limits.MaxPAXBytes, "--max-pax-bytes"); err != nil {
		return err
	}
	b := (*buf)[:0]
	for left := size; left > 0; {
		n := int(min(left, 64<<10))
		b = slices.Grow(b, n)[:len(b)+n]
		if err := p.readAll(b[len(b)-n:], "extension header"); err != nil {
			return err
		}
		left -= int64(n)
	}
	*buf = b
	p.setPadding(size)
	return nil
}

// parseSize reads the size field.
func parseSize(h *tarHeader) (int64, error) {
	size, err := parseNumber(h.bytes(fieldSize))
	if err == nil && size < 0 {
		err = errNegative
	}
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return size, nil
}
