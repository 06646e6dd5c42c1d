package index

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/flatroot/flatroot/tree"
)

// paxKey is a record that oci-1 reads, but for extended attributes and the
// sparse points, which may come more than once.
type paxKey uint8

const (
	paxPath paxKey = iota
	paxLinkpath
	paxSize
	paxUID
	paxGID
	paxMtime
	paxSparseMajor
	paxSparseMinor
	paxSparseName
	paxSparseSize     // expanded size, of versions 0.0 and 0.1
	paxSparseRealSize // expanded size, of version 1.0
	paxSparseCount
	paxSparseMap
	numPAXKeys
)

// paxKeyOf returns the key called name.
func paxKeyOf(name []byte) (paxKey, bool) {
	switch string(name) {
	case "path":
		return paxPath, true
	case "linkpath":
		return paxLinkpath, true
	case "size":
		return paxSize, true
	case "uid":
		return paxUID, true
	case "gid":
		return paxGID, true
	case "mtime":
		return paxMtime, true
	case "GNU.sparse.major":
		return paxSparseMajor, true
	case "GNU.sparse.minor":
		return paxSparseMinor, true
	case "GNU.sparse.name":
		return paxSparseName, true
	case "GNU.sparse.size":
		return paxSparseSize, true
	case "GNU.sparse.realsize":
		return paxSparseRealSize, true
	case "GNU.sparse.numblocks":
		return paxSparseCount, true
	case "GNU.sparse.map":
		return paxSparseMap, true
	}
	return 0, false
}

// Records that may come more than once in a header.
const (
	paxSparseOffset = "GNU.sparse.offset"
	paxSparseLength = "GNU.sparse.numbytes"
	paxXattrPrefix  = "SCHILY.xattr."
)

// Limits of Linux for one extended attribute, in bytes. The kernel takes values
// of one byte more, which the image's 16-bit size can't tell.
const (
	maxXattrName  = 255
	maxXattrValue = 65535
)

// paxHeader holds the records of an extended header, or of all global ones so
// far. Its slices point into what was parsed.
type paxHeader struct {
	values [numPAXKeys][]byte
	// named has a bit for each key that was there, be it to take it back.
	named uint32
	// xattrs has a nil value for what was taken back.
	xattrs []tree.Xattr
	// points is the sparse map of version 0.0: offsets and lengths by turns.
	points []int64
}

// reset forgets all records but keeps the memory.
func (h *paxHeader) reset() {
	h.named = 0
	h.xattrs = h.xattrs[:0]
	h.points = h.points[:0]
}

// has reports whether the header speaks of key.
func (h *paxHeader) has(key paxKey) bool { return h.named>>key&1 != 0 }

// paxParser parses extended headers.
type paxParser struct {
	limits *Limits
	// names holds the names of extended attributes seen before, since an entry
	// usually has the same ones as the entry before it.
	names map[string]string
}

// parse adds the records in b to h. Later records win over earlier ones.
func (p *paxParser) parse(h *paxHeader, b []byte) error {
	for len(b) > 0 {
		key, value, rest, err := nextRecord(b)
		if err != nil {
			return err
		}
		if err := p.add(h, key, value); err != nil {
			return fmt.Errorf("record %.64q: %w", key, err)
		}
		b = rest
	}
	if len(h.points)%2 != 0 {
		return fmt.Errorf("the last %s has no %s", paxSparseOffset, paxSparseLength)
	}
	return nil
}

