package index

import (
	"errors"
	"fmt"
)

// sparseForm is the way in which an entry stores a sparse file.
type sparseForm uint8

const (
	notSparse sparseForm = iota
	sparseOld            // type S: map in the header and in blocks behind it
	sparse0              // PAX 0.0 and 0.1: map in the records
	sparse1              // PAX 1.0: map as text before the content
)

// Layout of old GNU sparse maps: a header has four segments of an offset and a
// length, 12 bytes each, a block behind it 21. A byte after them says whether
// one more block comes.
const (
	offSparseMap   = 386
	lenSparseMap   = 4 * lenOldSegment
	lenOldSegment  = 24
	lenExtendedMap = 21 * lenOldSegment
)

// sparseForm tells how a file entry of type typ stores its content.
func (s *paxState) sparseForm(typ byte) (sparseForm, error) {
	form, err := s.sparseVersion()
	switch {
	case typ != typeSparse || err != nil:
		return form, err
	case form != notSparse:
		return form, errors.New("GNU.sparse records on an old GNU sparse file: two maps")
	}
	return sparseOld, nil
}

// sparseVersion tells the PAX sparse format. Version 0 needn't say that it is.
func (s *paxState) sparseVersion() (sparseForm, error) {
	major, minor := s.value(paxSparseMajor), s.value(paxSparseMinor)
	switch version := string(major) + "." + string(minor); {
	case version == "1.0":
		return sparse1, nil
	case version == "0.0" || version == "0.1":
		return sparse0, nil
	case version != ".":
		return notSparse, fmt.Errorf("unknown sparse format %.16q", version)
	}
	for _, k := range []paxKey{paxSparseCount, paxSparseMap, paxSparseSize, paxSparseRealSize} {
		if s.value(k) != nil {
			return sparse0, nil
		}
	}
	if len(s.points()) > 0 {
		return sparse0, nil
	}
	return notSparse, nil
}

// sparseSize returns the expanded size that the records give.
func (s *paxState) sparseSize() (int64, error) {
	value := s.value(paxSparseSize)
	if value == nil {
		value = s.value(paxSparseRealSize)
	}
	if value == nil {
		return 0, errors.New("sparse file without a GNU.sparse.size or GNU.sparse.realsize record")
	}
	size, err := parseDecimal(value)
	if err != nil {
		return 0, fmt.Errorf("expanded size of a sparse file: %w", err)
	}
	return size, nil
}

// appendSparse0 appends the segments of a version 0 map to m.
func (s *paxState) appendSparse0(m []segment) ([]segment, error) {
	count, err := parseDecimal(s.value(paxSparseCount))
	if err != nil {
		return m, fmt.Errorf("GNU.sparse.numblocks: %w", err)
	}
	text, points := s.value(paxSparseMap), s.points()
	if text != nil {
		if len(points) > 0 {
			return m, errors.New("sparse file with two maps")
		}
		if points, err = parseSparseMap(text); err != nil {
			return m, err
		}
	}
	if count != int64(len(points)/2) || len(points)%2 != 0 {
		return m, fmt.Errorf("sparse map has %d numbers, not 2 for each of %d segments", len(points), count)
	}
	for i := 0; i < len(points); i += 2 {
		m = append(m, segment{points[i], points[i+1]})
	}
	return m, nil
}

// parseSparseMap reads the map of version 0.1, numbers with commas between.
func parseSparseMap(text []byte) ([]int64, error) {
	var points []int64
	for start, i := 0, 0; i <= len(text); i++ {
		if i < len(text) && text[i] != ',' {
			continue
		}
		n, err := parseDecimal(text[start:i])
		if err != nil {
			return nil, fmt.Errorf("GNU.sparse.map: %w", err)
		}
		points = append(points, n)
		start = i + 1
	}
	return points, nil
}

// appendOldSegments appends the segments in b, as many as it has room for and
// one byte, to m; more tells that another block follows. As in GNU tar and
// others a segment whose offset is not there is the last of its block.
func appendOldSegments(m []segment, b []byte) (_ []segment, more bool, err error) {
	last := len(b) - 1
	for i := 0; i < last && b[i] != 0; i += lenOldSegment {
		offset, err := parseNumber(b[i : i+lenOldSegment/2])
		if err != nil {
			return m, false, fmt.Errorf("sparse map: offset: %w", err)
		}
		length, err := parseNumber(b[i+lenOldSegment/2 : i+lenOldSegment])
		if err != nil {
			return m, false, fmt.Errorf("sparse map: length: %w", err)
		}
		m = append(m, segment{offset, length})
	}
	return m, b[last] != 0, nil
}

// checkSegments checks that the segments of m are in order, do not overlap, lie
// within size and have stored bytes together. It returns m without the empty
// ones; GNU tar ends its maps with one such.
func checkSegments(m []segment, stored, size int64) ([]segment, error) {
	var end, sum int64
	kept := m[:0]
	for i, s := range m {
		switch {
		case s.Offset < 0 || s.Length < 0:
			return nil, fmt.Errorf("sparse map: segment %d has a negative number", i)
		case s.Offset < end:
			return nil, fmt.Errorf("sparse map: segment %d begins at %d, before the end of the one before it, %d", i, s.Offset, end)
		case s.Offset > size || s.Length > size-s.Offset:
			return nil, fmt.Errorf("sparse map: segment %d, %d bytes at %d, is past the end of the file, %d", i, s.Length, s.Offset, size)
		}
		end = s.Offset + s.Length
		sum += s.Length
		if s.Length > 0 {
			kept = append(kept, s)
		}
	}
	if sum != stored {
		return nil, fmt.Errorf("sparse map: segments have %d bytes, but %d are stored", sum, stored)
	}
	return kept, nil
}

