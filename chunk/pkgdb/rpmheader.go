package pkgdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxHeader bounds, in bytes, what rpm knows about one package. It is rpm's own bound, HEADER_DATA_MAX in lib/header.c.
const maxHeader = 256 << 20

// Tags of a header, from rpm's include/rpm/rpmtag.h. Those of rpm before 4.0 had full names of files.
const (
	tagName          = 1000
	tagVersion       = 1001
	tagRelease       = 1002
	tagEpoch         = 1003
	tagBuildTime     = 1006
	tagArch          = 1022
	tagOldFileNames  = 1027
	tagSourceRPM     = 1044
	tagChangelogTime = 1080
	tagDirIndexes    = 1116
	tagBaseNames     = 1117
	tagDirNames      = 1118
)

// Types of values, from rpm's include/rpm/rpmtypes.h.
const (
	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
)

const (
	headerPreamble = 8  // bytes: how many entries, and bytes of values, follow
	headerEntry    = 16 // bytes: tag, type, offset among the values, and how many
)

// header is what rpm knows about a package: a list of tags, and their values behind it. All numbers are big-endian.
type header struct {
	entries map[uint32]entry // of the tags above
	values  []byte
}

// entry says where the values of a tag are.
type entry struct{ kind, offset, count uint32 }

// parseHeader is the package that a header is about.
func parseHeader(t *tree, b []byte) (*Package, error) {
	h, err := newHeader(b)
	if err != nil {
		return nil, err
	}
	p, err := h.identity()
	if err != nil {
		return nil, err
	}
	if p.Paths, err = h.paths(t.pathsOf(len(b))); err != nil {
		return nil, fmt.Errorf("package %.100q: %w", p.Name, err)
	}
	return p, nil
}

func newHeader(b []byte) (*header, error) {
	if len(b) < headerPreamble {
		return nil, fmt.Errorf("a header of %d bytes", len(b))
	}
	count, size := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))
	b = b[headerPreamble:]
	if count*headerEntry+size != uint64(len(b)) {
		return nil, fmt.Errorf("a header of %d bytes that should have %d tags and %d bytes of values", len(b), count, size)
	}
	h := &header{entries: map[uint32]entry{}, values: b[count*headerEntry:]}
	for ; count > 0; count-- {
		tag, e := binary.BigEndian.Uint32(b), entry{
			kind:   binary.BigEndian.Uint32(b[4:]),
			offset: binary.BigEndian.Uint32(b[8:]),
			count:  binary.BigEndian.Uint32(b[12:]),
		}
		b = b[headerEntry:]
		if known(tag) {
			h.entries[tag] = e // what was added at installation comes last, and counts
		}
	}
	return h, nil
}

// known tells whether a tag is of use.
func known(tag uint32) bool {
	switch tag {
	case tagName, tagVersion, tagRelease, tagEpoch, tagBuildTime, tagArch, tagOldFileNames, tagSourceRPM, tagChangelogTime,
		tagDirIndexes, tagBaseNames, tagDirNames:
		return true
	}
	return false
}

// identity is a package but for its paths.
func (h *header) identity() (*Package, error) {
	var text [5]string
	for i, tag := range []uint32{tagName, tagVersion, tagRelease, tagArch, tagSourceRPM} {
		var err error
		if text[i], err = h.text(tag); err != nil {
			return nil, err
		}
	}
	p := &Package{Name: text[0], Version: text[1], Arch: text[3], Source: sourceName(text[4])}
	if text[2] != "" {
		p.Version += "-" + text[2]
	}
	return p, h.numbers(p)
}

// numbers adds the epoch and the dates of a package.
func (h *header) numbers(p *Package) error {
	epoch, err := h.int32s(tagEpoch)
	if err != nil {
		return err
	}
	if len(epoch) > 0 {
		p.Version = fmt.Sprintf("%d:%s", number(epoch, 0), p.Version)
	}
	built, err := h.int32s(tagBuildTime)
	if err != nil {
		return err
	}
	if len(built) > 0 {
		p.Built = time.Unix(int64(number(built, 0)), 0).UTC()
	}
	changes, err := h.int32s(tagChangelogTime)
	p.Changes = changeTimes(changes)
	return err
}

// changeTimes are those of a changelog, of which the newest come first, and some days have many entries.
func changeTimes(b []byte) (dates []time.Time) {
	for i := 0; i < len(b)/4 && len(dates) < maxChanges; i++ {
		if n := number(b, i); i == 0 || n != number(b, i-1) {
			dates = append(dates, time.Unix(int64(n), 0).UTC())
		}
	}
	return dates
}

