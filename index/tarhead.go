package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// tarBlock is the unit of a tar: headers are one block, contents are padded.
const tarBlock = 512

var zeroBlock [tarBlock]byte

// Type flags that oci-1 reads; POSIX.1-2017 "ustar Interchange Format", and
// GNU tar's tar.h for the capital letters.
const (
	typeFileV7   = 0 // before POSIX, a NUL said "file"
	typeFile     = '0'
	typeHardlink = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFifo     = '6'
	typeCont     = '7' // contiguous file: to everybody now a file
	typeSparse   = 'S' // old GNU sparse file
	typeLongName = 'L' // GNU: name of the next entry
	typeLongLink = 'K' // GNU: link target of the next entry
	typePAX      = 'x' // records for the next entry
	typeGlobal   = 'g' // records for all entries that follow
)

// field is a header field: its place in the block.
type field struct{ off, end int }

// The fields of a header block. The first nine are the same in every format.
var (
	fieldName     = field{0, 100}
	fieldMode     = field{100, 108}
	fieldUID      = field{108, 116}
	fieldGID      = field{116, 124}
	fieldSize     = field{124, 136}
	fieldMtime    = field{136, 148}
	fieldChecksum = field{148, 156}
	fieldLink     = field{157, 257}
	fieldMagic    = field{257, 265} // magic and version

	// All formats but v7.
	fieldDevMajor = field{329, 337}
	fieldDevMinor = field{337, 345}

	fieldPrefix      = field{345, 500} // ustar
	fieldPrefixStar  = field{345, 476} // star has its times behind a shorter one
	fieldTrailerStar = field{508, 512}

	// GNU has no prefix: times, and the sparse map, are in its place.
	fieldAtimeGNU = field{345, 357}
	fieldCtimeGNU = field{357, 369}
	fieldRealSize = field{483, 495}
)

// offType is the offset of the one-byte type flag.
const offType = 156

// tarFormat is what a header's magic says about the fields behind the ninth.
type tarFormat uint8

const (
	formatV7 tarFormat = iota
	formatUstar
	formatStar
	formatGNU
)

// tarHeader is a header block.
type tarHeader [tarBlock]byte

func (h *tarHeader) bytes(f field) []byte { return h[f.off:f.end] }

// format tells the format by the magic. PAX headers are ustar headers.
func (h *tarHeader) format() tarFormat {
	magic := h.bytes(fieldMagic)
	switch {
	case string(magic) == "ustar  \x00":
		return formatGNU
	case string(magic[:6]) != "ustar\x00":
		return formatV7
	case string(h.bytes(fieldTrailerStar)) == "tar\x00":
		return formatStar
	}
	return formatUstar
}

// verify checks the header's checksum. It is the sum of the block's bytes with
// blanks for the checksum itself; old writers on machines with signed char
// summed signed bytes, so that is accepted too.
func (h *tarHeader) verify() error {
	want, err := parseOctal(h.bytes(fieldChecksum))
	if err != nil {
		return fmt.Errorf("header checksum: %w: this is no tar header", err)
	}
	unsigned := h.sum()
	if want == unsigned || want == unsigned-256*h.highBytes() {
		return nil
	}
	return fmt.Errorf("header checksum is %#o, the header adds up to %#o: this is no tar header", want, unsigned)
}

// sum adds up the block's bytes. It takes eight at a time, in four lanes of 16
// bits: 64 words add 2*255 each to a lane at most, which does not overflow it.
func (h *tarHeader) sum() int64 {
	const lanes = 0x00ff00ff00ff00ff
	var acc uint64
	for i := 0; i < tarBlock; i += 8 {
		w := binary.LittleEndian.Uint64(h[i:])
		acc += w&lanes + w>>8&lanes
	}
	sum := acc&0xffff + acc>>16&0xffff + acc>>32&0xffff + acc>>48
	for _, c := range h.bytes(fieldChecksum) {
		sum += ' ' - uint64(c)
	}
	return int64(sum)
}

// highBytes counts the bytes that are negative as signed ones.
func (h *tarHeader) highBytes() int64 {
	var n int64
	for i, c := range h {
		if c >= 0x80 && (i < fieldChecksum.off || i >= fieldChecksum.end) {
			n++
		}
	}
	return n
}

// appendName appends the name that the header alone gives to dst.
func (h *tarHeader) appendName(dst []byte) []byte {
	if prefix := h.prefix(); len(prefix) > 0 {
		dst = append(append(dst, prefix...), '/')
	}
	return append(dst, cString(h.bytes(fieldName))...)
}

