package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// xattrEntry is an xattr as it is on disk. Its name is prefix and rest.
type xattrEntry struct {
	prefix      string
	rest, value []byte
}

// The most bytes of names and values that one inode's xattrs may have together. What an inode holds itself is less than
// that; references into the shared table are small enough that a hostile image could make many megabytes of few bytes.
const xattrBytesMax = 1 << 20

// Xattrs returns the inode's xattrs with their full names, in byte order of these, as they are on disk.
func (i *Inode) Xattrs() ([]tree.Xattr, error) {
	var xs []tree.Xattr
	total := 0
	err := i.eachXattr(func(e xattrEntry) (bool, error) {
		x := tree.Xattr{Name: e.prefix + string(e.rest), Value: bytes.Clone(e.value)}
		if x.Name == "" || len(x.Name) > tree.NameMax {
			return false, corrupt("xattr name of %d bytes", len(x.Name))
		}
		if total += len(x.Name) + len(x.Value); total > xattrBytesMax {
			return false, corrupt("xattrs of more than %d bytes", xattrBytesMax)
		}
		xs = append(xs, x)
		return true, nil
	})
	if err == nil {
		slices.SortFunc(xs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
		for k := 1; k < len(xs); k++ {
			if xs[k].Name == xs[k-1].Name {
				err = corrupt("xattr %q is there twice", xs[k].Name)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("xattrs of inode %d: %w", i.nid, err)
	}
	return xs, nil
}

// EachXattr calls visit for each xattr, as they are on disk, until it returns false. The name is prefix and rest. It
// doesn't allocate for an image in memory.
func (i *Inode) EachXattr(visit func(prefix string, rest, value []byte) bool) error {
	total := 0
	err := i.eachXattr(func(e xattrEntry) (bool, error) {
		if total += len(e.prefix) + len(e.rest) + len(e.value); total > xattrBytesMax {
			return false, corrupt("xattrs of more than %d bytes", xattrBytesMax)
		}
		return visit(e.prefix, e.rest, e.value), nil
	})
	if err != nil {
		return fmt.Errorf("xattrs of inode %d: %w", i.nid, err)
	}
	return nil
}

// Xattr returns the value of one xattr and whether there is one of this name.
func (i *Inode) Xattr(name string) (value []byte, ok bool, err error) {
	return i.XattrBytes([]byte(name))
}

// XattrBytes is Xattr. It doesn't allocate for an image in memory.
func (i *Inode) XattrBytes(name []byte) (value []byte, ok bool, err error) {
	err = i.eachXattrBut(name, func(e xattrEntry) (bool, error) {
		p := len(e.prefix)
		if p+len(e.rest) == len(name) && string(name[:p]) == e.prefix && bytes.Equal(name[p:], e.rest) {
			value, ok = e.value, true
		}
		return !ok, nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("xattr %q of inode %d: %w", bytes.Clone(name), i.nid, err)
	}
	return value, ok, nil
}

// eachXattr calls visit for each xattr, the shared ones first, until it returns false or an error. What it gets is valid
// during the call.
func (i *Inode) eachXattr(visit func(xattrEntry) (bool, error)) error {
	return i.eachXattrBut(nil, visit)
}

// eachXattrBut calls nothing if the inode's name filter says that there is no xattr of this name.
func (i *Inode) eachXattrBut(name []byte, visit func(xattrEntry) (bool, error)) error {
	if i.data == i.xattrs {
		return nil
	}
	area, err := i.img.bytes(i.xattrs, i.data-i.xattrs)
	if err != nil {
		return err
	}
	var h disk.XattrHeader
	h.Decode(area)
	if len(name) > 0 && i.img.filtered(name, h.NameFilter) {
		return nil
	}
	area = area[disk.XattrHeaderSize:]
	refs := disk.XattrRefSize * int(h.SharedCount)
	if refs > len(area) {
		return corrupt("%d references to shared xattrs have no room in %d bytes", h.SharedCount, len(area))
	}
	if more, err := i.img.eachShared(area[:refs], visit); !more || err != nil {
		return err
	}
	return i.img.eachInline(area[refs:], visit)
}

var lustrePrefix = []byte("lustre.")

// filtered tells whether no xattr of an inode has this name, by the inode's name filter.
func (m *Image) filtered(name []byte, filter uint32) bool {
	if m.super.FeatureCompat&disk.CompatXattrFilter == 0 || m.super.XattrFilterReserve != 0 {
		return false
	}
	if bytes.HasPrefix(name, lustrePrefix) {
		return false // composefs and others use different prefixes for it, and so different bits
	}
	return filter&(1<<filterBit(name)) != 0
}

func (m *Image) eachInline(area []byte, visit func(xattrEntry) (bool, error)) error {
	for len(area) > 0 {
		e, n, err := m.parseXattr(area)
		if err != nil {
			return err
		}
		area = area[n:]
		if n == disk.XattrEntrySize && e.prefix == "" {
			continue // no name, no value: mkfs.erofs --root-xattr-isize fills room with such
		}
		if more, err := visit(e); !more || err != nil {
			return err
		}
	}
	return nil
}

func (m *Image) eachShared(refs []byte, visit func(xattrEntry) (bool, error)) (more bool, err error) {
	for ; len(refs) > 0; refs = refs[disk.XattrRefSize:] {
		e, err := m.sharedXattr(binary.LittleEndian.Uint32(refs))
		if err != nil {
			return false, err
		}
		if more, err := visit(e); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// Most shared xattrs, labels and the like, are read with one call if this many bytes are asked for at first.
const sharedGuess = 128

// sharedXattr reads an entry of the shared table. A reference counts units of 4 bytes from the table's first block on.
func (m *Image) sharedXattr(ref uint32) (xattrEntry, error) {
	off := m.blockOffset(m.super.XattrBlock) + disk.XattrRefSize*uint64(ref)
	if err := m.checkRange(off, disk.XattrEntrySize); err != nil {
		return xattrEntry{}, fmt.Errorf("shared xattr: %w", err)
	}
	b, err := m.bytes(off, min(sharedGuess, m.size-off))
	if err != nil {
		return xattrEntry{}, err
	}
	var h disk.XattrEntry
	h.Decode(b)
	if n := uint64(h.Size()); n > uint64(len(b)) {
		if b, err = m.bytes(off, n); err != nil {
			return xattrEntry{}, fmt.Errorf("shared xattr: %w", err)
		}
	}
	e, _, err := m.parseXattr(b)
	return e, err
}

// parseXattr parses the entry at the begin of b and tells its size.
func (m *Image) parseXattr(b []byte) (e xattrEntry, size int, err error) {
	var h disk.XattrEntry
	if len(b) < disk.XattrEntrySize {
		return e, 0, corrupt("%d bytes are too few for an xattr", len(b))
	}
	h.Decode(b)
	if size = h.Size(); size > len(b) {
		return e, 0, corrupt("an xattr of %d bytes has no room in %d bytes", size, len(b))
	}
	if e.prefix, err = m.prefix(h.Index); err != nil {
		return e, 0, err
	}
	b = b[disk.XattrEntrySize:]
	e.rest, e.value = b[:h.NameLen], b[h.NameLen:][:h.ValueSize]
	return e, size, nil
}

func (m *Image) prefix(i disk.XattrIndex) (string, error) {
	if i&disk.XattrLongPrefix != 0 {
		if k := int(i &^ disk.XattrLongPrefix); k < len(m.prefixes) {
			return m.prefixes[k], nil
		}
	} else if p, ok := i.Prefix(); ok {
		return p, nil
	}
	return "", corrupt("xattr with the unknown name prefix %#x", uint8(i))
}

// readPrefixes reads the table of long xattr name prefixes. Each is a length, the number of a short prefix, and what
// comes after that; they begin at multiples of 4 bytes.
func (m *Image) readPrefixes() error {
	s := &m.super
	if s.XattrPrefixCount == 0 {
		return nil
	}
	if s.FeatureCompat&disk.CompatPlainXattrs == 0 && s.PackedNid != 0 {
		return &UnsupportedError{"xattr name prefixes in the packed inode"}
	}
	off := 4 * uint64(s.XattrPrefixStart)
	for range s.XattrPrefixCount {
		p, n, err := m.longPrefix(off)
		if err != nil {
			return fmt.Errorf("xattr name prefixes: %w", err)
		}
		m.prefixes = append(m.prefixes, p)
		off = (off + n + 3) &^ 3
	}
	return nil
}

func (m *Image) longPrefix(off uint64) (prefix string, size uint64, err error) {
	head, err := m.bytes(off, 3)
	if err != nil {
		return "", 0, err
	}
	n := uint64(binary.LittleEndian.Uint16(head)) // the base index and the infix
	base, ok := disk.XattrIndex(head[2]).Prefix()
	if n == 0 || n > 1+disk.NameMax || !ok {
		return "", 0, corrupt("%d bytes on the short prefix %d", n, head[2])
	}
	infix, err := m.bytes(off+3, n-1)
	return base + string(infix), 2 + n, err
}
