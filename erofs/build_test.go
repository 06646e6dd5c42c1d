package erofs

import (
	"math"
	"strings"

	"github.com/flatroot/flatroot/erofs/disk"
)

// builder makes an image inode by inode, right or wrong as a test wants it. The inodes lie 512 bytes apart, from that of
// the root on, which is number 0.
type builder struct {
	header *disk.Header
	super  disk.Superblock
	b      []byte
}

const (
	builderSlots = 16                // between two inodes
	builderFirst = 128               // nid of the root
	builderBase  = builderFirst << 5 // its offset
	dirMode      = 0o040755
	fileMode     = 0o100644
)

func nidOf(number int) Nid { return Nid(builderFirst + builderSlots*number) }

func newBuilder(size int) *builder {
	return &builder{
		super: disk.Superblock{
			Magic: disk.SuperMagic, FeatureCompat: disk.CompatMtime, BlockBits: 12, RootNid: builderFirst, Inodes: 3,
			Blocks: uint32(size >> 12),
		},
		b: make([]byte, size),
	}
}

// sample is an image of a directory with an empty directory d, a file f of three bytes and a symlink s.
func sample() *builder {
	b := newBuilder(16 << 10)
	b.add(0, disk.ExtendedInode{Mode: dirMode}, dirData(0, 0, "d", 1, "f", 2, "s", 3))
	b.add(1, disk.ExtendedInode{Mode: dirMode}, dirData(1, 0))
	b.add(2, disk.ExtendedInode{Mode: fileMode}, []byte("abc"))
	b.add(3, disk.ExtendedInode{Mode: 0o120777}, []byte("f"))
	return b
}

// composefsSample is the same with a composefs header of version 1 and the file without data.
func composefsSample(xattrs ...string) *builder {
	b := sample()
	b.header = &disk.Header{Magic: disk.HeaderMagic, Version: disk.HeaderVersion, ComposefsVersion: 1}
	b.addBacked(2, 3, xattrs...)
	return b
}

func (b *builder) addBacked(number int, size uint64, xattrs ...string) {
	area := xattrArea(xattrs...)
	b.put(number, disk.ExtendedInode{
		Mode: fileMode, Format: disk.MakeFormat(disk.ChunkBased, true), Size: size, XattrCount: disk.XattrCount(len(area)),
	}, append(area, 0xff, 0xff, 0xff, 0xff))
}

// add puts an inode whose data follows it.
func (b *builder) add(number int, i disk.ExtendedInode, data []byte) {
	i.Format, i.Size, i.Nlink = disk.MakeFormat(disk.FlatInline, true), uint64(len(data)), 1
	b.put(number, i, data)
}

func (b *builder) addWithXattrs(number int, i disk.ExtendedInode, area, data []byte) {
	i.Format, i.Size, i.Nlink = disk.MakeFormat(disk.FlatInline, true), uint64(len(data)), 1
	i.XattrCount = disk.XattrCount(len(area))
	b.put(number, i, append(area, data...))
}

// put puts an inode and what follows it as they are.
func (b *builder) put(number int, i disk.ExtendedInode, after []byte) {
	copy(b.b[builderBase+512*number:], append(i.AppendTo(nil), after...))
}

func (b *builder) image() []byte {
	copy(b.b[disk.SuperblockOffset:], b.super.AppendTo(nil))
	if b.header != nil {
		copy(b.b, b.header.AppendTo(nil))
	}
	return b.b
}

// dirData is a directory's block: . and .., then the names and the numbers of their inodes.
func dirData(self, parent int, entries ...any) []byte {
	entries = append([]any{".", self, "..", parent}, entries...)
	var heads, names []byte
	for k := 0; k < len(entries); k += 2 {
		name, number := entries[k].(string), entries[k+1].(int)
		d := disk.Dirent{Nid: uint64(nidOf(number)), NameOffset: uint16(disk.DirentSize*len(entries)/2 + len(names))}
		heads = d.AppendTo(heads)
		names = append(names, name...)
	}
	return append(heads, names...)
}

// xattrArea is a header and entries of names without prefix: NAME=VALUE.
func xattrArea(xattrs ...string) []byte {
	if len(xattrs) == 0 {
		return nil
	}
	h := disk.XattrHeader{NameFilter: 0}
	b := h.AppendTo(nil)
	for _, x := range xattrs {
		name, value, _ := strings.Cut(x, "=")
		index := disk.XattrNone
		if rest, ok := strings.CutPrefix(name, "trusted."); ok {
			index, name = disk.XattrTrusted, rest
		}
		e := disk.XattrEntry{NameLen: uint8(len(name)), Index: index, ValueSize: uint16(len(value))}
		b = append(append(e.AppendTo(b), name...), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

const (
	maxSize  = math.MaxInt64
	metacopy = "trusted.overlay.metacopy=\x00\x24\x00\x01aaaaaaaabbbbbbbbccccccccdddddddd"
)
