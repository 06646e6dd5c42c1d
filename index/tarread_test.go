package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// line formats an entry for comparison in a table.
func (m *memInput) line(e Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %o %d:%d %d.%09d", e.Name, e.Mode, e.UID, e.GID, e.MtimeSec, e.MtimeNsec)
	if e.Hardlink {
		b.WriteString(" hard")
	}
	if e.Link != nil {
		fmt.Fprintf(&b, " -> %q", e.Link)
	}
	if e.Rdev != 0 {
		fmt.Fprintf(&b, " rdev=%#x", e.Rdev)
	}
	if e.Mode&modeFmt == modeFile {
		c := m.content(e)
		fmt.Fprintf(&b, " %d %.80q", e.Size, c)
	}
	for _, x := range e.Xattrs {
		fmt.Fprintf(&b, " %s=%q", x.Name, x.Value)
	}
	return b.String()
}

func TestBuildTar(t *testing.T) {
	entries, in := mustParse(t, buildTar(t, `
		dir usr uid=1 gid=2 mtime=-1.5 x:user.a=1 x:security.capability=0x0100ff
		file "a b\x80" 04755 data="two words\n" mtime=12
		file big size=65 fill=ab
		sym s -> "../x y"
		hard h -> big
		chr dev/null 0666 dev=1,3
		# a comment
		fifo f`))
	want := []string{
		`"usr" 40755 1:2 -2.500000000 security.capability="\x01\x00\xff" user.a="1"`,
		`"a b\x80" 104755 0:0 12.000000000 10 "two words\n"`,
		`"big" 100644 0:0 0.000000000 65 "` + strings.Repeat("ab", 32) + `a"`,
		`"s" 120644 0:0 0.000000000 -> "../x y"`,
		`"h" 644 0:0 0.000000000 hard -> "big"`,
		`"dev/null" 20666 0:0 0.000000000 rdev=0x103`,
		`"f" 10644 0:0 0.000000000`,
	}
	compareLines(t, in, entries, want)
}

func compareLines(t *testing.T, in *memInput, entries []Entry, want []string) {
	t.Helper()
	for i := range max(len(entries), len(want)) {
		got, exp := "", ""
		if i < len(entries) {
			got = in.line(entries[i])
		}
		if i < len(want) {
			exp = want[i]
		}
		if got != exp {
			t.Errorf("entry %d:\n got %s\nwant %s", i+1, got, exp)
		}
	}
	if !bytes.Equal(in.joined(), in.tar) {
		t.Error("the pieces do not add up to the tar")
	}
}

const v7 = "\x00\x00\x00\x00\x00\x00\x00\x00"

