package index

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// edited returns a plain file's header with s put at the field.
func edited(f field, s string) head {
	return head{name: "a", edit: func(b []byte) { copy(b[f.off:], s) }}
}

// xattrRecords returns n records of extended attributes with size bytes each.
func xattrRecords(n, size int) []string {
	var records []string
	for i := range n {
		records = append(records, fmt.Sprintf("%suser.%d=%s", paxXattrPrefix, i, strings.Repeat("v", size)))
	}
	return records
}

// badTars are tars that must be refused, and what the error has to say.
func badTars() []badTar {
	file := head{name: "a", data: "x"}
	gnu := func(typ byte, data string) head { return head{typ: typ, name: "l", data: data, magic: magicGNU} }
	b := func() *tarBuilder { return new(tarBuilder) }
	return []badTar{
		// Names.
		{"name with ..", b().add(head{name: "a/../b"}), `".." component`},
		{"name is ..", b().add(head{typ: typeDir, name: ".."}), `".." component`},
		{"absolute name with ..", b().add(head{name: "/../../etc/passwd"}), `".." component`},
		{".. in the prefix", b().add(head{name: "a", prefix: ".."}), `".." component`},
		{".. in the record", b().pax("path=../x").add(file), `".." component`},
		{".. in the GNU name", b().add(gnu(typeLongName, "../x\x00")).add(file), `".." component`},
		{"name empty", b().add(head{}), "name is empty"},
		{"name is the root", b().add(head{name: "."}), "name is empty"},
		{"symlink at the root", b().add(head{typ: typeSymlink, name: "./.", link: "x"}), "name is empty"},
		{"hard link at the root", b().add(head{typ: typeHardlink, link: "x"}), "name is empty"},
		{"name with NUL", b().pax("path=a\x00b").add(file), `record "path": value has a NUL byte`},
		{"GNU name with NUL", b().add(gnu(typeLongName, "a\x00b\x00")).add(file), "has a NUL byte"},
		{"GNU name empty", b().add(gnu(typeLongName, "")).add(file), "is empty"},
		{"GNU name of NULs", b().add(gnu(typeLongName, "\x00\x00")).add(head{typ: typeDir, name: "d"}), "is empty"},
		{"component of 256 bytes", b().pax("path=d/" + strings.Repeat("n", 256)).add(file), "component of 256 bytes, more than 255"},
		{"path of 4096 bytes", b().pax("path=" + strings.Repeat("d/", 2047) + "xx").add(file), "path has 4096 bytes, more than 4095"},
		{"sparse name with ..", b().pax(append(sparse1Records(1), "GNU.sparse.name=../s")...).add(file), `".." component`},
		{"sparse name with NUL", b().pax(append(sparse1Records(1), "GNU.sparse.name=s\x00")...).add(file), "NUL"},

		{"content and a slash", b().add(head{name: "a/", size: 600}), `"a/", at byte 0: file with content and a slash at the end of its name`},
		{"content and a slash, contiguous", b().add(head{typ: typeCont, name: "a/", data: "x"}), "file with content and a slash"},
		{"content by its record and a slash", b().pax("size=1").add(head{name: "a/"}), "file with content and a slash"},
		{"content of no number and a slash", b().add(head{name: "a/", edit: func(b []byte) { copy(b[fieldSize.off:], "x") }}), "file with content and a slash"},

		// Headers.
		{"checksum", b().add(head{name: "a", tail: func(b []byte) { b[0] = 'b' }}), "header checksum is"},
		{"checksum no number", b().add(head{name: "a", tail: func(b []byte) { copy(b[fieldChecksum.off:], "zzz") }}), "is no octal number"},
		{"text instead of a tar", b().raw(bytes.Repeat([]byte("#!/bin/sh"), 100)), "this is no tar header"},
		{"header cut off", b().raw(file.block()[:511]).cut(), "the tar ends inside the header"},
		{"a single byte", b().raw([]byte("x")).cut(), "the tar ends inside the header"},
		{"header behind one zero block", b().raw(zeroBlock[:]).add(file), "a single zero block"},
		{"mode", b().add(edited(fieldMode, "rwxr-xr-x")), "mode: "},
		{"mode negative", b().add(head{name: "a", mode: -1}), "mode: number is negative"},
		{"uid", b().add(edited(fieldUID, "root")), "uid: "},
		{"uid negative", b().add(head{name: "a", uid: -1}), "uid: -1 does not fit 32 bits"},
		{"uid too large", b().add(head{name: "a", uid: 1 << 32}), "uid: 4294967296 does not fit 32 bits"},
		{"gid too large", b().add(head{name: "a", gid: 1 << 40}), "gid: 1099511627776 does not fit 32 bits"},
		{"mtime", b().add(edited(fieldMtime, "today")), "mtime: "},
		{"mtime over 64 bits", b().add(edited(fieldMtime, "\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")), "mtime: base-256 number does not fit 64 bits"},
		{"size", b().add(edited(fieldSize, "0x10")), "size: "},
		{"size negative", b().add(edited(fieldSize, base256(-1, 12))), "size: number is negative"},
		{"size over 64 bits", b().add(edited(fieldSize, "\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), "size: base-256 number does not fit 64 bits"},
		{"size of an exabyte", b().add(head{name: "a", size: 1 << 60}), "bytes of a file: 1152921504606846976, over the limit of 68719476736 (--max-file-size raises it)"},
		{"size past the end", b().add(head{name: "a", size: 1 << 20}).cut(), "read content: unexpected EOF"},
		{"small size past the end", b().add(head{name: "a", size: 60}).raw([]byte("x")).cut(), "the tar ends inside the content"},

		// Types.
		{"volume label", b().add(head{typ: 'V', name: "a"}), "entry type 'V' is not one that can be read"},
		{"multi-volume", b().add(head{typ: 'M', name: "a"}), "entry type 'M'"},
		{"dump directory", b().add(head{typ: 'D', name: "a"}), "entry type 'D'"},
		{"Solaris extended header", b().add(head{typ: 'X', name: "a"}), "entry type 'X'"},
		{"type 8", b().add(head{typ: '8', name: "a"}), "entry type '8'"},
		{"type 0xff", b().add(head{typ: 0xff, name: "a"}), "entry type 'ÿ'"},
		{"hard link without a target", b().add(head{typ: typeHardlink, name: "a"}), `hard link to "": path is empty`},
		{"hard link to the root", b().add(head{typ: typeHardlink, name: "a", link: "./"}), `hard link to "./": path is empty`},
		{"hard link outside", b().add(head{typ: typeHardlink, name: "a", link: "../../etc/shadow"}), `hard link to "../../etc/shadow": path has a ".." component`},
		{"hard link with NUL", b().pax("linkpath=b\x00c").add(head{typ: typeHardlink, name: "a"}), "NUL"},
		{"symlink without a target", b().add(head{typ: typeSymlink, name: "a"}), "symlink has no target"},
		{"symlink of 4096 bytes", b().pax("linkpath=" + strings.Repeat("t", 4096)).add(head{typ: typeSymlink, name: "a"}), "target of the symlink has 4096 bytes, more than 4095"},
		{"symlink with NUL", b().pax("linkpath=\x00").add(head{typ: typeSymlink, name: "a"}), "NUL"},
		{"major number", b().add(head{typ: typeChar, name: "a", major: 4096}), "device 4096,0 is out of range"},
		{"minor number", b().add(head{typ: typeBlock, name: "a", minor: 1 << 20}), "device 0,1048576 is out of range"},
		{"negative major number", b().add(head{typ: typeChar, name: "a", major: -1}), "device -1,0 is out of range"},
		{"rubbish major number", b().add(head{typ: typeChar, name: "a", edit: func(b []byte) { copy(b[fieldDevMajor.off:], "x") }}), "major device number"},
		{"rubbish minor number", b().add(head{typ: typeChar, name: "a", edit: func(b []byte) { copy(b[fieldDevMinor.off:], "x") }}), "minor device number"},
		{"device in a v7 header", b().add(head{typ: typeChar, name: "a", magic: v7}), "device in a v7 header"},

		// Extension headers.
		{"record longer than its header", b().add(head{typ: typePAX, data: "99 path=a\n"}).add(file), "longer than what is left"},
		{"record shorter than it is", b().add(head{typ: typePAX, data: "8 path=abc\n"}).add(file), "does not end in a newline"},
		{"record without a length", b().add(head{typ: typePAX, data: "path=abc\n"}).add(file), "length and a space"},
		{"record with a negative length", b().add(head{typ: typePAX, data: "-5 a=b\n"}).add(file), "length and a space"},
		{"record of length 0", b().add(head{typ: typePAX, data: "0 a=b\n"}).add(file), "does not end in a newline"},
		{"record with a length over 64 bits", b().add(head{typ: typePAX, data: "18446744073709551622 a=b\n"}).add(file), "longer than what is left"},
		{"record without a newline", b().add(head{typ: typePAX, data: "10 path=abc"}).add(file), "does not end in a newline"},
		{"record without =", b().add(head{typ: typePAX, data: "8 path\x00\n"}).add(file), "no key"},
		{"record without a key", b().pax("=x").add(file), "no key"},
		{"key with NUL", b().pax("pa\x00th=x").add(file), "key has a NUL byte"},
		{"NULs behind the records", b().add(head{typ: typePAX, data: paxRecords("path=x") + "\x00\x00"}).add(file), "length and a space"},
		{"uid record", b().pax("uid=0x10").add(file), "is no decimal number"},
		{"uid record negative", b().pax("uid=-1").add(file), "is no decimal number"},
		{"uid record too large", b().pax("uid=4294967296").add(file), "uid: 4294967296 does not fit 32 bits"},
		{"gid record over 64 bits", b().pax("gid=18446744073709551616").add(file), "does not fit 63 bits"},
		{"size record negative", b().pax("size=-1").add(file), "is no decimal number"},
		{"size record past the end", b().pax("size=100000").add(file).cut(), "read content: unexpected EOF"},
		{"mtime record", b().pax("mtime=1.2.3").add(file), "mtime: "},
		{"mtime record over 64 bits", b().pax("mtime=9223372036854775808").add(file), "does not fit 63 bits"},
		{"extended header of 1 GiB", b().add(head{typ: typePAX, size: 1 << 30}), "bytes of an extension header: 1073741824, over the limit of 1048576 (--max-pax-bytes raises it)"},
		{"global header of 1 GiB", b().add(head{typ: typeGlobal, size: 1 << 30}), "over the limit of 1048576"},
		{"GNU name of 1 GiB", b().add(head{typ: typeLongName, size: 1 << 30, magic: magicGNU}), "over the limit of 1048576"},
		{"extended header of negative size", b().add(head{typ: typePAX, edit: func(b []byte) { copy(b[fieldSize.off:], base256(-512, 12)) }}), "size: number is negative"},
		{"extended header cut off", b().raw(head{typ: typePAX, size: 100}.block()).raw([]byte("20 path=")).cut(), "the tar ends inside the extension header"},
		{"extended header at the end", b().pax("path=a"), "extension header without an entry behind it"},
		{"GNU name at the end", b().add(gnu(typeLongName, "a\x00")), "extension header without an entry behind it"},
		{"two extended headers", b().pax("path=a").pax("path=b").add(file), "two extension headers of type 'x'"},
		{"two GNU names", b().add(gnu(typeLongName, "a\x00")).add(gnu(typeLongName, "b\x00")).add(file), "two extension headers of type 'L'"},
		{"two GNU links", b().add(gnu(typeLongLink, "a\x00")).add(gnu(typeLongLink, "b\x00")).add(file), "two extension headers of type 'K'"},
		{"global header before an entry with extension", b().pax("path=a").global("uid=1").add(file), "global header between"},
		{"bad global header", b().add(head{typ: typeGlobal, data: "5 a=b\n"}).add(file), "does not end in a newline"},
		{"bad value in a global header", b().global("uid=root").add(file), "uid: \"root\" is no decimal number"},

		// Extended attributes.
		{"xattr without a name", b().pax("SCHILY.xattr.=x").add(file), "extended attribute without a name"},
		{"xattr with NUL in the name", b().pax("SCHILY.xattr.user.\x00=x").add(file), "key has a NUL byte"},
		{"xattr with a long name", b().pax("SCHILY.xattr.user." + strings.Repeat("n", 251) + "=x").add(file), "name of the extended attribute has 256 bytes, more than 255"},
		{"xattr with a long value", b().pax("SCHILY.xattr.user.a=" + strings.Repeat("v", 65536)).add(file), "value of the extended attribute has 65536 bytes, more than 65535"},
		{"too many xattrs", b().pax(xattrRecords(257, 1)...).add(file), "extended attributes of one entry: 257, over the limit of 256 (--max-xattrs raises it)"},
		{"too many xattrs with the global ones", b().global(xattrRecords(256, 1)...).pax("SCHILY.xattr.user.x=y").add(file), "over the limit of 256"},
		{"too many global xattrs", b().global(xattrRecords(256, 1)...).global("SCHILY.xattr.user.x=y").add(file), "over the limit of 256"},
		{"too many bytes of xattrs", b().pax(xattrRecords(5, 60000)...).add(file), "bytes of extended attributes of one entry: 300030, over the limit of 262144 (--max-xattr-bytes raises it)"},

		// Sparse files.
		{"sparse map overlaps", b().addOldSparse(100, "abcd", segment{0, 2}, segment{1, 2}), "segment 1 begins at 1, before the end of the one before it, 2"},
		{"sparse map out of order", b().addOldSparse(100, "abcd", segment{50, 2}, segment{10, 2}), "segment 1 begins at 10, before"},
		{"sparse map past the end", b().addOldSparse(100, "abcd", segment{98, 4}), "segment 0, 4 bytes at 98, is past the end of the file, 100"},
		{"sparse map begins past the end", b().addOldSparse(100, "", segment{101, 0}), "is past the end of the file"},
		{"sparse map overflows", b().addOldSparse(100, "", segment{1, 1<<63 - 1}), "is past the end of the file"},
		{"sparse map negative", b().addOldSparse(100, "", segment{-1, 1}), "segment 0 has a negative number"},
		{"sparse length negative", b().addOldSparse(100, "", segment{5, -5}), "segment 0 has a negative number"},
		{"sparse map covers less than is stored", b().addOldSparse(100, "abcd", segment{0, 3}), "segments have 3 bytes, but 4 are stored"},
		{"sparse map covers more than is stored", b().addOldSparse(100, "abcd", segment{0, 5}), "segments have 5 bytes, but 4 are stored"},
		{"sparse map unreadable", b().add(withMap("rubbish")), "sparse map: offset"},
		{"sparse length unreadable", b().add(withMap(octal(0, 12) + "\x00rubbish")), "sparse map: length"},
		{"sparse file of a TiB", b().addOldSparse(1<<40, "", segment{1 << 40, 0}), "over the limit of 68719476736 (--max-file-size raises it)"},
		{"sparse file of negative size", b().addOldSparse(-1, ""), "expanded size of a sparse file: number is negative"},
		{"sparse file of star", b().add(head{typ: typeSparse, name: "s"}), "not GNU's"},
		{"sparse file with a slash", b().add(head{typ: typeSparse, name: "s/", magic: magicGNU}), `"s/", at byte 0: sparse file with a slash at the end of its name`},
		{"sparse file with a slash, by its records", b().pax(append(sparse1Records(1), "GNU.sparse.name=s/")...).add(file), "sparse file with a slash"},
		{"sparse map cut off", b().raw(cutMap()).cut(), "the tar ends inside the sparse map"},
		{"sparse map for ever", b().raw(cutMap()).raw(endlessMap(3000)), "bytes of a sparse map: 1049088, over the limit of 1048576 (--max-pax-bytes raises it)"},
		{"two sparse maps", b().pax("GNU.sparse.size=1", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1").add(file), "two maps"},
		{"old sparse file with records", b().pax(sparse1Records(1)...).add(head{typ: typeSparse, name: "s", magic: magicGNU}), "two maps"},
		{"sparse version", b().pax("GNU.sparse.major=2", "GNU.sparse.minor=0").add(file), `unknown sparse format "2.0"`},
		{"sparse version by halves", b().pax("GNU.sparse.major=1").add(file), `unknown sparse format "1."`},
		{"sparse without a size", b().pax("GNU.sparse.numblocks=0").add(file), "without a GNU.sparse.size"},
		{"sparse size", b().pax("GNU.sparse.size=-1", "GNU.sparse.numblocks=0").add(file), "expanded size of a sparse file"},
		{"sparse without a count", b().pax("GNU.sparse.size=1", "GNU.sparse.map=0,1").add(file), "GNU.sparse.numblocks"},
		{"sparse count lies", b().pax("GNU.sparse.size=1", "GNU.sparse.numblocks=9000000000000000000", "GNU.sparse.map=0,1").add(file), "sparse map has 2 numbers"},
		{"sparse map with an odd number", b().pax("GNU.sparse.size=1", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1,2").add(file), "sparse map has 3 numbers"},
		{"sparse map with an empty number", b().pax("GNU.sparse.size=1", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,").add(file), "GNU.sparse.map: \"\" is no decimal"},
		{"sparse points out of turn", b().pax("GNU.sparse.numbytes=1", "GNU.sparse.offset=0").add(file), "do not come by turns"},
		{"sparse point alone", b().pax("GNU.sparse.offset=0").add(file), "the last GNU.sparse.offset has no GNU.sparse.numbytes"},
		{"sparse point negative", b().pax("GNU.sparse.offset=-1", "GNU.sparse.numbytes=1").add(file), "is no decimal number"},
		{"sparse text map past the entry", b().pax(sparse1Records(1)...).add(head{name: "s", data: strings.Repeat("0", 511)}), "sparse map goes on past the end of the entry"},
		{"sparse text map without numbers", b().pax(sparse1Records(1)...).add(head{name: "s", data: strings.Repeat("x\n", 256)}), "sparse map: \"x\" is no decimal number"},
		{"sparse text map with a long number", b().pax(sparse1Records(1)...).add(head{name: "s", data: strings.Repeat("0", 512)}), "is no line with a number"},
		{"sparse text map count lies", b().pax(sparse1Records(1)...).add(head{name: "s", data: "99999999\n" + strings.Repeat("0", 503)}), "99999999 segments don't fit the 512 bytes"},
		{"sparse text map ends early", b().pax(sparse1Records(1)...).add(head{name: "s", data: "2\n0\n1\n1\n" + strings.Repeat("\x00", 504)}), "sparse map:"},
	}
}

type badTar struct {
	name string
	tar  *tarBuilder
	err  string
}

// withMap returns a sparse file's header with a map that has text at its start.
func withMap(text string) head {
	h, _ := oldSparse("s", 100, "")
	sizes := h.edit
	h.edit = func(b []byte) {
		sizes(b)
		copy(b[offSparseMap:], text)
	}
	return h
}

// cutMap returns a sparse file's header that says that a block follows.
func cutMap() []byte {
	return head{typ: typeSparse, name: "s", magic: magicGNU, edit: func(b []byte) { b[offSparseMap+lenSparseMap] = 1 }}.block()
}

// endlessMap returns n empty map blocks, each of which says that one more follows.
func endlessMap(n int) []byte {
	b := make([]byte, n*tarBlock)
	for i := range n {
		b[i*tarBlock+lenExtendedMap] = 1
	}
	return b
}

func TestBadTars(t *testing.T) {
	tests := badTars()
	seen := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := parseBytes(tt.tar.end(), Limits{})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("%v; want %q", err, tt.err)
			}
			var at *EntryError
			if !errors.As(err, &at) || at.Index != 1 || at.Offset%tarBlock != 0 {
				t.Errorf("%v is at %+v", err, at)
			}
		})
		if seen[tt.name] {
			t.Errorf("%s comes twice", tt.name)
		}
		seen[tt.name] = true
	}
}

// TestLimits checks that each limit holds exactly, can be raised, and is named
// with its flag.
func TestLimits(t *testing.T) {
	records := xattrRecords(3, 10) // 3 * (6 + 10) bytes
	tests := []struct {
		name string
		tar  []byte
		at   func(*Limits) *int64
		need int64 // the least that does
		flag string
	}{
		{"entries", buildTar(t, "file a\nfile b\nfile c"), func(l *Limits) *int64 { return &l.MaxEntries }, 3, "--max-entries"},
		{"file", buildTar(t, "file a size=100\nfile b size=300"), func(l *Limits) *int64 { return &l.MaxFileSize }, 300, "--max-file-size"},
		{"small file", buildTar(t, "file a size=3"), func(l *Limits) *int64 { return &l.MaxFileSize }, 3, "--max-file-size"},
		{"sparse file", new(tarBuilder).addOldSparse(5000, "x", segment{7, 1}).end(), func(l *Limits) *int64 { return &l.MaxFileSize }, 5000, "--max-file-size"},
		{"layer", buildTar(t, "file a size=100\ndir b"), func(l *Limits) *int64 { return &l.MaxLayerSize }, 4*tarBlock + 512, "--max-layer-size"},
		{"layer with a tail", append(buildTar(t, ""), make([]byte, 100000)...), func(l *Limits) *int64 { return &l.MaxLayerSize }, 1024 + 100000, "--max-layer-size"},
		{"layer, expanded", new(tarBuilder).addOldSparse(50000, "x", segment{7, 1}).addOldSparse(50000, "x", segment{7, 1}).end(), func(l *Limits) *int64 { return &l.MaxLayerSize }, 100000, "--max-layer-size"},
		{"xattrs", new(tarBuilder).pax(records...).add(head{name: "a"}).end(), func(l *Limits) *int64 { return &l.MaxXattrs }, 3, "--max-xattrs"},
		{"xattr bytes", new(tarBuilder).pax(records...).add(head{name: "a"}).end(), func(l *Limits) *int64 { return &l.MaxXattrBytes }, 48, "--max-xattr-bytes"},
		{"global xattr bytes", new(tarBuilder).global(records...).add(head{name: "a"}).add(head{name: "b"}).end(), func(l *Limits) *int64 { return &l.MaxLayerXattrBytes }, 96, "--max-layer-xattr-bytes"},
		{"records", new(tarBuilder).pax("comment=0123456789").add(head{name: "a"}).end(), func(l *Limits) *int64 { return &l.MaxPAXBytes }, 22, "--max-pax-bytes"},
		{"sparse map", new(tarBuilder).addOldSparse(200, strings.Repeat("y", 100), first(manySegments(100))...).end(), func(l *Limits) *int64 { return &l.MaxPAXBytes }, 5 * tarBlock, "--max-pax-bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l Limits
			*tt.at(&l) = tt.need
			if _, _, _, err := parseBytes(tt.tar, l); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			*tt.at(&l) = tt.need - 1
			_, _, _, err := parseBytes(tt.tar, l)
			var over *LimitError
			if !errors.As(err, &over) || over.Flag != tt.flag || over.Limit != tt.need-1 || over.Got <= over.Limit {
				t.Errorf("over the limit: %v", err)
			}
		})
	}
}

func first(m []segment, _ string) []segment { return m }