// readSparse reads the content of a sparse file, of which the archive has stored
// bytes, a map of version 1.0 included.
func (p *tarParser) readSparse(form sparseForm, h *tarHeader, stored int64) error {
	size, err := p.sparseMap(form, h, &stored)
	if err != nil {
		return err
	}
	if p.segments, err = checkSegments(p.segments, stored, size); err != nil {
		return err
	}
	p.entry.Size = size
	p.report.Sparse = true
	if size == 0 {
		return nil
	}
	p.entry.Object, p.entry.Content, err = p.in.Sparse(stored, p.segments, size)
	if err != nil {
		return fmt.Errorf("read content: %w", err)
	}
	p.pos += stored
	return nil
}

// sparseMap reads the map into p.segments and returns the expanded size. What
// the map itself takes of the stored bytes is subtracted. The size is checked
// first, since it costs the writer nothing to claim it.
func (p *tarParser) sparseMap(form sparseForm, h *tarHeader, stored *int64) (size int64, err error) {
	if form == sparseOld {
		size, err = oldSparseSize(h)
	} else {
		size, err = p.pax.sparseSize()
	}
	if err != nil {
		return 0, err
	}
	if err := p.checkContent(size); err != nil {
		return 0, err
	}
	p.segments = p.segments[:0]
	switch form {
	case sparseOld:
		err = p.readOldMap(h)
	case sparse0:
		p.segments, err = p.pax.appendSparse0(p.segments)
	case sparse1:
		err = p.readTextMap(stored)
	}
	return size, err
}

// oldSparseSize returns the expanded size of an old GNU sparse file.
func oldSparseSize(h *tarHeader) (int64, error) {
	if h.format() != formatGNU { // star's header of this type has other fields
		return 0, errors.New("sparse file (type 'S') in a header that is not GNU's")
	}
	size, err := parseNumber(h.bytes(fieldRealSize))
	if err == nil && size < 0 {
		err = errNegative
	}
	if err != nil {
		return 0, fmt.Errorf("expanded size of a sparse file: %w", err)
	}
	return size, nil
}

// readOldMap reads the map of an old GNU sparse file.
func (p *tarParser) readOldMap(h *tarHeader) error {
	m, more, err := appendOldSegments(p.segments, h[offSparseMap:offSparseMap+lenSparseMap+1])
	for n := int64(tarBlock); more && err == nil; n += tarBlock {
		if err := p.checkMapSize(n); err != nil {
			return err
		}
		if err := p.readAll(p.block[:], "sparse map"); err != nil {
			return err
		}
		m, more, err = appendOldSegments(m, p.block[:lenExtendedMap+1])
	}
	p.segments = m
	return err
}

func (p *tarParser) checkMapSize(n int64) error {
	return checkLimit("bytes of a sparse map", n, p.limits.MaxPAXBytes, "--max-pax-bytes")
}

// readTextMap reads the map of version 1.0: lines of one decimal number each,
// of which the first counts the segments, padded to whole blocks.
func (p *tarParser) readTextMap(stored *int64) error {
	r := textMap{p: p, left: *stored}
	count, err := r.number()
	if err != nil {
		return err
	}
	if count > *stored/4 { // "0\n0\n" is the least that a segment takes
		return fmt.Errorf("sparse map: %d segments don't fit the %d bytes of the entry", count, *stored)
	}
	for range count {
		var s segment
		if s.Offset, err = r.number(); err != nil {
			return err
		}
		if s.Length, err = r.number(); err != nil {
			return err
		}
		p.segments = append(p.segments, s)
	}
	*stored = r.left
	return nil
}

// textMap reads the numbers of a version 1.0 map, no block further than needed.
type textMap struct {
	p    *tarParser
	left int64  // bytes of the entry's content not yet read
	read int64  // bytes of the map read
	rest []byte // of the last block
}

// number reads a number and the newline behind it.
func (r *textMap) number() (int64, error) {
	var digits [20]byte // enough for 64 bits
	for i := range digits {
		if len(r.rest) == 0 {
			if err := r.next(); err != nil {
				return 0, err
			}
		}
		digits[i], r.rest = r.rest[0], r.rest[1:]
		if digits[i] != '\n' {
			continue
		}
		n, err := parseDecimal(digits[:i])
		if err != nil {
			return 0, fmt.Errorf("sparse map: %w", err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("sparse map: %q is no line with a number", digits)
}

// next reads the next block of the map.
func (r *textMap) next() error {
	if r.left < tarBlock {
		return errors.New("sparse map goes on past the end of the entry")
	}
	r.read += tarBlock
	if err := r.p.checkMapSize(r.read); err != nil {
		return err
	}
	r.left -= tarBlock
	r.rest = r.p.block[:]
	return r.p.readAll(r.rest, "sparse map")
}