// sourceName is the name in NAME-VERSION-RELEASE.src.rpm. It is empty if there is none.
func sourceName(file string) string {
	for _, suffix := range []string{".rpm", ".src", ".nosrc"} {
		file = strings.TrimSuffix(file, suffix)
	}
	if file == "(none)" {
		return ""
	}
	name := file
	for range 2 {
		dash := strings.LastIndexByte(name, '-')
		if dash <= 0 {
			return file
		}
		name = name[:dash]
	}
	return name
}

// value is what a tag has, from its first byte to the end of all values. It is nil if there is no such tag.
func (h *header) value(tag, kind uint32) (b []byte, count uint32, err error) {
	e, ok := h.entries[tag]
	if !ok {
		return nil, 0, nil
	}
	if e.kind != kind {
		return nil, 0, fmt.Errorf("tag %d has values of type %d, not %d", tag, e.kind, kind)
	}
	if uint64(e.offset) >= uint64(len(h.values)) {
		return nil, 0, fmt.Errorf("tag %d has values at %d, behind the end at %d", tag, e.offset, len(h.values))
	}
	return h.values[e.offset:], e.count, nil
}

// text is the value of a tag that has one string.
func (h *header) text(tag uint32) (string, error) {
	b, _, err := h.value(tag, typeString)
	if b == nil || err != nil {
		return "", err
	}
	s, _, err := cutString(b)
	return string(s), err
}

// cutString cuts off a string and the NUL at its end.
func cutString(b []byte) (s, rest []byte, err error) {
	s, rest, ok := bytes.Cut(b, []byte{0})
	if !ok {
		return nil, nil, errors.New("a string without an end")
	}
	return s, rest, nil
}

// int32s are the values of a tag that has numbers, for number.
func (h *header) int32s(tag uint32) ([]byte, error) {
	b, count, err := h.value(tag, typeInt32)
	if b == nil || err != nil {
		return nil, err
	}
	if uint64(count)*4 > uint64(len(b)) {
		return nil, fmt.Errorf("tag %d has %d numbers in %d bytes", tag, count, len(b))
	}
	return b[:count*4], nil
}

// number is the i-th of 32-bit numbers.
func number(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[i*4:]) }

// paths are those of a header: names, the directories that they are in, and for each name which one.
func (h *header) paths(p *paths) ([]string, error) {
	if _, old := h.entries[tagOldFileNames]; old {
		return h.oldPaths(p)
	}
	names, count, err := h.value(tagBaseNames, typeStringArray)
	if err != nil || names == nil {
		return nil, err
	}
	indexes, err := h.int32s(tagDirIndexes)
	if err != nil {
		return nil, err
	}
	dirs, err := h.directories()
	if err != nil {
		return nil, err
	}
	if uint64(len(indexes)) != uint64(count)*4 {
		return nil, fmt.Errorf("%d names of files, and %d numbers of directories", count, len(indexes)/4)
	}
	return joinPaths(p, names, indexes, dirs)
}

// joinPaths makes a path of each name and its directory.
func joinPaths(p *paths, names, indexes []byte, dirs directories) ([]string, error) {
	var list []string
	for i := range len(indexes) / 4 {
		base, rest, err := cutString(names)
		if err != nil {
			return nil, err
		}
		names = rest
		dir, err := dirs.name(number(indexes, i))
		if err != nil {
			return nil, err
		}
		clean, err := p.clean(string(dir) + string(base))
		if err != nil {
			return nil, err
		}
		list = append(list, clean)
	}
	return list, nil
}

// oldPaths are those of a header that has them whole.
func (h *header) oldPaths(p *paths) ([]string, error) {
	names, count, err := h.value(tagOldFileNames, typeStringArray)
	var list []string
	for ; err == nil && count > 0; count-- {
		var name []byte
		if name, names, err = cutString(names); err != nil {
			return nil, err
		}
		clean, err := p.clean(string(name))
		if err != nil {
			return nil, err
		}
		list = append(list, clean)
	}
	return list, err
}

// directories are names with slashes at their ends. Where each begins is kept in four bytes, which its NUL and slash account
// for nearly.
type directories struct {
	text   []byte
	starts []uint32
}

func (h *header) directories() (directories, error) {
	b, count, err := h.value(tagDirNames, typeStringArray)
	d := directories{text: b}
	for rest := b; err == nil && count > 0; count-- {
		d.starts = append(d.starts, uint32(len(b)-len(rest)))
		_, rest, err = cutString(rest)
	}
	return d, err
}

// name is that of a directory by its number.
func (d directories) name(i uint32) ([]byte, error) {
	if uint64(i) >= uint64(len(d.starts)) {
		return nil, fmt.Errorf("directory %d of %d", i, len(d.starts))
	}
	s, _, err := cutString(d.text[d.starts[i]:])
	return s, err
}
