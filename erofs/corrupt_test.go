package erofs

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// readAll opens an image and reads all of it.
func readAll(img []byte) (*tree.Tree, error) {
	m, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		return nil, err
	}
	return ReadTree(m, ReadOptions{})
}

func TestSample(t *testing.T) {
	tr, err := readAll(sample().image())
	if err != nil {
		t.Fatal(err)
	}
	want := "/ 66 40755 1 0 0 0 0.0 - - -\n/d 27 40755 1 0 0 0 0.0 - - -\n/f 3 100644 1 0 0 0 0.0 - abc -\n/s 1 120777 1 0 0 0 0.0 f - -\n"
	if got := dumpText(t, tr); got != want {
		t.Error(differingLine(got, want))
	}
	if _, err := readAll(composefsSample(metacopy).image()); err != nil {
		t.Error(err)
	}
}

// corruption is a change to a sound image, and what of the error must be.
type corruption struct {
	name   string
	change func(b *builder)
	want   string
}

func checkCorruptions(t *testing.T, kind error, sound func() *builder, cases []corruption) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := sound()
			c.change(b)
			_, err := readAll(b.image())
			if err == nil || !errors.Is(err, kind) && kind != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestRefusedFeatures(t *testing.T) {
	feature := func(bit uint32) func(*builder) { return func(b *builder) { b.super.FeatureIncompat |= bit } }
	cases := []corruption{
		{"compression", feature(disk.IncompatComprConfigs), "uses compressed data"},
		{"devices", feature(disk.IncompatDeviceTable), "uses a device table"},
		{"tail packing", feature(disk.IncompatTailPacking), "ztailpacking"},
		{"fragments", feature(disk.IncompatFragments), "uses fragments"},
		{"48bit", feature(disk.Incompat48Bit), "uses 48-bit block numbers"},
		{"metabox", feature(disk.IncompatMetabox), "metabox"},
		{"unknown", feature(1<<30 | 1<<9), "unknown incompatible features 0x40000200"},
		{"two", feature(disk.IncompatFragments | 1<<31), "compressed data, unknown incompatible features 0x80000000"},
		{"directory blocks", func(b *builder) { b.super.DirBlockBits = 1 }, "directory blocks"},
		{"prefixes in packed inode", func(b *builder) { b.super.XattrPrefixCount, b.super.PackedNid = 1, 128 }, "packed inode"},
		{"header version", func(b *builder) { b.header = &disk.Header{Magic: disk.HeaderMagic, Version: 2} }, "version 2 of the composefs header"},
		{"composefs version", func(b *builder) {
			b.header = &disk.Header{Magic: disk.HeaderMagic, Version: 1, ComposefsVersion: 3}
		}, "version 3 of the composefs format"},
		{"header flags", func(b *builder) { b.header = &disk.Header{Magic: disk.HeaderMagic, Version: 1, Flags: 3} }, "flags 0x2"},
		{"compressed inode", func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: disk.MakeFormat(disk.CompressedFull, true)}, nil)
		}, "uses compressed data"},
		{"compact compressed inode", func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: disk.MakeFormat(disk.CompressedCompact, false)}, nil)
		}, "uses compressed data"},
		{"data layout", func(b *builder) { b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 5<<1 | 1}, nil) }, "data layout 5"},
		{"inode format", func(b *builder) { b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 0x11}, nil) }, "inode format 0x11"},
		{"chunk format", func(b *builder) { b.putChunks(0x40, nil) }, "chunk format 0x40"},
		{"chunk device", func(b *builder) { b.putChunks(0x20, []byte{0, 0, 1, 0, 1, 0, 0, 0}) }, "device 1"},
	}
	checkCorruptions(t, nil, sample, cases)
	for _, c := range cases {
		b := sample()
		c.change(b)
		_, err := readAll(b.image())
		if unsupported := new(UnsupportedError); !errors.As(err, &unsupported) {
			t.Errorf("%s: %v is no UnsupportedError", c.name, err)
		}
	}
}

