package pkgdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// What SQLite wrote with pages of all sizes is read whole: testdata/sqlite/make.py says what it is.
func TestSQLitePages(t *testing.T) {
	names, err := filepath.Glob("testdata/sqlite/*-*[0-9].zst")
	must(t, err)
	if len(names) != 5 {
		t.Fatalf("%d databases", len(names))
	}
	for _, n := range names {
		dbs, err := Read(rpmTree("rpmdb.sqlite", expand(t, "../sqlite/"+filepath.Base(n))), ReadOptions{})
		must(t, err)
		var got, want []string
		for _, p := range dbs[0].Packages {
			got = append(got, p.Name+" "+p.Arch)
		}
		for n := 1; n <= 400; n++ {
			size := n * n * n % 997
			if n%50 == 0 {
				size = n * n
			}
			if n%5 != 1 || n%7 == 0 {
				want = append(want, fmt.Sprintf("p%03d %d", n, size))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d packages: %s", n, len(got), got)
		}
	}
}

const mariner, marinerLog = "var/lib/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite-wal"

// A log counts as far as it is whole, and as transactions in it ended. Its pages have 4096 bytes, and 24 before each.
func TestSQLiteLog(t *testing.T) {
	const frame = 24 + 4096
	tree := rpmSample(t, "mariner")
	log := tree[marinerLog].Data
	ends := []int{} // of transactions
	for off := 32; off+frame <= len(log); off += frame {
		if binary.BigEndian.Uint32(log[off+4:]) != 0 {
			ends = append(ends, off+frame)
		}
	}
	if len(ends) != 4 || ends[3] == len(log) {
		t.Fatalf("transactions end at %d of %d", ends, len(log))
	}
	flip := func(off int) []byte {
		b := slices.Clone(log)
		b[off] ^= 1
		return b
	}
	for _, c := range []struct {
		name string
		log  []byte
		want int // packages
	}{
		{"all", log, 21},
		{"none", nil, 21},
		{"a part of the beginning", log[:31], 21},
		{"one transaction", log[:ends[0]], 18},
		{"nearly one", log[:ends[0]-1], 21},
		{"two, and some of the third", log[:ends[2]-1], 19},
		{"three and some of the fourth damaged", flip(ends[3] - 5), 20},
		{"of other salts", flip(ends[1] + 9), 19},
		{"another magic", flip(0), 21},
		{"another version", flip(5), 21},
		{"another checksum", flip(28), 21},
		{"a number of a page damaged", flip(32 + 3), 21},
	} {
		tree[marinerLog] = &fstest.MapFile{Data: c.log}
		dbs, err := Read(tree, ReadOptions{})
		must(t, err)
		if n := len(dbs[0].Packages); n != c.want {
			t.Errorf("%s: %d packages, want %d", c.name, n, c.want)
		}
	}
}

// Without its log the database is another, the one that rpm finds then.
func TestSQLiteWithoutLog(t *testing.T) {
	tree := rpmSample(t, "mariner")
	tree[marinerLog] = &fstest.MapFile{}
	dbs, err := Read(tree, ReadOptions{})
	must(t, err)
	expectGolden(t, "mariner-without-log", dbs)
}

// seal gives a log the checksums that belong to it, if it is long enough to have any.
func seal(log []byte, pageSize int, order binary.ByteOrder) {
	sum := walSum{order: order}
	store := func(off int) {
		binary.BigEndian.PutUint32(log[off:], sum.s0)
		binary.BigEndian.PutUint32(log[off+4:], sum.s1)
	}
	if len(log) < walHead {
		return
	}
	sum.add(log[:24])
	store(24)
	for off := walHead; off+walFrameHead+pageSize <= len(log); off += walFrameHead + pageSize {
		sum.add(log[off : off+8])
		sum.add(log[off+walFrameHead:][:pageSize])
		store(off + 16)
	}
}

// A log of a big-endian machine has checksums of big-endian words.
func TestSQLiteLogByteOrder(t *testing.T) {
	tree := rpmSample(t, "mariner")
	log := slices.Clone(tree[marinerLog].Data)
	log[3] |= 1
	seal(log, 4096, binary.BigEndian)
	want, err := Read(tree, ReadOptions{})
	must(t, err)
	tree[marinerLog] = &fstest.MapFile{Data: log}
	got, err := Read(tree, ReadOptions{})
	must(t, err)
	if render(got) != render(want) {
		t.Error("it is another")
	}
}

func TestSQLiteErrors(t *testing.T) {
	good := expand(t, "../sqlite/512-0.zst")
	tables := int(binary.BigEndian.Uint32(good[100+8:])-1) * 512 // the last leaf with names of tables
	root := func() int {                                         // of the table
		at := strings.Index(string(good), "tablePackagesPackages")
		n, err := rootNumber([]byte(good[at+len("tablePackagesPackages"):][:1]))
		must(t, err)
		return int(n-1) * 512
	}()
	for _, c := range []struct {
		off  int
		with string
		want string
	}{
		{0, "X", "it has not the beginning"},
		{16, "\x00\x00", "pages of 0 bytes"},
		{16, "\x01\x00", "pages of 256 bytes"},
		{16, "\x03\x00", "pages of 768 bytes"},
		{20, "\x21", "of which 479 can be used"},
		{100, "\x0a", "names of tables: page 1 has type 10"},
		{103, "\xff\xff", "names of tables: "},
		{108, "\x00\x00\x00\x01", "names of tables: page 1 is in a table twice"},
		{108, "\x00\x00\x00\x00", "names of tables: page 0: 512 bytes at -512"},
		{108, "\x7f\xff\xff\xff", "names of tables: page 2147483647: 512 bytes at"},
		{tables + 3, "\xff\xff", "names of tables: page "},
		{tables + 8, "\xff\xff", "cell 0 is at 65535"},
		{root, "\x0d", "page "},
		{root + 12, "\x01\xff", "a cell of less than four bytes"},
	} {
		b := slices.Clone(good)
		copy(b[c.off:], c.with)
		expectError(t, rpmTree("rpmdb.sqlite", b), "var/lib/rpm/rpmdb.sqlite: ", c.want)
	}
	expectError(t, rpmTree("rpmdb.sqlite", good[:50]), "100 bytes at 0 are behind the end at 50")
	expectError(t, rpmTree("rpmdb.sqlite", good[:len(good)/2]), "behind the end")

	tree := rpmSample(t, "mariner")
	log := slices.Clone(tree[marinerLog].Data)
	binary.BigEndian.PutUint32(log[8:], 512)
	seal(log, 512, binary.LittleEndian)
	tree[marinerLog] = &fstest.MapFile{Data: log}
	expectError(t, tree, "its write-ahead log: pages of 512 bytes, where the database has 4096")
}

func TestSQLiteRowErrors(t *testing.T) {
	page := make([]byte, 512)
	page[3] = 1 // each goes on with page 1, itself
	for _, c := range []struct{ cell, want string }{
		{"", "a length of 0"},
		{"\x80", "a length of 0"},
		{"\x05", "a length of 5"},
		{"\x81\x80\x80\x80\x01\x01", "a length of 268435457"},
		{"\x81\x80\x80\x00\x01", "a header of 2097152 bytes: with it they have more in all than the file"},
		{"\x05\x01abcd", "5 of 5 bytes are behind the end of the page"},
		{"\x90\x00\x01abcd", "of 2048 bytes are behind the end of the page"},
		{"\x90\x00\x01" + strings.Repeat("x", 500) + "\x00", "page 2021161080: 512 bytes at"},
		{"\x90\x00\x01xxx" + strings.Repeat("\x00\x00\x00\x01", 125), "page 1 goes on behind the end"},
	} {
		db := &sqlite{main: &file{ReaderAt: bytes.NewReader(page), size: 512}, pageSize: 512, usable: 512, left: 4000, overflow: page}
		if row, err := db.row([]byte(c.cell)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: got %d bytes, %v, want %s", c.cell, len(row), err, c.want)
		}
	}
	small := expand(t, "../sqlite/small.zst")
	small[bytes.Index(small, headerOf(tag{}, tag{}, tag{})[:4])-1] |= 1 // the type of one of its headers
	expectError(t, rpmTree("rpmdb.sqlite", small), "its header is no BLOB but of type")
	if n, err := rootNumber(nil); err == nil {
		t.Errorf("root %d", n)
	}
}

func TestSQLiteJournal(t *testing.T) {
	tree := rpmSample(t, "mariner")
	want, err := Read(tree, ReadOptions{})
	must(t, err)
	for _, empty := range []string{"", "\xd9\xd5", strings.Repeat("\x00", 512)} {
		tree[mariner+"-journal"] = &fstest.MapFile{Data: []byte(empty)}
		got, err := Read(tree, ReadOptions{})
		must(t, err)
		if len(got) != 1 || !slices.EqualFunc(got[0].Packages, want[0].Packages, samePackage) {
			t.Errorf("journal %q: it is another", empty)
		}
	}
	tree[mariner+"-journal"] = &fstest.MapFile{Data: []byte(journalMagic + "...")}
	expectError(t, tree, "rpmdb.sqlite: beside it is the journal of a change that was broken off")
}

func TestVarint(t *testing.T) {
	for _, c := range []struct {
		bytes string
		want  uint64
	}{
		{"\x00", 0}, {"\x7f", 127}, {"\x81\x00", 128}, {"\x80\x01", 1}, {"\x81\x80\x80\x00", 1 << 21},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1<<64 - 1}, {"\x80\x80\x80\x80\x80\x80\x80\x80\x80", 128},
	} {
		n, rest, ok := varint([]byte(c.bytes + "x"))
		if n != c.want || string(rest) != "x" || !ok {
			t.Errorf("%q: got %d, %q, %v", c.bytes, n, rest, ok)
		}
		if n, _, ok := varint([]byte(c.bytes[:len(c.bytes)-1])); ok {
			t.Errorf("a part of %q: got %d", c.bytes, n)
		}
	}
}

func TestColumns(t *testing.T) {
	const row = "\x06\x00\x01\x12\x0f\x08" + "\x07" + "abc" + "x"
	values, err := columns([]byte(row), 5)
	must(t, err)
	for i, want := range []value{{0, nil}, {1, []byte("\x07")}, {0x12, []byte("abc")}, {0x0f, []byte("x")}, {8, nil}} {
		if got := values[i]; got.kind != want.kind || string(got.bytes) != string(want.bytes) {
			t.Errorf("%d: got %+v, want %+v", i, got, want)
		}
	}
	for _, bad := range []string{"", "\x00", "\x80", "\x09\x01", "\x02\x0a", "\x02\x0b", "\x02\x80", "\x02\x06\x01", "\x03\x8d\x01",
		row[:len(row)-1]} {
		if values, err := columns([]byte(bad), 4); err == nil {
			t.Errorf("%q: got %+v", bad, values)
		}
	}
}