// nextRecord cuts the first record, "LENGTH KEY=VALUE\n" with the length of all
// of it in bytes, from b.
func nextRecord(b []byte) (key, value, rest []byte, err error) {
	n, digits := 0, 0
	for digits < len(b) && isDigit(b[digits]) && n <= len(b) {
		n = n*10 + int(b[digits]-'0')
		digits++
	}
	switch {
	case digits == 0 || digits == len(b) || b[digits] != ' ' && n <= len(b):
		return nil, nil, nil, errors.New("extended header: a record does not begin with its length and a space")
	case n > len(b):
		return nil, nil, nil, errors.New("extended header: a record is longer than what is left of the header")
	case n < digits+len(" k=\n") || b[n-1] != '\n':
		return nil, nil, nil, fmt.Errorf("extended header: a record of %d bytes does not end in a newline", n)
	}
	record := b[digits+1 : n-1]
	i := bytes.IndexByte(record, '=')
	if i <= 0 {
		return nil, nil, nil, errors.New("extended header: a record has no key")
	}
	return record[:i], record[i+1:], b[n:], nil
}

func isDigit(c byte) bool { return c-'0' < 10 }

// add adds one record to h. An empty value takes the record back.
func (p *paxParser) add(h *paxHeader, key, value []byte) error {
	if bytes.IndexByte(key, 0) >= 0 {
		return errors.New("key has a NUL byte")
	}
	if k, ok := paxKeyOf(key); ok {
		return h.set(k, value)
	}
	if name, ok := bytes.CutPrefix(key, []byte(paxXattrPrefix)); ok {
		return p.addXattr(h, name, value)
	}
	switch string(key) {
	case paxSparseOffset:
		return h.addPoint(0, value)
	case paxSparseLength:
		return h.addPoint(1, value)
	}
	return nil // of no use for a tree: comment, atime, uname, ...
}

// set sets the value of a key.
func (h *paxHeader) set(k paxKey, value []byte) error {
	switch k {
	case paxPath, paxLinkpath, paxSparseName:
		if bytes.IndexByte(value, 0) >= 0 {
			return errors.New("value has a NUL byte")
		}
	}
	if len(value) == 0 {
		value = nil
	}
	h.named |= 1 << k
	h.values[k] = value
	return nil
}

// addPoint adds an offset (turn 0) or a length (turn 1) to the sparse map.
func (h *paxHeader) addPoint(turn int, value []byte) error {
	if len(h.points)%2 != turn {
		return fmt.Errorf("%s and %s do not come by turns", paxSparseOffset, paxSparseLength)
	}
	n, err := parseDecimal(value)
	if err != nil {
		return err
	}
	h.points = append(h.points, n)
	return nil
}

// addXattr adds an extended attribute.
func (p *paxParser) addXattr(h *paxHeader, name, value []byte) error {
	switch {
	case len(name) == 0:
		return errors.New("extended attribute without a name")
	case len(name) > maxXattrName:
		return fmt.Errorf("name of the extended attribute has %d bytes, more than %d", len(name), maxXattrName)
	case len(value) > maxXattrValue:
		return fmt.Errorf("value of the extended attribute has %d bytes, more than %d", len(value), maxXattrValue)
	case len(value) == 0:
		value = nil
	}
	h.xattrs = setXattr(h.xattrs, p.intern(name), value)
	return p.checkXattrCount(h.xattrs)
}

// checkXattrCount checks the limit on a list that still may have taken-back
// attributes: searching it for each record must not take long.
func (p *paxParser) checkXattrCount(xs []tree.Xattr) error {
	return checkLimit("extended attributes of one entry", int64(len(xs)), p.limits.MaxXattrs, "--max-xattrs")
}

// setXattr sets the value of name in xs.
func setXattr(xs []tree.Xattr, name string, value []byte) []tree.Xattr {
	for i := range xs {
		if xs[i].Name == name {
			xs[i].Value = value
			return xs
		}
	}
	return append(xs, tree.Xattr{Name: name, Value: value})
}

// maxInterned bounds the table of names; a layer has a handful, a hostile one
// as many as it likes.
const maxInterned = 256

// intern returns name as a string, without making a new one for each entry.
func (p *paxParser) intern(name []byte) string {
	if s, ok := p.names[string(name)]; ok {
		return s
	}
	s := string(name)
	if p.names == nil {
		p.names = make(map[string]string)
	}
	if len(p.names) < maxInterned {
		p.names[s] = s
	}
	return s
}

