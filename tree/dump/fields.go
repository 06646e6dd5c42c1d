package dump

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/flatroot/flatroot/tree"
)

// fields are the raw fields of a line, before escapes are resolved.
type fields struct {
	field [fieldCount][]byte
	count int    // how many there are
	rest  []byte // extended attributes
}

func (f *fields) split(line []byte) {
	for f.count = 0; f.count < fieldCount; f.count++ {
		i := bytes.IndexByte(line, ' ')
		if i < 0 {
			f.field[f.count] = line
			f.count++
			line = nil
			break
		}
		f.field[f.count] = line[:i]
		line = line[i+1:]
	}
	f.rest = line
}

// need tells what is wrong if the line has fewer than n fields.
func (f *fields) need(n int) error {
	if f.count < n {
		return fmt.Errorf("field %s is missing: the line has %d fields", fieldNames[f.count], f.count)
	}
	return nil
}

// attr reads the attributes. The mode has been read before, since it tells whether a line has attributes.
func (f *fields) attr(mode uint32) (tree.Attr, error) {
	var n [fieldMtime]uint64
	for i := fieldSize; i < fieldMtime; i++ {
		if i == fieldMode {
			continue
		}
		v, err := f.number(i, 10)
		if err != nil {
			return tree.Attr{}, err
		}
		n[i] = v
	}
	// All but the size have 32 bits; C cuts what is more off, and so do we.
	a := tree.Attr{
		Mode: mode, Size: n[fieldSize], Nlink: uint32(n[fieldNlink]),
		UID: uint32(n[fieldUID]), GID: uint32(n[fieldGID]), Rdev: uint32(n[fieldRdev]),
	}
	return a, f.mtime(&a)
}

// mtime reads seconds and nanoseconds. They are two whole numbers: 1.5 is five nanoseconds after the second.
func (f *fields) mtime(a *tree.Attr) error {
	sec, nsec, found := bytes.Cut(f.field[fieldMtime], []byte{'.'})
	if !found {
		return fmt.Errorf("MTIME %q has no dot: write seconds.nanoseconds", f.field[fieldMtime])
	}
	s, okSec := number(sec, 10)
	ns, okNsec := number(nsec, 10)
	if !okSec || !okNsec {
		return fmt.Errorf("MTIME %q is not two numbers: write seconds.nanoseconds", f.field[fieldMtime])
	}
	a.MtimeSec, a.MtimeNsec = int64(s), uint32(ns)
	return nil
}

// mode reads the type and permission bits, and whether the line is a hard link's.
func (f *fields) mode() (mode uint32, link bool, err error) {
	text := f.field[fieldMode]
	if len(text) > 0 && text[0] == '@' {
		link = true
		f.field[fieldMode] = text[1:]
	}
	v, err := f.number(fieldMode, 8)
	if err != nil {
		return 0, false, err
	}
	mode = uint32(v)
	switch mode & tree.TypeMask {
	case tree.Socket, tree.Symlink, tree.Regular, tree.BlockDevice, tree.Directory, tree.CharDevice, tree.FIFO:
		return mode, link, nil
	}
	return 0, false, fmt.Errorf("MODE %q holds no known file type", text)
}

func (f *fields) number(i, base int) (uint64, error) {
	v, ok := number(f.field[i], uint64(base))
	if !ok {
		what := "a number"
		if base == 8 {
			what = "an octal number"
		}
		return 0, fmt.Errorf("%s %q is not %s", fieldNames[i], f.field[i], what)
	}
	return v, nil
}

// number reads what strtoull(3) reads, without blanks: a sign, which negates, and digits. What does not fit is 2^64-1.
func number(b []byte, base uint64) (uint64, bool) {
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var v uint64
	over := false
	for _, c := range b {
		d := uint64(c - '0') // a byte: what is below '0' is large
		if d >= base {
			return 0, false
		}
		over = over || v > (math.MaxUint64-d)/base
		v = v*base + d
	}
	switch {
	case over:
		return math.MaxUint64, true
	case negative:
		return -v, true
	}
	return v, true
}

// text resolves the escapes of a field that may be a lone dash, for none. It works in place.
func (f *fields) text(i int) ([]byte, error) {
	raw := f.field[i]
	if len(raw) == 1 && raw[0] == '-' {
		return nil, nil
	}
	b, err := unescape(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fieldNames[i], err)
	}
	return b, nil
}

// isSet tells whether a field that may be a lone dash is something else, if only empty.
func (f *fields) isSet(i int) bool {
	return len(f.field[i]) != 1 || f.field[i][0] != '-'
}

// unescape resolves escapes in place.
func unescape(b []byte) ([]byte, error) {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b, nil
	}
	out := b[:i]
	for i < len(b) {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		c, n, err := escape(b[i:])
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		i += n
	}
	return out, nil
}

// escape reads the escape that b begins with; n is its length.
func escape(b []byte) (c byte, n int, err error) {
	if len(b) < 2 {
		return 0, 0, errors.New("nothing follows a backslash")
	}
	switch b[1] {
	case '\\':
		return '\\', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'x':
		if len(b) >= 4 {
			if high, low := hexDigit(b[2]), hexDigit(b[3]); high < 16 && low < 16 {
				return high<<4 | low, 4, nil
			}
		}
		return 0, 0, errors.New(`two hexadecimal digits must follow \x`)
	}
	return 0, 0, fmt.Errorf(`unknown escape \%c: \\, \n, \r, \t and \xHH are possible`, b[1])
}

// hexDigit is a digit's value; 16 and more: it is none.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// cutNUL ends a text at its first NUL byte, as C does.
func cutNUL(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
