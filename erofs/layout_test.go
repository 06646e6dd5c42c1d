package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

func TestCheckRange(t *testing.T) {
	m := &Image{size: 100}
	for _, c := range []struct {
		off, n uint64
		ok     bool
	}{
		{0, 0, true}, {0, 100, true}, {99, 1, true}, {100, 0, true},
		{0, 101, false}, {99, 2, false}, {100, 1, false}, {101, 0, false},
		{math.MaxUint64, 0, false}, {math.MaxUint64, 1, false}, {1, math.MaxUint64, false},
		{math.MaxUint64, math.MaxUint64, false}, {1 << 63, 1 << 63, false}, {math.MaxUint64 - 9, 20, false},
	} {
		if err := m.checkRange(c.off, c.n); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
	if _, err := m.bytes(50, 1<<60); !errors.Is(err, ErrCorrupt) {
		t.Errorf("2^60 bytes: %v", err) // and not an attempt to allocate them
	}
}

func TestInodeOffset(t *testing.T) {
	m := &Image{size: 1 << 20}
	m.super.BlockBits, m.super.MetaBlock = 16, disk.NullBlock
	for _, n := range []Nid{1<<15 + 1, 1 << 59, math.MaxUint64} {
		if _, err := m.inodeOffset(n); !errors.Is(err, ErrCorrupt) {
			t.Errorf("nid %d: %v", n, err)
		}
	}
	want := uint64(disk.NullBlock)<<16 + 32
	if off, err := m.inodeOffset(1); err != nil || off != want {
		t.Errorf("nid 1 is at %d (%v), want %d", off, err, want)
	}
}

// mkfs.erofs makes blocks of up to 64 KiB only where pages are as large, so such an image is made here: its metadata
// begins at block 1, its directory has two blocks, and a file is in the last one.
func TestBlocksOf64KiB(t *testing.T) {
	const block = 64 << 10
	b := newBuilder(5 * block)
	b.super.BlockBits, b.super.Blocks, b.super.MetaBlock, b.super.RootNid = 16, 5, 1, 3
	inode := func(nid int, i disk.ExtendedInode) { copy(b.b[block+32*nid:], i.AppendTo(nil)) }
	var names []string
	first := direntBlock(block, &names, 3)
	second := direntBlock(block/2, &names, 3)
	copy(b.b[2*block:], first)
	copy(b.b[3*block:], second)
	copy(b.b[4*block:], "data")
	inode(3, disk.ExtendedInode{Mode: dirMode, Format: 1, Size: block + uint64(len(second)), U: 2})
	inode(5, disk.ExtendedInode{Mode: fileMode, Format: 1, Size: block, U: 4})

	m := openBytes(t, b.image())
	if m.BlockSize() != block || m.Root() != 3 {
		t.Errorf("block size %d, root %d", m.BlockSize(), m.Root())
	}
	root, err := m.Inode(m.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if nid, err := root.Lookup(name); err != nil || nid != 5 && !isDot([]byte(name)) {
			t.Fatalf("%s: nid %d, %v", name, nid, err)
		}
	}
	tr := readBytes(t, b.b)
	if n, ok := tr.Lookup(tree.Root, []byte(names[len(names)-1])); !ok || tr.Digest(n).IsZero() {
		t.Error("the last name has no digest")
	}
}

// direntBlock fills a block with names behind those that are there. All lead to nid 5, and . and .. to the root.
func direntBlock(size int, names *[]string, root uint64) []byte {
	var own []string
	if len(*names) == 0 {
		own = []string{".", ".."}
	}
	used := func() int { return disk.DirentSize*len(own) + len(strings.Join(own, "")) }
	for used()+disk.DirentSize+8 <= size {
		own = append(own, fmt.Sprintf("n%07d", len(*names)+len(own)))
	}
	var heads []byte
	all := ""
	for _, name := range own {
		d := disk.Dirent{Nid: 5, NameOffset: uint16(disk.DirentSize*len(own) + len(all)), Type: disk.TypeRegular}
		if isDot([]byte(name)) {
			d.Nid, d.Type = root, disk.TypeDirectory
		}
		heads = d.AppendTo(heads)
		all += name
	}
	*names = append(*names, own...)
	return append(heads, all...)
}

func TestHoles(t *testing.T) {
	for name, put := range map[string]func(b *builder){
		"flat": func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 1, Size: 9000, U: disk.NullBlock}, nil)
		},
		"chunks": func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 9, Size: 9000}, bytes.Repeat([]byte{0xff}, 12))
		},
		"one chunk": func(b *builder) {
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 9, Size: 9000, U: 31}, bytes.Repeat([]byte{0xff}, 4))
		},
		"indexes": func(b *builder) {
			// High bits of a block number mean something with 48-bit block numbers only.
			index := disk.ChunkIndex{BlockHigh: 7, Block: disk.NullBlock}
			b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 9, Size: 9000, U: 2 | disk.ChunkIndexes}, index.AppendTo(nil))
		},
	} {
		b := sample()
		put(b)
		i, err := openBytes(t, b.image()).Inode(nidOf(2))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(i.Data()); err != nil || !bytes.Equal(got, make([]byte, 9000)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A hole of many exbibytes takes no time to hash, and data that is mapped again and again is not hashed for ever.
func TestHashLimits(t *testing.T) {
	b := sample()
	b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 1, Size: maxSize, U: disk.NullBlock}, nil)
	if _, err := readAll(b.image()); err != nil {
		t.Error(err)
	}
	b = sample()
	b.put(2, disk.ExtendedInode{Mode: fileMode, Format: 9, Size: 3 * 4096}, []byte{1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0})
	m := openBytes(t, b.image())
	if _, err := ReadTree(m, ReadOptions{DataMax: 2 * 4096}); err == nil || !strings.Contains(err.Error(), "more than 8192 bytes") {
		t.Errorf("got error %v", err)
	}
	if _, err := ReadTree(m, ReadOptions{DataMax: 3 * 4096}); err != nil {
		t.Error(err)
	}
}