// paxState is what extended headers say about the entry to come.
type paxState struct {
	local  paxHeader // of this entry
	global paxHeader // defaults, owned: nothing points into a buffer
}

// value returns the value of key, or nil if there is none.
func (s *paxState) value(key paxKey) []byte {
	if s.local.has(key) {
		return s.local.values[key]
	}
	if s.global.has(key) {
		return s.global.values[key]
	}
	return nil
}

// points returns the sparse map of version 0.0.
func (s *paxState) points() []int64 {
	if len(s.local.points) > 0 {
		return s.local.points
	}
	return s.global.points
}

// appendXattrs appends the attributes that hold to dst, which is empty.
func (s *paxState) appendXattrs(dst []tree.Xattr) []tree.Xattr {
	dst = append(dst, s.global.xattrs...)
	for _, x := range s.local.xattrs {
		dst = setXattr(dst, x.Name, x.Value)
	}
	return slices.DeleteFunc(dst, func(x tree.Xattr) bool { return x.Value == nil })
}

// addGlobal makes the records of h, a global header, defaults.
func (s *paxState) addGlobal(h *paxHeader) {
	for k := range numPAXKeys {
		if h.has(k) {
			s.global.named |= 1 << k
			s.global.values[k] = bytes.Clone(h.values[k])
		}
	}
	for _, x := range h.xattrs {
		s.global.xattrs = setXattr(s.global.xattrs, x.Name, bytes.Clone(x.Value))
	}
	if len(h.points) > 0 {
		s.global.points = slices.Clone(h.points)
	}
}

// framing reports whether h has records that say where the next header is.
func (h *paxHeader) framing() bool {
	const keys = 1<<paxSize | 1<<paxSparseMajor | 1<<paxSparseMinor | 1<<paxSparseName |
		1<<paxSparseSize | 1<<paxSparseRealSize | 1<<paxSparseCount | 1<<paxSparseMap
	return h.named&keys != 0 || len(h.points) > 0
}

// parseDecimal reads a decimal number that is not negative: digits, no sign.
func parseDecimal(b []byte) (int64, error) {
	var x int64
	for _, c := range b {
		if !isDigit(c) {
			return 0, notDecimal(b)
		}
		d := int64(c - '0')
		if x > (math.MaxInt64-d)/10 {
			return 0, fmt.Errorf("%.32q does not fit 63 bits", b)
		}
		x = x*10 + d
	}
	if len(b) == 0 {
		return 0, notDecimal(b)
	}
	return x, nil
}

// notDecimal quotes the beginning of b: it may be a MiB.
func notDecimal(b []byte) error { return fmt.Errorf("%.32q is no decimal number", b) }

// parsePAXTime reads seconds since 1970 with an optional sign and an optional
// fraction, of which nine digits count. The nanoseconds count forward from the
// seconds, so -1.5 is half a second after -2.
func parsePAXTime(b []byte) (sec int64, nsec uint32, err error) {
	number, negative := bytes.CutPrefix(b, []byte("-"))
	whole, fraction, _ := bytes.Cut(number, []byte("."))
	if sec, err = parseDecimal(whole); err != nil {
		return 0, 0, err
	}
	if nsec, err = parseFraction(fraction); err != nil {
		return 0, 0, err
	}
	if negative {
		sec = -sec
		if nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	return sec, nsec, nil
}

// parseFraction reads the digits behind a decimal point as nanoseconds.
func parseFraction(b []byte) (uint32, error) {
	var nsec, scale uint32 = 0, 1e8
	for _, c := range b {
		if !isDigit(c) {
			return 0, notDecimal(b)
		}
		nsec += uint32(c-'0') * scale
		scale /= 10
	}
	return nsec, nil
}