// putChunks makes f a chunk-based file of 100 bytes.
func (b *builder) putChunks(format uint32, chunks []byte) {
	b.put(2, disk.ExtendedInode{Mode: fileMode, Format: disk.MakeFormat(disk.ChunkBased, true), Size: 100, U: format}, chunks)
}

func TestNotImage(t *testing.T) {
	wrongMagic := sample()
	wrongMagic.super.Magic++
	for name, img := range map[string][]byte{"empty": nil, "short": make([]byte, 1151), "zeros": make([]byte, 4096), "magic": wrongMagic.image()} {
		if _, err := readAll(img); !errors.Is(err, ErrNotImage) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	if _, err := Open(bytes.NewReader(nil), -1); !errors.Is(err, ErrNotImage) {
		t.Errorf("negative size: got error %v", err)
	}
}

func TestCorruptSuperblock(t *testing.T) {
	checkCorruptions(t, ErrCorrupt, sample, []corruption{
		{"block of 256 bytes", func(b *builder) { b.super.BlockBits = 8 }, "block size 2^8"},
		{"block of 128 KiB", func(b *builder) { b.super.BlockBits = 17 }, "block size 2^17"},
		{"more blocks than bytes", func(b *builder) { b.super.Blocks = 5 }, "truncated"},
		{"most blocks", func(b *builder) { b.super.Blocks, b.super.BlockBits = disk.NullBlock, 16 }, "truncated"},
		{"extension slots", func(b *builder) { b.super.ExtSlots, b.b = 255, b.b[:5000]; b.super.Blocks = 1 }, "behind the end"},
		{"checksum", func(b *builder) { b.super.FeatureCompat |= disk.CompatChecksum }, "checksum"},
		{"root beyond the end", func(b *builder) { b.super.RootNid = 0xffff }, "root directory: inode 65535"},
		{"root is a file", func(b *builder) { b.super.RootNid = uint16(nidOf(2)) }, "root is not a directory"},
		{"metadata beyond the end", func(b *builder) { b.super.MetaBlock = disk.NullBlock }, "behind the end"},
		{"prefixes beyond the end", func(b *builder) { b.super.XattrPrefixCount, b.super.XattrPrefixStart = 1, disk.NullBlock }, "xattr name prefixes"},
		{"prefix of no bytes", func(b *builder) { b.super.XattrPrefixCount, b.super.XattrPrefixStart = 1, 2000/4 }, "xattr name prefixes"},
	})
	checkCorruptions(t, ErrCorrupt, func() *builder { return composefsSample(metacopy) }, []corruption{
		{"composefs with other blocks", func(b *builder) { b.super.BlockBits = 9 }, "blocks of 512 bytes"},
		{"composefs with features", func(b *builder) { b.super.FeatureIncompat = disk.IncompatZeroPadding }, "incompatible features"},
		{"composefs with compatible features", func(b *builder) { b.super.FeatureCompat |= 8 }, "compatible features"},
		{"composefs with a metadata area", func(b *builder) { b.super.MetaBlock = 1 }, "metadata area"},
	})
}

func TestCorruptInode(t *testing.T) {
	put := func(i disk.ExtendedInode, after string) func(*builder) {
		i.Format |= 1
		return func(b *builder) { b.put(2, i, []byte(after)) }
	}
	link := func(target string) func(*builder) {
		return func(b *builder) { b.add(2, disk.ExtendedInode{Mode: 0o120777}, []byte(target)) }
	}
	checkCorruptions(t, ErrCorrupt, sample, []corruption{
		{"no type", put(disk.ExtendedInode{Mode: 0o644}, ""), "no file type"},
		{"unknown type", put(disk.ExtendedInode{Mode: 0o170644}, ""), "no file type"},
		{"negative size", put(disk.ExtendedInode{Mode: fileMode, Size: maxSize + 1}, ""), "size 9223372036854775808"},
		{"xattrs beyond the end", put(disk.ExtendedInode{Mode: fileMode, XattrCount: 65535}, ""), "behind the end"},
		{"data beyond the end", put(disk.ExtendedInode{Mode: fileMode, Size: 100, U: 4}, ""), "behind the end"},
		{"data far beyond the end", put(disk.ExtendedInode{Mode: fileMode, Size: maxSize, U: disk.NullBlock - 1}, ""), "behind the end"},
		{"tail in two blocks", put(disk.ExtendedInode{Mode: fileMode, Format: 4, Size: 4095}, ""), "crosses the end of a block"},
		{"chunk beyond the end", func(b *builder) { b.putChunks(0, []byte{99, 0, 0, 0}) }, "behind the end"},
		{"chunk map beyond the end", func(b *builder) {
			b.add(0, disk.ExtendedInode{Mode: dirMode}, dirData(0, 0, "f", 2))
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: disk.MakeFormat(disk.ChunkBased, true), Size: maxSize}, bytes.Repeat([]byte{0xff}, 1<<20))
		}, "behind the end"},
		{"empty target", link(""), "target of 0 bytes"},
		{"NUL in the target", link("a\x00b"), "NUL"},
		{"target of 4096 bytes", put(disk.ExtendedInode{Mode: 0o120777, Size: 4096, U: 1}, ""), "target of 4096 bytes"},
	})
}

