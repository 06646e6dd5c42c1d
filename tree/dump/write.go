package dump

import (
	"bufio"
	"encoding/hex"
	"io"
	"strconv"

	"github.com/flatroot/flatroot/tree"
)

// Write writes a tree as composefs-info dump prints an image: depth first, siblings in byte order. A hard link has the
// attributes of the node that it leads to, and that node's path as PAYLOAD.
func Write(w io.Writer, t *tree.Tree) error {
	d := writer{t: t, w: bufio.NewWriterSize(w, 64<<10)}
	d.path = append(d.path, '/')
	if err := d.node(tree.Root, false); err != nil {
		return err
	}
	d.path = d.path[:0]
	if err := d.children(tree.Root); err != nil {
		return err
	}
	return d.w.Flush()
}

type writer struct {
	t    *tree.Tree
	w    *bufio.Writer
	path []byte // of the line
	line []byte
	text []byte // for reuse
}

func (d *writer) children(dir tree.Node) error {
	end := len(d.path)
	for e := range d.t.Entries(dir) {
		d.path = append(append(d.path[:end], '/'), e.Name...)
		if err := d.node(e.Node, e.Link); err != nil {
			return err
		}
		if d.t.IsDir(e.Node) {
			if err := d.children(e.Node); err != nil {
				return err
			}
		}
	}
	d.path = d.path[:end]
	return nil
}

// node writes the line of the current path.
func (d *writer) node(n tree.Node, link bool) error {
	a := d.t.Attr(n)
	b := AppendEscaped(d.line[:0], d.path)
	b = appendNumber(b, a.Size)
	b = append(b, ' ')
	if link {
		b = append(b, '@')
	}
	b = strconv.AppendUint(b, uint64(a.Mode), 8)
	for _, v := range [...]uint32{a.Nlink, a.UID, a.GID, a.Rdev} {
		b = appendNumber(b, uint64(v))
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, a.MtimeSec, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(a.MtimeNsec), 10)
	b = appendOptional(b, d.payload(n, link))
	b = appendOptional(b, d.t.Content(n))
	if digest := d.t.RawDigest(n); digest != nil {
		b = hex.AppendEncode(append(b, ' '), digest)
	} else {
		b = append(b, " -"...)
	}
	for _, x := range d.t.Xattrs(n) {
		b = appendEscaped(append(b, ' '), []byte(x.Name), true)
		b = appendEscaped(append(b, '='), x.Value, true)
	}
	d.line = append(b, '\n')
	_, err := d.w.Write(d.line)
	return err
}

func (d *writer) payload(n tree.Node, link bool) []byte {
	switch {
	case link:
		return []byte(d.t.Path(n))
	case d.t.Mode(n)&tree.TypeMask == tree.Symlink:
		return d.t.Target(n)
	}
	d.text = d.t.AppendPayload(d.text[:0], n)
	return d.text
}

func appendNumber(b []byte, v uint64) []byte {
	return strconv.AppendUint(append(b, ' '), v, 10)
}

// appendOptional appends a field that may be none, which is what an empty text stands for.
func appendOptional(b, text []byte) []byte {
	b = append(b, ' ')
	switch string(text) {
	case "":
		return append(b, '-')
	case "-":
		return append(b, `\x2d`...)
	}
	return AppendEscaped(b, text)
}

// AppendEscaped appends a text as it stands in a field that is no extended attribute's.
func AppendEscaped(b, text []byte) []byte { return appendEscaped(b, text, false) }

// appendEscaped appends a text with escapes for what is no printing ASCII byte, for the space and, in the names and values
// of extended attributes, for the equals sign.
func appendEscaped(b, text []byte, equals bool) []byte {
	const digits = "0123456789abcdef"
	for _, c := range text {
		switch {
		case c == '\\':
			b = append(b, `\\`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c <= ' ' || c > '~' || c == '=' && equals:
			b = append(b, '\\', 'x', digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