// prefix returns what stands before the name, if anything.
func (h *tarHeader) prefix() []byte {
	switch h.format() {
	case formatUstar:
		return cString(h.bytes(fieldPrefix))
	case formatStar:
		return cString(h.bytes(fieldPrefixStar))
	case formatGNU:
		return h.prefixOldGo()
	}
	return nil
}

// prefixOldGo returns the prefix of a GNU header that has one by mistake. Go's
// archive/tar before 1.8 wrote such headers for names of more than 100 bytes,
// so images of that time have them. Its later versions tell them by the fields
// that are really there, access and change time, not being numbers; see
// https://go.dev/issue/12594. All engines built on it read those names so.
func (h *tarHeader) prefixOldGo() []byte {
	if h[fieldAtimeGNU.off] == 0 && h[fieldCtimeGNU.off] == 0 {
		return nil
	}
	if optionalNumber(h.bytes(fieldAtimeGNU)) && optionalNumber(h.bytes(fieldCtimeGNU)) {
		return nil
	}
	prefix := cString(h.bytes(fieldPrefix))
	for _, c := range prefix {
		if c >= 0x80 {
			return nil
		}
	}
	return prefix
}

// optionalNumber reports whether b is a number or not there.
func optionalNumber(b []byte) bool {
	if b[0] == 0 {
		return true
	}
	_, err := parseNumber(b)
	return err == nil
}

// cString returns b up to its first NUL, or all of it.
func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// parseNumber reads a numeric field: octal digits, or GNU's base-256.
func parseNumber(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		return parseBase256(b)
	}
	return parseOctal(b)
}

// parseOctal reads octal digits between blanks and NULs. As in other readers a
// field of nothing but these is 0, and what follows a NUL behind the digits
// does not count. Fields have 12 bytes at most, so there is no overflow.
func parseOctal(b []byte) (int64, error) {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	var x int64
	i := 0
	for ; i < len(b) && b[i]-'0' < 8; i++ {
		x = x<<3 | int64(b[i]-'0')
	}
	if 0 < i && i < len(b) && b[i] == 0 {
		return x, nil
	}
	for _, c := range b[i:] {
		if !isBlank(c) {
			return 0, fmt.Errorf("%q is no octal number", b)
		}
	}
	return x, nil
}

func isBlank(c byte) bool { return c == ' ' || c == 0 }

var errBase256 = errors.New("base-256 number does not fit 64 bits")

// parseBase256 reads a big-endian two's complement number. Of its first byte
// the highest bit is the mark of this encoding, the next one the sign.
func parseBase256(b []byte) (int64, error) {
	negative := b[0]&0x40 != 0
	var flip byte // a negative number is read as its complement
	if negative {
		flip = 0xff
	}
	x := uint64((b[0] ^ flip) & 0x7f)
	for _, c := range b[1:] {
		if x>>56 != 0 {
			return 0, errBase256
		}
		x = x<<8 | uint64(c^flip)
	}
	if x > math.MaxInt64 {
		return 0, errBase256
	}
	if negative {
		return ^int64(x), nil
	}
	return int64(x), nil
}

// Limits of Linux and of oci-1 for names, in bytes.
const (
	maxComponent = 255  // NAME_MAX
	maxPath      = 4095 // PATH_MAX without the NUL
)

// appendClean appends the cleaned form of path to dst: leading and doubled
// slashes and "." components are dropped. What oci-1 refuses is an error.
func appendClean(dst, path []byte) ([]byte, error) {
	start := len(dst)
	for len(path) > 0 {
		part := path
		if i := bytes.IndexByte(path, '/'); i >= 0 {
			part, path = path[:i], path[i+1:]
		} else {
			path = nil
		}
		if len(part) == 0 || string(part) == "." {
			continue
		}
		if err := checkComponent(part); err != nil {
			return dst, err
		}
		if len(dst) > start {
			dst = append(dst, '/')
		}
		dst = append(dst, part...)
	}
	if n := len(dst) - start; n > maxPath {
		return dst, fmt.Errorf("path has %d bytes, more than %d", n, maxPath)
	}
	return dst, nil
}

// checkComponent checks one component of a path.
func checkComponent(part []byte) error {
	switch {
	case string(part) == "..":
		return errors.New(`path has a ".." component`)
	case len(part) > maxComponent:
		return fmt.Errorf("path has a component of %d bytes, more than %d", len(part), maxComponent)
	case bytes.IndexByte(part, 0) >= 0:
		return errors.New("path has a NUL byte")
	}
	return nil
}