func TestCorruptDirectory(t *testing.T) {
	root := func(data []byte) func(*builder) {
		return func(b *builder) { b.add(0, disk.ExtendedInode{Mode: dirMode}, data) }
	}
	firstName := func(offset byte) func(*builder) {
		data := dirData(0, 0)
		data[8] = offset
		return root(data)
	}
	typed := dirData(0, 0, "f", 2)
	typed[2*disk.DirentSize+10] = byte(disk.TypeDirectory)
	checkCorruptions(t, ErrCorrupt, sample, []corruption{
		{"empty", root(nil), "has no . or no .."},
		{"too short for a dirent", root(make([]byte, 11)), "no room"},
		{"names at 0", firstName(0), "names begin at 0"},
		{"names within a dirent", firstName(13), "names begin at 13"},
		{"names at the end", firstName(36), "names begin at 36"},
		{"no dots", root(dirData(0, 0)[:0]), "has no . or no .."},
		{"wrong dot", root(dirData(1, 0)), ". leads to inode 144, not 128"},
		{"wrong dots", root(dirData(0, 1)), ".. leads to inode 144, not 128"},
		{"order", root(dirData(0, 0, "f", 2, "d", 1)), `"d" is not after "f"`},
		{"twice", root(dirData(0, 0, "f", 2, "f", 2)), `"f" is not after "f"`},
		{"slash", root(dirData(0, 0, "a/b", 2)), "slash"},
		{"NUL", root(dirData(0, 0, "a\x00b", 2, "c", 2)), "NUL"},
		{"empty name", root(dirData(0, 0, "", 2, "a", 2)), "the name is at"},
		{"long name", root(dirData(0, 0, strings.Repeat("n", 256), 2)), "256 bytes"},
		{"wrong type", root(typed), "type 2, but inode 160 has mode 0100644"},
		{"inode beyond the end", root(dirData(0, 0, "f", 1<<40)), "behind the end"},
		{"loop to the root", root(dirData(0, 0, "d", 0)), "which has another name"},
		{"two names of a directory", root(dirData(0, 0, "d", 1, "e", 1)), "which has another name"},
		{"larger than the image", func(b *builder) {
			b.put(0, disk.ExtendedInode{Mode: dirMode, Format: 1, Size: 1 << 40}, nil)
		}, "larger than the image"},
	})
}