func TestEntries(t *testing.T) {
	long := "d/" + strings.Repeat("l", 200)
	gnu := func(typ byte, data string) head {
		return head{typ: typ, name: "././@LongLink", data: data, magic: magicGNU}
	}
	tests := []struct {
		name    string
		tar     *tarBuilder
		want    []string
		inexact bool
	}{
		{"file", new(tarBuilder).add(head{name: "a", mode: 0o104755, data: "x"}), []string{`"a" 104755 0:0 0.000000000 1 "x"`}, false},
		{"file of type NUL", new(tarBuilder).add(head{name: "a", magic: v7, edit: func(b []byte) { b[offType] = 0 }}), []string{`"a" 100000 0:0 0.000000000 0 ""`}, false},
		{"contiguous file", new(tarBuilder).add(head{typ: typeCont, name: "a", data: "x"}), []string{`"a" 100000 0:0 0.000000000 1 "x"`}, false},
		{"directory by its slash", new(tarBuilder).add(head{name: "a/"}), []string{`"a" 40000 0:0 0.000000000`}, false},
		{"directory by its slash, type NUL", new(tarBuilder).add(head{name: "a/", magic: v7, edit: func(b []byte) { b[offType] = 0 }}), []string{`"a" 40000 0:0 0.000000000`}, false},
		{"directory by the slash of its record", new(tarBuilder).pax("path=b/").add(head{name: "a"}), []string{`"b" 40000 0:0 0.000000000`}, false},
		{"file by its record", new(tarBuilder).pax("path=b").add(head{name: "a/", data: "x"}), []string{`"b" 100000 0:0 0.000000000 1 "x"`}, false},
		{"directory by its slash has no content", new(tarBuilder).add(head{name: "a/", size: 600, edit: func(b []byte) { b[offType] = 0 }}).add(head{name: "b"}), []string{`"a" 40000 0:0 0.000000000`, `"b" 100000 0:0 0.000000000 0 ""`}, true},
		{"root", new(tarBuilder).add(head{typ: typeDir, name: "./", mode: 0o755}), []string{`"" 40755 0:0 0.000000000`}, false},
		{"root without a name", new(tarBuilder).add(head{typ: typeDir}), []string{`"" 40000 0:0 0.000000000`}, false},
		{"directory with a size", new(tarBuilder).add(head{typ: typeDir, name: "a", size: 4096}).add(head{name: "b"}), []string{`"a" 40000 0:0 0.000000000`, `"b" 100000 0:0 0.000000000 0 ""`}, true},
		{"hard link with a size", new(tarBuilder).add(head{typ: typeHardlink, name: "a", link: "./b", size: 65}).add(head{name: "b"}), []string{`"a" 0 0:0 0.000000000 hard -> "b"`, `"b" 100000 0:0 0.000000000 0 ""`}, true},
		{"symlink with a rubbish size", new(tarBuilder).add(head{typ: typeSymlink, name: "a", link: "/b", edit: func(b []byte) { copy(b[fieldSize.off:], "rubbish") }}), []string{`"a" 120000 0:0 0.000000000 -> "/b"`}, true},
		{"size record on a fifo", new(tarBuilder).pax("size=5").add(head{typ: typeFifo, name: "a"}), []string{`"a" 10000 0:0 0.000000000`}, true},
		{"devices", new(tarBuilder).add(head{typ: typeChar, name: "c", major: 4095, minor: 1048575}).add(head{typ: typeBlock, name: "b", major: 8, minor: 257}), []string{`"c" 20000 0:0 0.000000000 rdev=0xffffffff`, `"b" 60000 0:0 0.000000000 rdev=0x100801`}, false},
		{"GNU names", new(tarBuilder).add(gnu(typeLongName, long+"\x00")).add(gnu(typeLongLink, "../"+long+"\x00\x00")).add(head{typ: typeSymlink, name: "x", link: "y"}), []string{`"` + long + `" 120000 0:0 0.000000000 -> "../` + long + `"`}, false},
		{"GNU names, other order", new(tarBuilder).add(gnu(typeLongLink, long)).add(gnu(typeLongName, long)).add(head{typ: typeHardlink, name: "x", link: "y"}), []string{`"` + long + `" 0 0:0 0.000000000 hard -> "` + long + `"`}, false},
		{"GNU names hold for one entry", new(tarBuilder).add(gnu(typeLongName, long)).add(head{name: "x"}).add(head{name: "y"}), []string{`"` + long + `" 100000 0:0 0.000000000 0 ""`, `"y" 100000 0:0 0.000000000 0 ""`}, false},
		{"base-256", new(tarBuilder).add(head{name: "a", uid: 1 << 31, gid: 1<<32 - 1, mtime: -5, magic: magicGNU}), []string{`"a" 100000 2147483648:4294967295 -5.000000000 0 ""`}, false},
		{"later than a 64-bit clock needs", new(tarBuilder).add(head{name: "a", mtime: 1<<63 - 1}), []string{`"a" 100000 0:0 9223372036854775807.000000000 0 ""`}, false},
		{"64 bytes", new(tarBuilder).add(head{name: "a", data: strings.Repeat("x", 64)}), []string{`"a" 100000 0:0 0.000000000 64 "` + strings.Repeat("x", 64) + `"`}, false},
		{"65 bytes", new(tarBuilder).add(head{name: "a", data: strings.Repeat("x", 65)}), []string{`"a" 100000 0:0 0.000000000 65 "` + strings.Repeat("x", 65) + `"`}, false},
		{"global size", new(tarBuilder).global("size=1").add(head{name: "a", data: "x"}), []string{`"a" 100000 0:0 0.000000000 1 "x"`}, true},
		{"global header alone", new(tarBuilder).global("comment=0123456789abcdef"), nil, false},
		{"extended header with v7 magic", new(tarBuilder).add(head{typ: typePAX, data: paxRecords("path=b"), magic: v7}).add(head{name: "a"}), []string{`"b" 100000 0:0 0.000000000 0 ""`}, true},
		{"nothing", new(tarBuilder), nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries, in, report, err := parseBytes(tt.tar.end(), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			compareLines(t, in, entries, tt.want)
			if report.Inexact != tt.inexact || report.Entries != len(tt.want) {
				t.Errorf("report is %+v, want inexact %t", report, tt.inexact)
			}
		})
	}
}

// What may follow the last entry.
func TestEnd(t *testing.T) {
	zeros := make([]byte, 20*tarBlock)
	rubbish := bytes.Repeat([]byte("rubbish "), 10000)
	small := new(tarBuilder).add(head{name: "a", data: "content"}).bytes()
	large := new(tarBuilder).add(head{name: "a", data: strings.Repeat("x", 1000)}).bytes()
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name string
		tar  []byte
		err  string
	}{
		{"two blocks", join(small, zeros[:1024]), ""},
		{"a record of 20 blocks", join(small, zeros), ""},
		{"rubbish behind the end", join(small, zeros[:1024], rubbish), ""},
		{"another archive behind the end", join(small, zeros[:1024], large, zeros[:1024]), ""},
		{"part of a block behind the end", join(small, zeros[:1024], rubbish[:5]), ""},
		{"no end", small, ""},
		{"no end, file in an object", large, ""},
		{"no padding", small[:tarBlock+7], ""},
		{"no padding, file in an object", large[:tarBlock+1000], ""},
		{"a part of the padding", large[:tarBlock+1010], ""},
		{"one zero block", join(small, zeros[:512]), ""},
		{"one and a half", join(small, zeros[:700]), ""},
		{"half a zero block", join(small, zeros[:200]), ""},
		{"empty", nil, ""},
		{"one zero block, then a header", join(small, zeros[:512], large), "a single zero block"},
		{"one zero block, then rubbish", join(small, zeros[:512], rubbish), "a single zero block"},
		{"one zero block, then a bit of rubbish", join(small, zeros[:512], rubbish[:1]), "a single zero block"},
		{"part of a header", join(small, large[:100]), "the tar ends inside the header: unexpected EOF"},
		{"rubbish", join(small, rubbish), "this is no tar header"},
		{"content cut off", small[:tarBlock+6], "the tar ends inside the content: unexpected EOF"},
		{"content of an object cut off", large[:tarBlock+999], "read content: unexpected EOF"},
		{"no content", small[:tarBlock], "the tar ends inside the content"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries, in, report, err := parseBytes(tt.tar, Limits{})
			if !errorIs(err, tt.err) {
				t.Fatalf("%v; want %q", err, tt.err)
			}
			if err == nil && (!bytes.Equal(in.joined(), tt.tar) || report.Entries != len(entries)) {
				t.Errorf("the pieces do not add up to the tar; %d entries", len(entries))
			}
		})
	}
}

