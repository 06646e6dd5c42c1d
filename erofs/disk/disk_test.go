package disk

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

type structure interface {
	Decode([]byte)
	AppendTo([]byte) []byte
}

// structures has each of them with the size that the C structure has and the offsets that are reserved or not kept.
var structures = []struct {
	name     string
	s        structure
	size     int
	reserved [][2]int
}{
	{"Header", new(Header), 32, [][2]int{{16, 32}}},
	{"Superblock", new(Superblock), 128, [][2]int{{105, 128}}},
	{"CompactInode", new(CompactInode), 32, [][2]int{{28, 32}}},
	{"ExtendedInode", new(ExtendedInode), 64, [][2]int{{48, 64}}},
	{"ChunkIndex", new(ChunkIndex), 8, nil},
	{"Dirent", new(Dirent), 12, [][2]int{{11, 12}}},
	{"XattrHeader", new(XattrHeader), 12, [][2]int{{5, 12}}},
	{"XattrEntry", new(XattrEntry), 4, nil},
}

func TestSizes(t *testing.T) {
	for _, c := range structures {
		if got := len(c.s.AppendTo(nil)); got != c.size {
			t.Errorf("%s has %d bytes, want %d", c.name, got, c.size)
		}
	}
	for name, pair := range map[string][2]int{
		"HeaderSize": {HeaderSize, 32}, "SuperblockSize": {SuperblockSize, 128},
		"CompactInodeSize": {CompactInodeSize, 1 << SlotBits}, "ExtendedInodeSize": {ExtendedInodeSize, 2 << SlotBits},
		"DirentSize": {DirentSize, 12}, "XattrHeaderSize": {XattrHeaderSize, 12}, "XattrEntrySize": {XattrEntrySize, 4},
		"ChunkIndexSize": {ChunkIndexSize, 8}, "BlockMapEntrySize": {BlockMapEntrySize, 4}, "XattrRefSize": {XattrRefSize, 4},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %d, want %d", name, pair[0], pair[1])
		}
	}
}

// Every byte that is not reserved must come back from where it was, so no field is left out, cut or at a wrong offset.
func TestDecodeAppend(t *testing.T) {
	for _, c := range structures {
		in := make([]byte, c.size)
		for i := range in {
			in[i] = byte(i + 1)
		}
		c.s.Decode(in)
		for _, r := range c.reserved {
			clear(in[r[0]:r[1]])
		}
		prefix := []byte("before")
		got := c.s.AppendTo(prefix)
		if !bytes.HasPrefix(got, prefix) || !bytes.Equal(got[len(prefix):], in) {
			t.Errorf("%s: %x came back as %x", c.name, in, got[len(prefix):])
		}
	}
}

func TestShortInputPanics(t *testing.T) {
	for _, c := range structures {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: %d bytes are taken for %d", c.name, c.size-1, c.size)
				}
			}()
			c.s.Decode(make([]byte, c.size-1))
		}()
	}
}

// The superblock of the image that C mkcomposefs 1.0.8 makes of an empty root directory with mtime 1.
func TestSuperblockOfMkcomposefs(t *testing.T) {
	raw, err := hex.DecodeString("e2e1f5e0" + "00000000" + "06000000" + "0c00" + "2400" + "0101000000000000" + "0100000000000000" + "00000000" +
		"04000000" + "00000000" + "02000000" + strings.Repeat("00", 80))
	if err != nil {
		t.Fatal(err)
	}
	want := Superblock{
		Magic: SuperMagic, FeatureCompat: CompatMtime | CompatXattrFilter, BlockBits: 12, RootNid: 36,
		Inodes: 257, Epoch: 1, Blocks: 4, XattrBlock: 2,
	}
	var got Superblock
	got.Decode(raw)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		f        Format
		layout   Layout
		extended bool
	}{
		{0, FlatPlain, false}, {1, FlatPlain, true}, {4, FlatInline, false}, {5, FlatInline, true},
		{8, ChunkBased, false}, {9, ChunkBased, true}, {2, CompressedFull, false}, {7, CompressedCompact, true},
	} {
		if c.f.Layout() != c.layout || c.f.Extended() != c.extended {
			t.Errorf("%d is layout %d, extended %t", c.f, c.f.Layout(), c.f.Extended())
		}
		if got := MakeFormat(c.layout, c.extended); got != c.f {
			t.Errorf("MakeFormat(%d, %t) = %d, want %d", c.layout, c.extended, got, c.f)
		}
		if got := c.layout.Compressed(); got != (c.layout == 1 || c.layout == 3) {
			t.Errorf("layout %d: compressed is %t", c.layout, got)
		}
	}
	if FormatKnown != 0x0f {
		t.Errorf("FormatKnown = %#x", FormatKnown)
	}
}

func TestFileTypes(t *testing.T) {
	for typ := TypeRegular; typ <= TypeSymlink; typ++ {
		if got := TypeOfMode(typ.ModeType() | 0o7777); got != typ {
			t.Errorf("type %d comes back as %d", typ, got)
		}
	}
	for _, typ := range []FileType{TypeUnknown, 8, 255} {
		if got := typ.ModeType(); got != 0 {
			t.Errorf("type %d has mode %o", typ, got)
		}
	}
	for _, mode := range []uint32{0, 0o644, 0o170000, 0o110000} {
		if got := TypeOfMode(mode); got != TypeUnknown {
			t.Errorf("mode %o has type %d", mode, got)
		}
	}
}

func TestXattrSizes(t *testing.T) {
	for count, size := range map[uint16]int{0: 0, 1: 12, 2: 16, 65535: 12 + 4*65534} {
		if got := XattrAreaSize(count); got != size {
			t.Errorf("XattrAreaSize(%d) = %d, want %d", count, got, size)
		}
		if got := XattrCount(size); got != count {
			t.Errorf("XattrCount(%d) = %d, want %d", size, got, count)
		}
	}
	for _, c := range []struct {
		e    XattrEntry
		size int
	}{{XattrEntry{}, 4}, {XattrEntry{NameLen: 1}, 8}, {XattrEntry{NameLen: 4}, 8}, {XattrEntry{NameLen: 255, ValueSize: 65535}, 65796}} {
		if got := c.e.Size(); got != c.size {
			t.Errorf("size of %+v is %d, want %d", c.e, got, c.size)
		}
	}
}

func TestXattrPrefixes(t *testing.T) {
	for i, want := range []string{"", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "lustre.", "security."} {
		if got, ok := XattrIndex(i).Prefix(); !ok || got != want {
			t.Errorf("prefix %d is %q, %t; want %q", i, got, ok, want)
		}
	}
	for _, i := range []XattrIndex{7, XattrLongPrefix, 255} {
		if got, ok := i.Prefix(); ok {
			t.Errorf("prefix %d is %q", i, got)
		}
	}
}