func TestCorruptXattrs(t *testing.T) {
	area := func(area []byte) func(*builder) {
		return func(b *builder) { b.addWithXattrs(2, disk.ExtendedInode{Mode: fileMode}, area, nil) }
	}
	changed := func(at int, value byte) func(*builder) {
		a := xattrArea("abcd=value")
		a[at] = value
		return area(a)
	}
	checkCorruptions(t, ErrCorrupt, sample, []corruption{
		{"references", changed(4, 5), "no room"},
		{"reference beyond the end", func(b *builder) {
			b.super.XattrBlock = 4
			changed(4, 1)(b)
		}, "shared xattr"},
		{"reference far beyond the end", func(b *builder) {
			b.super.XattrBlock = disk.NullBlock
			changed(4, 1)(b)
		}, "shared xattr"},
		{"long name", changed(12, 255), "no room"},
		{"long value", changed(15, 255), "no room"},
		{"prefix", changed(13, 7), "unknown name prefix 0x7"},
		{"long prefix", changed(13, 0x80), "unknown name prefix 0x80"},
		{"no name", area(xattrArea("=value")), "name of 0 bytes"},
		{"twice", area(xattrArea("a=1", "a=1")), "twice"},
	})
}

func TestCorruptBacking(t *testing.T) {
	cases := []corruption{{"none", nil, "without metacopy"}}
	for name, x := range map[string]string{
		"length":          "\x00\x25\x00\x01" + strings.Repeat("a", 32),
		"version":         "\x01\x24\x00\x01" + strings.Repeat("a", 32),
		"flags":           "\x00\x24\x01\x01" + strings.Repeat("a", 32),
		"algorithm":       "\x00\x24\x00\x02" + strings.Repeat("a", 32),
		"other algorithm": "\x00\x24\x00\x03" + strings.Repeat("a", 32),
		"no digest":       "\x00\x04\x00\x00",
		"short":           "\x00",
	} {
		cases = append(cases, corruption{"metacopy " + name, func(b *builder) { b.addBacked(2, 3, xattrMetacopy+"="+x) }, "metacopy value"})
	}
	backed := func(want string, xattrs ...string) corruption {
		return corruption{want, func(b *builder) { b.addBacked(2, 3, xattrs...) }, want}
	}
	cases = append(cases,
		backed("redirect to", metacopy, "trusted.overlay.redirect=aa/bb"),
		backed("redirect without metacopy", "trusted.overlay.redirect=/aa/bb"),
		backed(`xattr "trusted.overlay.origin", which composefs escapes`, metacopy, "trusted.overlay.origin=x"),
		corruption{"size", func(b *builder) { b.addBacked(2, 0, metacopy) }, "metacopy on an empty file"},
		corruption{"inline", func(b *builder) {
			b.addWithXattrs(2, disk.ExtendedInode{Mode: fileMode}, xattrArea(metacopy), []byte("abc"))
		}, "data is in the image"},
		corruption{"directory", func(b *builder) {
			b.addWithXattrs(1, disk.ExtendedInode{Mode: dirMode}, xattrArea(metacopy), dirData(1, 0))
		}, "which composefs escapes"},
		corruption{"whiteout", func(b *builder) { b.add(2, disk.ExtendedInode{Mode: 0o020644}, nil) }, "whiteout that is not escaped"},
		corruption{"inline content", func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 1, Size: 5001, U: 1}, nil)
		}, "inline content of 5001 bytes"},
	)
	cases[0].change = func(b *builder) { b.addBacked(2, 3) }
	checkCorruptions(t, ErrCorrupt, func() *builder { return composefsSample(metacopy) }, cases)
}

// Two algorithms in one image can't both be the tree's.
func TestMixedAlgorithms(t *testing.T) {
	b := composefsSample(metacopy)
	b.addBacked(3, 5, "trusted.overlay.metacopy=\x00\x44\x00\x02"+strings.Repeat("a", 64))
	if _, err := readAll(b.image()); !errors.Is(err, tree.ErrValue) {
		t.Errorf("got error %v", err)
	}
}

func TestReaderErrors(t *testing.T) {
	img := sample().image()
	broken := errors.New("broken disk")
	if _, err := Open(failingReader{broken}, int64(len(img))); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
	if _, err := Open(bytes.NewReader(img[:1200]), int64(len(img))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got error %v", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }
