package index

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
)

// fuzzLimits keeps what a fuzzed tar may ask for within a fuzzer's patience.
var fuzzLimits = Limits{MaxFileSize: 1 << 20, MaxLayerSize: 8 << 20}

// goodTars returns a tar of each format that is read.
func goodTars(t testing.TB) map[string][]byte {
	tars := map[string][]byte{
		"text": buildTar(t, `
			dir usr mtime=-1.5 x:user.a=1
			file usr/a data=content
			file usr/b size=100
			sym s -> a
			hard h -> usr/b
			chr null 0666 dev=1,3
			fifo f`),
		"long": buildTar(t, "file "+strings.Repeat("directory/", 20)+"a data=x\nsym s -> "+strings.Repeat("t", 200)),
		"GNU": new(tarBuilder).add(head{typ: typeLongName, data: strings.Repeat("n", 200) + "\x00", magic: magicGNU}).
			add(head{typ: typeLongLink, data: "l\x00", magic: magicGNU}).
			add(head{typ: typeSymlink, name: "x", magic: magicGNU, uid: 1 << 31, mtime: -1}).end(),
		"v7":         new(tarBuilder).add(head{name: "a/", magic: v7}).add(head{name: "a/b", data: strings.Repeat("x", 600), magic: v7}).end(),
		"global":     new(tarBuilder).global("uid=1", "SCHILY.xattr.user.a=b").add(head{name: "a", data: "x"}).end(),
		"old sparse": new(tarBuilder).addOldSparse(200, strings.Repeat("y", 30), first(manySegments(30))...).end(),
		"sparse 0.0": new(tarBuilder).pax("GNU.sparse.size=7", "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.numbytes=2").add(head{name: "s", data: "bc"}).end(),
		"sparse 0.1": new(tarBuilder).pax("GNU.sparse.size=99", "GNU.sparse.numblocks=2", "GNU.sparse.map=0,1,5,2").add(head{name: "s", data: "abc"}).end(),
		"sparse 1.0": new(tarBuilder).pax(sparse1Records(700)...).add(head{name: "y", data: textMapOf(segment{0, 1}, segment{5, 2}) + "abc"}).end(),
		"no end":     new(tarBuilder).add(head{name: "a", data: strings.Repeat("x", 100)}).bytes()[:tarBlock+100],
		"tail":       append(buildTar(t, "file a size=100"), "bytes behind the end"...),
		"empty":      nil,
	}
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, size := range []int{0, 64, 65, 600} {
			if err := w.WriteHeader(&tar.Header{Name: "usr/bin/file", Size: int64(size), Mode: 0o755, Format: format}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bytes.Repeat([]byte{'x'}, size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		tars["Go "+format.String()] = buf.Bytes()
	}
	return tars
}

// checkParse reads a tar and checks what must hold of any.
func checkParse(t *testing.T, b []byte) error {
	entries, in, report, err := parseBytes(b, fuzzLimits)
	for i := range entries {
		checkEntry(t, in, &entries[i])
	}
	joined := in.joined()
	if !bytes.HasPrefix(b, joined) {
		t.Fatal("what was read is not what the tar begins with")
	}
	if err == nil && (len(joined) != len(b) || report.Entries != len(entries)) {
		t.Fatalf("%d of %d bytes were read, %d of %d entries", len(joined), len(b), report.Entries, len(entries))
	}
	return err
}

// checkEntry checks what the users of an entry rely on.
func checkEntry(t *testing.T, in *memInput, e *Entry) {
	t.Helper()
	paths := [][]byte{e.Name}
	if e.Hardlink {
		paths = append(paths, e.Link)
	} else if len(e.Link) > maxPath || bytes.IndexByte(e.Link, 0) >= 0 {
		t.Fatalf("target of %d bytes: %.100q", len(e.Link), e.Link)
	}
	for _, path := range paths {
		if clean, err := appendClean(nil, path); err != nil || !bytes.Equal(clean, path) {
			t.Fatalf("%q is not clean: %v", path, err)
		}
	}
	isFile := e.Mode&modeFmt == modeFile
	switch {
	case len(e.Name) == 0 && e.Mode&modeFmt != modeDir:
		t.Fatal("only a directory may have no name")
	case e.Hardlink != (e.Mode&modeFmt == 0), e.Hardlink && len(e.Link) == 0:
		t.Fatalf("hard link %t with mode %o to %q", e.Hardlink, e.Mode, e.Link)
	case !isFile && (e.Size != 0 || e.Object >= 0 || len(e.Content) > 0):
		t.Fatalf("content of mode %o", e.Mode)
	case isFile && e.Size != int64(len(in.content(*e))), isFile && (e.Object >= 0) != (e.Size > InlineMax):
		t.Fatalf("size %d, object %d, content of %d bytes", e.Size, e.Object, len(in.content(*e)))
	case e.MtimeNsec > 999_999_999:
		t.Fatalf("%d nanoseconds", e.MtimeNsec)
	}
	for i, x := range e.Xattrs {
		if x.Name == "" || len(x.Value) == 0 || i > 0 && e.Xattrs[i-1].Name >= x.Name {
			t.Fatalf("xattrs %q", e.Xattrs)
		}
	}
}

// TestReassembly checks, over all formats and wherever a tar may be cut, that
// what passes the input adds up to the tar.
func TestReassembly(t *testing.T) {
	for name, b := range goodTars(t) {
		t.Run(name, func(t *testing.T) {
			if err := checkParse(t, b); err != nil {
				t.Fatal(err)
			}
			for n := range len(b) {
				if n%tarBlock < 3 || n%7 == 0 {
					_ = checkParse(t, b[:n])
				}
			}
		})
	}
	for _, bad := range badTars() {
		t.Run(bad.name, func(t *testing.T) {
			if err := checkParse(t, bad.tar.end()); err == nil {
				t.Error("no error")
			}
		})
	}
}

// FuzzParseTar mutates tars of each format. The checksums are put right, since
// few mutants would get past them.
func FuzzParseTar(f *testing.F) {
	for _, b := range goodTars(f) {
		f.Add(b)
	}
	for _, bad := range badTars() {
		if b := bad.tar.end(); len(b) < 16<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = checkParse(t, b)
		b = bytes.Clone(b)
		for i := 0; i+tarBlock <= len(b); i += tarBlock {
			h := (*tarHeader)(b[i:])
			if h.format() != formatV7 {
				copy(h[fieldChecksum.off:], octal(h.sum(), 7)+"\x00 ")
			}
		}
		_ = checkParse(t, b)
	})
}