// A carrier that breaks off, as a compressed stream may, is not a tar that ends.
func TestBrokenCarrier(t *testing.T) {
	whole := buildTar(t, "file a data=x\nfile b size=100")
	for _, broken := range []error{io.ErrUnexpectedEOF, errors.New("no route to host")} {
		for n := range len(whole) {
			in := &memInput{tar: whole[:n], err: broken}
			_, err := parseTar(in, Limits{}, func(*Entry) error { return nil })
			if !errors.Is(err, broken) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
	}
}

// stubborn returns nothing and no error for ever.
type stubborn struct{ memInput }

func (*stubborn) Read([]byte) (int, error) { return 0, nil }

func TestNoProgress(t *testing.T) {
	_, err := parseTar(&stubborn{}, Limits{}, nil)
	if !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

// An input may return as little as it likes.
func TestOneByteReads(t *testing.T) {
	b := new(tarBuilder).pax("mtime=1.5").add(head{name: "a", data: "content"}).end()
	in := &dribble{memInput{tar: b}}
	report, err := parseTar(in, Limits{}, func(e *Entry) error {
		if in.line(*e) != `"a" 100000 0:0 1.500000000 7 "content"` {
			t.Error(in.line(*e))
		}
		return nil
	})
	if err != nil || report.Entries != 1 || !bytes.Equal(in.joined(), b) {
		t.Error(report, err)
	}
}

// dribble returns a byte at a time, the last one with io.EOF.
type dribble struct{ memInput }

func (d *dribble) Read(b []byte) (int, error) {
	n, err := d.memInput.Read(b[:1])
	if err == nil && d.pos == len(d.tar) {
		err = io.EOF
	}
	return n, err
}

func TestYieldError(t *testing.T) {
	stop := errors.New("stop")
	var calls int
	_, err := parseTar(&memInput{tar: buildTar(t, "file a\nfile b/c\nfile d")}, Limits{}, func(e *Entry) error {
		if calls++; calls == 2 {
			return stop
		}
		return nil
	})
	var at *EntryError
	if !errors.Is(err, stop) || !errors.As(err, &at) || calls != 2 {
		t.Fatalf("%v after %d calls", err, calls)
	}
	if want := (EntryError{Index: 2, Name: "b/c", Offset: tarBlock, Err: stop}); *at != want {
		t.Errorf("%+v, want %+v", *at, want)
	}
	if want := `tar entry 2, "b/c", at byte 512: stop`; err.Error() != want {
		t.Errorf("%s; want %s", err, want)
	}
}

// TestAllocations checks that reading costs no memory per entry.
func TestAllocations(t *testing.T) {
	b := new(tarBuilder)
	for range 1000 {
		b.pax("mtime=1.5", "SCHILY.xattr.security.capability=\x01\x00").add(head{name: "usr/share/doc/a", data: "content"})
		b.add(head{typ: typeLongName, name: "x", data: strings.Repeat("n", 150)}).add(head{typ: typeSymlink, name: "x", link: "y"})
	}
	tar := b.end()
	in := &replay{}
	n := testing.AllocsPerRun(5, func() {
		in.Reset(tar)
		if _, err := parseTar(in, Limits{}, func(*Entry) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if n > 20 {
		t.Errorf("%v allocations for 2000 entries", n)
	}
}

// replay is a tarInput that keeps nothing.
type replay struct{ bytes.Reader }

func (r *replay) External(size int64) (int, error) {
	_, err := r.Seek(size, io.SeekCurrent)
	return 0, err
}

func (r *replay) Sparse(stored int64, _ []segment, _ int64) (int, []byte, error) {
	n, err := r.External(stored)
	return n, nil, err
}

// BenchmarkParseTar reads a layer of 27,000 files as package managers make them.
func BenchmarkParseTar(b *testing.B) {
	for _, records := range [][]string{nil, {"mtime=1700000000.123456789", "atime=1700000000.1", "ctime=1700000000.1"}} {
		var t tarBuilder
		for i := range 27000 {
			if records != nil {
				t.pax(records...)
			}
			t.add(head{name: fmt.Sprintf("usr/lib/python3/dist-packages/module%d/file%d.py", i/100, i), mode: 0o644, mtime: 1700000000, data: strings.Repeat("x", i%200)})
		}
		tar := t.end()
		b.Run(fmt.Sprintf("records=%d", len(records)), func(b *testing.B) {
			in := &replay{}
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(tar)
				if _, err := parseTar(in, Limits{}, func(*Entry) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