func TestCompactTimes(t *testing.T) {
	b := sample()
	epoch := int64(-100)
	b.super.Epoch, b.super.EpochNsec = uint64(epoch), 5
	i := disk.CompactInode{Mode: fileMode, Nlink: 65535, Size: 0, MtimeDelta: 7, UID: 65535, GID: 3, Ino: 9}
	copy(b.b[builderBase+2*512:], i.AppendTo(nil))
	got, err := openBytes(t, b.image()).Inode(nidOf(2))
	if err != nil {
		t.Fatal(err)
	}
	want := tree.Attr{Mode: fileMode, Nlink: 65535, UID: 65535, GID: 3, MtimeSec: -93, MtimeNsec: 5}
	if got.Attr() != want || got.Ino() != 9 || got.Nid() != nidOf(2) {
		t.Errorf("got %+v, ino %d", got.Attr(), got.Ino())
	}
}

func TestChecksum(t *testing.T) {
	for bits, n := range map[uint8]int{9: 512, 10: 1024, 12: 3072, 13: 7168} {
		b := newBuilder(16 << 10)
		b.super.BlockBits, b.super.Blocks = bits, 1
		b.super.FeatureCompat |= disk.CompatChecksum
		b.add(0, disk.ExtendedInode{Mode: dirMode}, dirData(0, 0))
		b.super.Checksum = ^crc32.Checksum(b.image()[1024:1024+n], crc32.MakeTable(crc32.Castagnoli))
		img := b.image()
		if _, err := readAll(img); err != nil {
			t.Errorf("blocks of 2^%d: %v", bits, err)
		}
		img[1024+n-1]++
		if _, err := readAll(img); !errors.Is(err, ErrCorrupt) {
			t.Errorf("blocks of 2^%d: a changed byte gives %v", bits, err)
		}
	}
}

func TestDeepDirectories(t *testing.T) {
	for depth, ok := range map[int]bool{depthMax: true, depthMax + 1: false} {
		b := newBuilder(builderBase + (depth+1)*512)
		for k := range depth {
			b.add(k, disk.ExtendedInode{Mode: dirMode}, dirData(k, max(0, k-1), "d", k+1))
		}
		b.add(depth, disk.ExtendedInode{Mode: dirMode}, dirData(depth, depth-1))
		if _, err := readAll(b.image()); (err == nil) != ok {
			t.Errorf("%d directories: %v", depth, err)
		}
	}
}

// Directories whose chunks are the same blocks would give a small image any number of names.
func TestOverlappingDirectories(t *testing.T) {
	const dirs, shared, sharedBlock = 20, 8, 25
	b := newBuilder((sharedBlock + shared) * 4096)
	chunks := []byte{}
	names := []string{"-"} // so that there are no dots in the blocks
	for k := range shared {
		copy(b.b[(sharedBlock+k)*4096:], direntBlock(4096, &names, 0))
		chunks = binary.LittleEndian.AppendUint32(chunks, uint32(sharedBlock+k))
	}
	file := disk.ExtendedInode{Mode: fileMode, Format: 1}
	copy(b.b[5*32:], file.AppendTo(nil)) // all names lead there
	entries := []any{}
	for k := 1; k <= dirs; k++ {
		entries = append(entries, fmt.Sprintf("d%02d", k), k)
		copy(b.b[(4+k)*4096:], dirData(k, 0))
		b.put(k, disk.ExtendedInode{
			Mode: dirMode, Format: disk.MakeFormat(disk.ChunkBased, true), Size: (1 + shared) * 4096,
		}, append(binary.LittleEndian.AppendUint32(nil, uint32(4+k)), chunks...))
	}
	b.add(0, disk.ExtendedInode{Mode: dirMode}, dirData(0, 0, entries...))
	if _, err := readAll(b.image()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "directories are larger") {
		t.Errorf("got error %v", err)
	}
}

