package pkgdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

// expand is what a file of testdata/rpm has.
func expand(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/rpm", name))
	must(t, err)
	z, err := zstd.NewReader(nil)
	must(t, err)
	defer z.Close()
	b, err = z.DecodeAll(b, nil)
	must(t, err)
	return b
}

// rpmSample is a database of testdata/rpm, as a tree.
func rpmSample(t testing.TB, name string) fstest.MapFS {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata/rpm", name, "*.zst"))
	must(t, err)
	tree := fstest.MapFS{}
	for _, n := range names {
		base := strings.TrimSuffix(filepath.Base(n), ".zst")
		tree["var/lib/rpm/"+base] = &fstest.MapFile{Data: expand(t, filepath.Join(name, base+".zst"))}
	}
	return tree
}

// rpmSamples are all of them.
func rpmSamples(t testing.TB) map[string]fs.FS {
	t.Helper()
	trees := map[string]fs.FS{}
	for _, name := range []string{"centos5", "libuuid", "mariner", "sle15-bci", "ubi8-s390x"} {
		trees[name] = rpmSample(t, name)
	}
	return trees
}

// largeSamples are those of a directory that testdata/rpm/README tells of, if there is one.
func largeSamples(t *testing.T) map[string]fs.FS {
	t.Helper()
	trees := map[string]fs.FS{}
	dir := os.Getenv("FLATROOT_RPMDBS")
	if dir == "" {
		return trees
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	for _, n := range names {
		if n.Name() == "ubi8-s390x" {
			trees["ubi8-s390x-whole"] = below{os.DirFS(filepath.Join(dir, n.Name()))}
		} else if n.IsDir() {
			trees[n.Name()] = below{os.DirFS(filepath.Join(dir, n.Name()))}
		}
	}
	return trees
}

// below is a tree that has another one as its var/lib/rpm.
type below struct{ fs.FS }

func (b below) Open(name string) (fs.File, error) {
	if name == "var/lib/rpm" {
		return b.FS.Open(".")
	}
	if rest, ok := strings.CutPrefix(name, "var/lib/rpm/"); ok {
		return b.FS.Open(rest)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// expectGolden looks for a line about the only database in golden.txt.
func expectGolden(t *testing.T, name string, dbs []Database) {
	t.Helper()
	b, err := os.ReadFile("testdata/rpm/golden.txt")
	must(t, err)
	if len(dbs) != 1 {
		t.Fatalf("%s: %d databases", name, len(dbs))
	}
	if line := golden(name, dbs[0]); !strings.Contains("\n"+string(b), "\n"+line+"\n") {
		t.Errorf("no such line in golden.txt:\n%s", line)
	}
}

// golden is the line of golden.txt about a database.
func golden(name string, d Database) string {
	var all []string
	changes, owned := 0, 0
	for _, p := range d.Packages {
		var dates []string
		for _, c := range p.Changes {
			dates = append(dates, fmt.Sprint(c.Unix()))
		}
		changes += len(p.Changes)
		owned += len(p.Paths)
		all = append(all, fmt.Sprintf("%s|%s|%s|%s|%d|%s|%s\n", p.Name, p.Version, p.Arch, p.Source, p.Built.Unix(),
			strings.Join(dates, " "), strings.Join(p.Paths, "\t")))
	}
	slices.Sort(all)
	return fmt.Sprintf("%s %d %d %d %x", name, len(d.Packages), changes, owned, sha256.Sum256([]byte(strings.Join(all, ""))))
}

// What real databases have is what rpm finds in them.
func TestRpmGolden(t *testing.T) {
	trees := largeSamples(t)
	maps.Copy(trees, rpmSamples(t))
	for name, tree := range trees {
		dbs, err := Read(tree, ReadOptions{})
		must(t, err)
		expectGolden(t, name, dbs)
	}
}

// Files that can't be read in place give the same.
func TestRpmInMemory(t *testing.T) {
	for name, tree := range rpmSamples(t) {
		want, err := Read(tree, ReadOptions{})
		must(t, err)
		got, err := Read(plainFS{tree}, ReadOptions{})
		must(t, err)
		if render(got) != render(want) {
			t.Errorf("%s is another", name)
		}
	}
}

// tag is one that headerOf writes. A value is a uint32, a string, or a list of them.
type tag struct {
	number uint32
	value  any
}

// headerOf writes a header.
func headerOf(tags ...tag) []byte {
	var index, data []byte
	for _, g := range tags {
		kind, count := uint32(typeString), 1
		if _, ok := g.value.([]uint32); ok {
			for len(data)%4 != 0 {
				data = append(data, 0)
			}
		}
		start := len(data)
		switch v := g.value.(type) {
		case string:
			data = append(append(data, v...), 0)
		case []string:
			kind, count = typeStringArray, len(v)
			for _, s := range v {
				data = append(append(data, s...), 0)
			}
		case []uint32:
			kind, count = typeInt32, len(v)
			for _, n := range v {
				data = binary.BigEndian.AppendUint32(data, n)
			}
		}
		for _, n := range []uint32{g.number, kind, uint32(start), uint32(count)} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(data)))
	return slices.Concat(head, index, data)
}

func TestHeader(t *testing.T) {
	for _, c := range []struct {
		name string
		tags []tag
		want string
	}{
		{"most", []tag{
			{tagName, "a"}, {tagVersion, "1.2"}, {tagRelease, "3"}, {tagEpoch, []uint32{4}}, {tagArch, "x86_64"},
			{tagSourceRPM, "b-c-1.2-3.src.rpm"}, {tagBuildTime, []uint32{86400}},
			{tagChangelogTime, []uint32{172800, 172800, 86400, 172800, 4294967295}},
			{tagDirIndexes, []uint32{1, 0, 1}}, {tagBaseNames, []string{"x", "y", ""}}, {tagDirNames, []string{"/etc/", "/usr/"}},
		}, "a|4:1.2-3|x86_64|b-c\n  built 1970-01-02T00:00:00Z\n  changed 2106-02-07T06:28:15Z\n  changed 1970-01-03T00:00:00Z\n" +
			"  changed 1970-01-02T00:00:00Z\n  /etc/y\n  /usr\n  /usr/x\n"},
		{"least", []tag{{tagName, "a"}}, "a|||a\n"},
		{"nothing built", []tag{{tagName, "a"}, {tagSourceRPM, "(none)"}}, "a|||a\n"},
		{"odd source", []tag{{tagName, "a"}, {tagSourceRPM, "b-1.nosrc.rpm"}}, "a|||b-1\n"},
		{"added at installation", []tag{{tagName, "a"}, {tagArch, "x"}, {tagArch, "y"}}, "a||y|a\n"},
		{"unknown tags", []tag{{tagName, "a"}, {63, "x"}, {9999, []uint32{1}}}, "a|||a\n"},
		{"before rpm 4", []tag{{tagName, "a"}, {tagOldFileNames, []string{"/b", "/a"}}}, "a|||a\n  /a\n  /b\n"},
	} {
		p, err := parseHeader(newTree(fstest.MapFS{}), headerOf(c.tags...))
		must(t, err)
		d := Database{Kind: "rpm", Packages: []Package{*p}}
		d.sort()
		if got := render([]Database{d}); got != "rpm\n"+c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestHeaderErrors(t *testing.T) {
	good := headerOf(tag{tagName, "a"})
	change := func(off int, b ...byte) []byte {
		c := slices.Clone(good)
		copy(c[off:], b)
		return c
	}
	files := func(names, dirs []string, indexes ...uint32) []byte {
		return headerOf(tag{tagName, "a"}, tag{tagDirIndexes, indexes}, tag{tagBaseNames, names}, tag{tagDirNames, dirs})
	}
	deep := strings.Repeat("d/", 1000)
	for _, c := range []struct {
		header []byte
		want   string
	}{
		{nil, "a header of 0 bytes"},
		{good[:len(good)-1], "that should have"},
		{change(0, 0xff, 0xff, 0xff, 0xff), "that should have 4294967295 tags"},
		{change(4, 0xff), "that should have"},
		{change(15, typeInt32), "tag 1000 has values of type 4, not 6"},
		{change(19, 2), "tag 1000 has values at 2, behind the end at 2"},
		{change(len(good)-1, 'x'), "a string without an end"},
		{headerOf(tag{tagEpoch, "x"}), "tag 1003 has values of type 6"},
		{headerOf(tag{tagBuildTime, "x"}), "tag 1006 has values of type 6"},
		{headerOf(tag{tagChangelogTime, "x"}), "tag 1080 has values of type 6"},
		{headerOf(tag{tagName, "a"}, tag{tagOldFileNames, "x"}), "tag 1027 has values of type 6"},
		{headerOf(tag{tagName, "a"}, tag{tagOldFileNames, []string{"\x00"}}), ""},
		{files([]string{"x"}, []string{"/"}, 1), "directory 1 of 1"},
		{files([]string{"x"}, nil, 0), "tag 1118 has values at 10, behind the end at 10"},
		{files([]string{"x"}, []string{"/"}), "1 names of files, and 0 numbers of directories"},
		{files([]string{"x", "y"}, []string{"/"}, 0), "2 names of files, and 1 numbers of directories"},
		{files(make([]string, 1000), []string{deep}, make([]uint32, 1000)...), "the paths are far longer"},
		{files([]string{"x"}, []string{deep + deep + deep}, 0), "a path of 6001 bytes"},
	} {
		p, err := parseHeader(newTree(fstest.MapFS{}), c.header)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("got %+v, %v, want %q", p, err, c.want)
		}
	}
	many := headerOf(tag{tagDirNames, []string{"/"}}, tag{tagBuildTime, []uint32{1}})
	for _, off := range []int{headerPreamble + 12, headerPreamble + headerEntry + 12} { // how many there are
		b := slices.Clone(many)
		binary.BigEndian.PutUint32(b[off:], 1<<30)
		h, err := newHeader(b)
		must(t, err)
		_, errDirs := h.directories()
		_, errTimes := h.int32s(tagBuildTime)
		if errDirs == nil && errTimes == nil {
			t.Error("2³⁰ values, and no error")
		}
	}
}

// ndbOf writes a file of rpm's ndb, without a free slot before the end of the page.
func ndbOf(headers ...[]byte) []byte {
	page := make([]byte, ndbPage)
	copy(page, "RpmP")
	binary.LittleEndian.PutUint32(page[12:], 1)
	for off := ndbHeader; off < ndbPage; off += ndbSlot {
		copy(page[off:], "Slot")
	}
	for i, h := range headers {
		size := (ndbHead + len(h) + ndbTail + ndbBlock - 1) / ndbBlock * ndbBlock
		slot := page[ndbHeader+i*ndbSlot:]
		for j, n := range []int{i + 1, len(page) / ndbBlock, size / ndbBlock} {
			binary.LittleEndian.PutUint32(slot[4+4*j:], uint32(n))
		}
		b := make([]byte, size)
		copy(b, "BlbS")
		binary.LittleEndian.PutUint32(b[4:], uint32(i+1))
		binary.LittleEndian.PutUint32(b[12:], uint32(len(h)))
		copy(b[ndbHead:], h)
		tail := b[size-ndbTail:]
		binary.LittleEndian.PutUint32(tail, adler32.Checksum(b[:size-ndbTail]))
		binary.LittleEndian.PutUint32(tail[4:], uint32(len(h)))
		copy(tail[8:], "BlbE")
		page = append(page, b...)
	}
	return page
}

func rpmTree(name string, b []byte) fstest.MapFS {
	return fstest.MapFS{path.Join("var/lib/rpm", name): &fstest.MapFile{Data: b}}
}

func TestNdb(t *testing.T) {
	b := ndbOf(headerOf(tag{tagName, "b"}), headerOf(tag{tagName, "gpg-pubkey"}), headerOf(tag{tagName, "a"}))
	expect(t, rpmTree("Packages.db", b), "rpm\nfile /var/lib/rpm/Packages.db\na|||a\nb|||b\n")
	expect(t, rpmTree("Packages.db", ndbOf()), "rpm\nfile /var/lib/rpm/Packages.db\n")
}

func TestNdbErrors(t *testing.T) {
	good := ndbOf(headerOf(tag{tagName, "a"}))
	for _, c := range []struct {
		off  int
		with string
		want string
	}{
		{0, "X", "it has not the beginning"},
		{4, "\x01", "it has not the beginning"},
		{12, "\xff\xff\xff\xff", "page 1 of slots"},
		{32, "X", "slot at 32: it has not the beginning of a slot"},
		{36, "\x02", "package 2 at 4096: its header doesn't begin there"},
		{40, "\x00\x00", "package 1 at 0: its header doesn't begin there"},
		{40, "\xff\xff\xff\xff", "behind the end"},
		{44, "\x00", "its header doesn't begin there"},
		{44, "\x01", "its header doesn't begin there"},
		{44, "\xff\xff\xff", "a header of 268435440 bytes: with it they have more"},
		{44, "\xff\xff\xff\xff", "a header of 68719476720 bytes, of at most"},
		{4096 + 12, "\xff", "doesn't end in 4 blocks"},
		{4096 + 20, "\xff", "the checksum is another"},
		{4096 + 4*16 - 1, "X", "doesn't end in 4 blocks"},
	} {
		b := slices.Clone(good)
		copy(b[c.off:], c.with)
		expectError(t, rpmTree("Packages.db", b), "var/lib/rpm/Packages.db: ", c.want)
	}
	expectError(t, rpmTree("Packages.db", good[:20]), "32 bytes at 0 are behind the end at 20")
	for off := ndbHeader + ndbSlot; off < ndbPage; off += ndbSlot {
		copy(good[off:], good[ndbHeader:ndbHeader+ndbSlot])
	}
	expectError(t, rpmTree("Packages.db", good), "slot at 1072: a header of 64 bytes: with it they have more in all than the file")
}

// bdbOf writes a file of Berkeley DB with headers in overflow pages, but for the last one, which is in the page of the hash.
func bdbOf(order binary.AppendByteOrder, kind byte, pageSize int, headers ...[]byte) []byte {
	const hash = 1
	next := hash + 1
	pages := [][]byte{make([]byte, pageSize), make([]byte, pageSize)}
	put := order.(binary.ByteOrder)
	pages[hash][25] = kind
	items := [][]byte{{bdbInline, 0, 0, 0, 0}, {bdbInline, 9, 0, 0, 0}}
	for i, h := range headers {
		items = append(items, []byte{bdbInline, byte(i + 1), 0, 0, 0})
		if i > 0 && i == len(headers)-1 {
			items = append(items, append([]byte{bdbInline}, h...))
			continue
		}
		out := order.AppendUint32([]byte{bdbOutside, 0, 0, 0}, uint32(next))
		items = append(items, order.AppendUint32(out, uint32(len(h))))
		for len(h) > 0 {
			p := make([]byte, pageSize)
			n := copy(p[bdbPageHead:], h)
			h = h[n:]
			next++
			p[25] = bdbOverflow
			put.PutUint16(p[22:], uint16(n))
			if len(h) > 0 {
				put.PutUint32(p[16:], uint32(next))
			}
			pages = append(pages, p)
		}
	}
	end := pageSize
	for i, item := range items {
		end -= len(item)
		copy(pages[hash][end:], item)
		put.PutUint16(pages[hash][bdbPageHead+2*i:], uint16(end))
	}
	put.PutUint16(pages[hash][20:], uint16(len(items)))
	meta := pages[0]
	put.PutUint32(meta[12:], bdbMagic)
	put.PutUint32(meta[20:], uint32(pageSize))
	meta[25] = bdbMeta
	put.PutUint32(meta[32:], uint32(len(pages)-1))
	return bytes.Join(pages, nil)
}

func bdbHeaders() [][]byte {
	long := headerOf(tag{tagName, "b"}, tag{9999, strings.Repeat("x", 1500)})
	return [][]byte{long, headerOf(tag{tagName, "c"}), headerOf(tag{tagName, "a"})}
}

func TestBDB(t *testing.T) {
	for _, kind := range []byte{bdbHash, bdbUnsorted} {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			expect(t, rpmTree("Packages", bdbOf(order, kind, 512, bdbHeaders()...)),
				"rpm\nfile /var/lib/rpm/Packages\na|||a\nb|||b\nc|||c\n")
		}
	}
}

func TestBDBErrors(t *testing.T) {
	good := bdbOf(binary.LittleEndian, bdbHash, 512, bdbHeaders()...)
	const page, first = 512, 1024 // the hash's page, and the first with a header
	outside := bytes.Index(good[page:first], []byte{bdbOutside, 0, 0, 0, 2}) + page
	for _, c := range []struct {
		off  int
		with string
		want string
	}{
		{12, "X", "it has not the beginning"},
		{25, "X", "it has not the beginning"},
		{24, "\x01", "encryption"},
		{26, "\x01", "encryption or checksums"},
		{20, "\x01", "pages of 513 bytes"},
		{20, "\x00\x01", "pages of 256 bytes"},
		{20, "\x00\x00\x02", "pages of 131072 bytes"},
		{32, "\xff\xff\xff\xff", "behind the end"},
		{page + 20, "\x03", "page 1: 3 keys and values"},
		{page + 20, "\xfe\xff", "page 1: 65534 keys and values"},
		{page + 26, "\x00\x00", "page 1: item 0 is at 0 to 512"},
		{page + 28, "\xff\x01", "page 1: item 1 is at 511 to"},
		{outside, "\x02", "page 1: value 1: 12 bytes of type 2 are no header"},
		{outside + 4, "\x01", "page 1: value 1: page 1, of type 13, doesn't go on"},
		{outside + 4, "\xff\xff\xff\xff", "page 1: value 1: 512 bytes at"},
		{outside + 4, "\x00", "is longer or shorter"},
		{outside + 8, "\x01", "is longer or shorter"},
		{outside + 8, "\xff\xff", "with it they have more in all than the file"},
		{outside + 8, "\xff\xff\xff\xff", "of at most"},
		{first + 16, "\x02", "is longer or shorter"},
		{first + 22, "\x00\x00", "doesn't go on"},
		{first + 22, "\xff\xff", "doesn't go on"},
	} {
		b := slices.Clone(good)
		copy(b[c.off:], c.with)
		expectError(t, rpmTree("Packages", b), "var/lib/rpm/Packages: ", c.want)
	}
	expectError(t, rpmTree("Packages", good[:len(good)-1]), "512 bytes at 3072 are behind the end at 3583")
}

// Of a converted database the newest format counts, unless it is empty.
func TestRpmFormats(t *testing.T) {
	a, b := headerOf(tag{tagName, "a"}), headerOf(tag{tagName, "b"})
	tree := fstest.MapFS{
		"usr/share/rpm/rpmdb.sqlite":                      {},
		"usr/share/rpm/Packages.db":                       {Data: ndbOf(a)},
		"usr/share/rpm/Packages":                          {Data: bdbOf(binary.LittleEndian, bdbHash, 512, b)},
		"usr/share/rpm/sub/x":                             {},
		"usr/lib/sysimage/rpm-ostree-base-db/Packages.db": {Data: ndbOf(a)},
		"var/lib/rpm":                                     {Data: []byte("../../usr/share/rpm"), Mode: fs.ModeSymlink},
	}
	expect(t, tree, `rpm
file /usr/lib/sysimage/rpm-ostree-base-db/Packages.db
file /usr/share/rpm/Packages
file /usr/share/rpm/Packages.db
file /usr/share/rpm/rpmdb.sqlite
file /var/lib/rpm/Packages
file /var/lib/rpm/Packages.db
file /var/lib/rpm/rpmdb.sqlite
a|||a
`)
	delete(tree, "usr/share/rpm/Packages.db")
	delete(tree, "var/lib/rpm")
	delete(tree, "usr/lib/sysimage/rpm-ostree-base-db/Packages.db")
	expect(t, tree, "rpm\nfile /usr/share/rpm/Packages\nfile /usr/share/rpm/rpmdb.sqlite\nb|||b\n")
	expectError(t, rpmTree("Packages", bdbOf(binary.LittleEndian, bdbHash, 512, headerOf(tag{tagArch, "x"}))),
		"a package without a name")
}