// Few bytes of references must not become many megabytes of xattrs.
func TestManyXattrBytes(t *testing.T) {
	b := newBuilder(256 << 10)
	b.add(0, disk.ExtendedInode{Mode: dirMode}, dirData(0, 0, "f", 1))
	h := disk.XattrHeader{SharedCount: 255}
	area := h.AppendTo(nil)
	for k := range 255 {
		e := disk.XattrEntry{NameLen: 3, ValueSize: 65535}
		off := 20000 + 8*k
		copy(b.b[off:], append(e.AppendTo(nil), fmt.Sprintf("%03d", k)...))
		area = binary.LittleEndian.AppendUint32(area, uint32(off/4))
	}
	b.addWithXattrs(1, disk.ExtendedInode{Mode: fileMode}, area, nil)
	if _, err := readAll(b.image()); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("got error %v", err)
	}
}

func TestWrongType(t *testing.T) {
	m := openBytes(t, sample().image())
	dir, file := m.mustInode(t, 1), m.mustInode(t, 2)
	if _, err := dir.ReadAt(nil, 0); !errors.Is(err, tree.ErrType) {
		t.Errorf("read of a directory: %v", err)
	}
	if _, err := dir.Target(); !errors.Is(err, tree.ErrType) {
		t.Errorf("target of a directory: %v", err)
	}
	if _, err := file.Lookup("x"); !errors.Is(err, tree.ErrNotDir) {
		t.Errorf("lookup in a file: %v", err)
	}
	for _, err := range file.Dirents() {
		if !errors.Is(err, tree.ErrNotDir) {
			t.Errorf("dirents of a file: %v", err)
		}
	}
	if _, err := dir.Lookup("x"); err != fs.ErrNotExist {
		t.Errorf("lookup of a missing name: %v", err)
	}
	if _, err := file.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("negative offset")
	}
	if n, err := file.ReadAt(make([]byte, 1), 3); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
}

func (m *Image) mustInode(t *testing.T, number int) *Inode {
	t.Helper()
	i, err := m.Inode(nidOf(number))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Which name filter a kernel would look at decides what Xattr finds.
func TestNameFilter(t *testing.T) {
	b := sample()
	area := xattrArea("trusted.a=1", "lustre.b=2")
	copy(area, []byte{0xff, 0xff, 0xff, 0xff}) // all names are said to be absent
	b.addWithXattrs(2, disk.ExtendedInode{Mode: fileMode}, area, nil)
	find := func(name string) bool {
		_, ok, err := openBytes(t, b.image()).mustInode(t, 2).Xattr(name)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !find("trusted.a") {
		t.Error("without the feature the filter means nothing")
	}
	b.super.FeatureCompat |= disk.CompatXattrFilter
	if find("trusted.a") || !find("lustre.b") {
		t.Error("the filter is not used, or for lustre names")
	}
	b.super.XattrFilterReserve = 1
	if !find("trusted.a") {
		t.Error("a filter of another kind is used")
	}
}

func TestNidSet(t *testing.T) {
	var s nidSet
	for _, n := range []Nid{0, 1, 63, 64, 4095, 4096, 1 << 40, math.MaxUint64} {
		if !s.add(n) || s.add(n) {
			t.Errorf("nid %d", n)
		}
	}
	if len(s.pages) != 4 {
		t.Errorf("%d pages", len(s.pages))
	}
}

// A walk's windows give the same bytes as the file, also where it ends, and its errors only for what can't be read.
func TestWindows(t *testing.T) {
	data := pattern(10*windowSize + 77)
	w := &windows{r: bytes.NewReader(data), size: uint64(len(data))}
	for k := range 3000 {
		off := k * 7919 * 31 % len(data)
		n := min(k%(windowSize/2), len(data)-off)
		got := make([]byte, n)
		if m, err := w.ReadAt(got, int64(off)); m != n || err != nil && err != io.EOF || !bytes.Equal(got, data[off:off+n]) {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, m, err)
		}
	}
	cut := &windows{r: bytes.NewReader(data[:100]), size: uint64(len(data))}
	if n, err := cut.ReadAt(make([]byte, 10), 90); n != 10 || err != nil {
		t.Errorf("before the cut: %d, %v", n, err)
	}
	if _, err := cut.ReadAt(make([]byte, 10), 91); err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Errorf("over the cut: %v", err)
	}
	broken := errors.New("broken disk")
	if _, err := (&windows{r: failingReader{broken}, size: 100}).ReadAt(make([]byte, 1), 5); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
}
