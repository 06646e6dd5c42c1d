package index

import (
	"math"
	"strings"
	"testing"
)

func TestNextRecord(t *testing.T) {
	tests := []struct {
		in, key, value, rest, err string
	}{
		{in: "6 k=v\nmore", key: "k", value: "v", rest: "more"},
		{in: "5 k=\n", key: "k"},
		{in: "7 k=a=\n", key: "k", value: "a="},
		{in: "8 k=\n\x00\n\n", key: "k", value: "\n\x00\n"},
		{in: "006 k=v\n", err: "newline"}, // the zeros count
		{in: "008 k=v\n", key: "k", value: "v"},
		{in: "6", err: "length and a space"},
		{in: "6\tk=v\n", err: "length and a space"},
		{in: " 6 k=v\n", err: "length and a space"},
		{in: "k=v\n", err: "length and a space"},
		{in: "-6 k=v\n", err: "length and a space"},
		{in: "+6 k=v\n", err: "length and a space"},
		{in: "0x6 k=v\n", err: "length and a space"},
		{in: "\n", err: "length and a space"},
		{in: "\x00", err: "length and a space"},
		{in: "7 k=v\n", err: "longer than what is left"},
		{in: "99999999999999999999999999999999 k=v\n", err: "longer than what is left"},
		{in: "0 k=v\n", err: "newline"},
		{in: "2 k=v\n", err: "newline"},
		{in: "5 k=v\n", err: "newline"},
		{in: "6 k=v\x00", err: "newline"},
		{in: "5 kv\n", err: "no key"},
		{in: "5 =v\n", err: "no key"},
	}
	for _, tt := range tests {
		key, value, rest, err := nextRecord([]byte(tt.in))
		if !errorIs(err, tt.err) || string(key) != tt.key || string(value) != tt.value || string(rest) != tt.rest {
			t.Errorf("%q: %q, %q, %q, %v; want %q, %q, %q, %q", tt.in, key, value, rest, err, tt.key, tt.value, tt.rest, tt.err)
		}
	}
}

func TestParsePAXTime(t *testing.T) {
	tests := []struct {
		in   string
		sec  int64
		nsec uint32
		err  string
	}{
		{in: "0"},
		{in: "12", sec: 12},
		{in: "12.", sec: 12},
		{in: "12.5", sec: 12, nsec: 500000000},
		{in: "12.000000001", sec: 12, nsec: 1},
		{in: "12.0000000019", sec: 12, nsec: 1}, // cut, not rounded
		{in: "12.999999999999", sec: 12, nsec: 999999999},
		{in: "-1", sec: -1},
		{in: "-0", sec: 0},
		{in: "-1.5", sec: -2, nsec: 500000000},
		{in: "-0.5", sec: -1, nsec: 500000000},
		{in: "-0.000000001", sec: -1, nsec: 999999999},
		{in: "-1.0000000001", sec: -1},
		{in: "9223372036854775807.999999999", sec: math.MaxInt64, nsec: 999999999},
		{in: "-9223372036854775807.5", sec: math.MinInt64, nsec: 500000000},
		{in: "9223372036854775808", err: "63 bits"},
		{in: "-9223372036854775808", err: "63 bits"},
		{in: "", err: "no decimal"},
		{in: ".5", err: "no decimal"},
		{in: "-", err: "no decimal"},
		{in: "+1", err: "no decimal"},
		{in: "--1", err: "no decimal"},
		{in: "1,5", err: "no decimal"},
		{in: "1.5.5", err: "no decimal"},
		{in: "1.-5", err: "no decimal"},
		{in: "1.0000000000x", err: "no decimal"},
		{in: "1e9", err: "no decimal"},
		{in: " 1", err: "no decimal"},
	}
	for _, tt := range tests {
		sec, nsec, err := parsePAXTime([]byte(tt.in))
		if !errorIs(err, tt.err) || sec != tt.sec || nsec != tt.nsec {
			t.Errorf("%q: %d, %d, %v; want %d, %d, %q", tt.in, sec, nsec, err, tt.sec, tt.nsec, tt.err)
		}
	}
}

func TestPAXRecords(t *testing.T) {
	file := head{name: "h", mode: 0o600, uid: 1, gid: 2, mtime: 3}
	link := head{typ: typeSymlink, name: "h", link: "t"}
	tests := []struct {
		name string
		tar  []byte
		want string // of the last entry
	}{
		{"header alone", new(tarBuilder).add(file).end(),
			`"h" 100600 1:2 3.000000000 0 ""`},
		{"all fields", new(tarBuilder).pax("path=p/q", "uid=4294967295", "gid=7", "mtime=-8.25").add(file).end(),
			`"p/q" 100600 4294967295:7 -9.750000000 0 ""`},
		{"size", new(tarBuilder).pax("size=3").raw(file.block()).padded("abc").end(),
			`"h" 100600 1:2 3.000000000 3 "abc"`},
		{"linkpath", new(tarBuilder).pax("linkpath=p/../q").add(link).end(),
			`"h" 120000 0:0 0.000000000 -> "p/../q"`},
		{"holds for one entry", new(tarBuilder).pax("path=p", "uid=9", "SCHILY.xattr.user.a=b").add(file).add(file).end(),
			`"h" 100600 1:2 3.000000000 0 ""`},
		{"empty takes back", new(tarBuilder).pax("uid=9", "uid=").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 ""`},
		{"the last holds", new(tarBuilder).pax("uid=9", "uid=", "uid=8", "uid=7").add(file).end(),
			`"h" 100600 7:2 3.000000000 0 ""`},
		{"unknown records", new(tarBuilder).pax("comment=x", "atime=rubbish", "uname=\x00", "LIBARCHIVE.xattr.user.a=YQ", "RHT.x=1").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 ""`},
		{"global", new(tarBuilder).global("uid=9", "mtime=1.5").add(file).add(file).end(),
			`"h" 100600 9:2 1.500000000 0 ""`},
		{"local over global", new(tarBuilder).global("uid=9", "gid=9").pax("uid=8").add(file).end(),
			`"h" 100600 8:9 3.000000000 0 ""`},
		{"local takes global back", new(tarBuilder).global("uid=9", "gid=9").pax("uid=").add(file).end(),
			`"h" 100600 1:9 3.000000000 0 ""`},
		{"taken back for one entry only", new(tarBuilder).global("uid=9").pax("uid=").add(file).add(file).end(),
			`"h" 100600 9:2 3.000000000 0 ""`},
		{"global takes global back", new(tarBuilder).global("uid=9", "gid=9").global("uid=").add(file).end(),
			`"h" 100600 1:9 3.000000000 0 ""`},
		{"global over global", new(tarBuilder).global("uid=9", "gid=9").add(file).global("uid=8").add(file).end(),
			`"h" 100600 8:9 3.000000000 0 ""`},
		{"global over GNU", new(tarBuilder).global("path=p").add(head{typ: typeLongName, data: "g\x00", magic: magicGNU}).add(file).end(),
			`"p" 100600 1:2 3.000000000 0 ""`},
		{"xattrs", new(tarBuilder).pax("SCHILY.xattr.user.b=\x00\n=", "SCHILY.xattr.user.a=1").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 "" user.a="1" user.b="\x00\n="`},
		{"xattr twice", new(tarBuilder).pax("SCHILY.xattr.user.a=1", "SCHILY.xattr.user.a=2").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 "" user.a="2"`},
		{"xattr taken back", new(tarBuilder).pax("SCHILY.xattr.user.a=1", "SCHILY.xattr.user.b=2", "SCHILY.xattr.user.a=").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 "" user.b="2"`},
		{"xattrs of global and local", new(tarBuilder).
			global("SCHILY.xattr.user.a=1", "SCHILY.xattr.user.b=2", "SCHILY.xattr.user.c=3").
			pax("SCHILY.xattr.user.a=", "SCHILY.xattr.user.b=x", "SCHILY.xattr.user.d=y").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 "" user.b="x" user.c="3" user.d="y"`},
		{"global xattr taken back by global", new(tarBuilder).global("SCHILY.xattr.user.a=1").global("SCHILY.xattr.user.a=").add(file).end(),
			`"h" 100600 1:2 3.000000000 0 ""`},
		{"global xattrs stay", new(tarBuilder).global("SCHILY.xattr.user.a=1").pax("SCHILY.xattr.user.a=2").add(file).add(file).end(),
			`"h" 100600 1:2 3.000000000 0 "" user.a="1"`},
		{"PAX over GNU", new(tarBuilder).add(head{typ: typeLongName, data: "g\x00", magic: magicGNU}).pax("path=p").add(file).end(),
			`"p" 100600 1:2 3.000000000 0 ""`},
		{"PAX over GNU, other order", new(tarBuilder).pax("path=p").add(head{typ: typeLongName, data: "g\x00", magic: magicGNU}).add(file).end(),
			`"p" 100600 1:2 3.000000000 0 ""`},
		{"a number that the record hides", new(tarBuilder).pax("mtime=5").add(head{name: "h", edit: func(b []byte) { copy(b[fieldMtime.off:], "rubbish") }}).end(),
			`"h" 100000 0:0 5.000000000 0 ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries, in := mustParse(t, tt.tar)
			compareLines(t, in, entries[len(entries)-1:], []string{tt.want})
		})
	}
}

// FuzzPAXRecords checks that what is read from an extended header, written
// again, reads the same.
func FuzzPAXRecords(f *testing.F) {
	f.Add([]byte(paxRecords("path=a/b", "SCHILY.xattr.user.a=\x00\n", "mtime=1.5", "size=")))
	f.Add([]byte(paxRecords("GNU.sparse.offset=0", "GNU.sparse.numbytes=1")))
	f.Add([]byte("99999999999999999999 a=b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var keys, values []string
		for rest := b; len(rest) > 0; {
			key, value, next, err := nextRecord(rest)
			if err != nil {
				return
			}
			keys, values, rest = append(keys, string(key)), append(values, string(value)), next
		}
		var again strings.Builder
		for i := range keys {
			again.WriteString(paxRecords(keys[i] + "=" + values[i]))
		}
		rest := []byte(again.String())
		for i := range keys {
			key, value, next, err := nextRecord(rest)
			if err != nil || string(key) != keys[i] || string(value) != values[i] {
				t.Fatalf("record %d is %q=%q, %v; want %q=%q", i, key, value, err, keys[i], values[i])
			}
			rest = next
		}
		limits := Limits{}.withDefaults()
		p := paxParser{limits: &limits}
		var h paxHeader
		if p.parse(&h, b) == nil && (len(h.points)%2 != 0 || int64(len(h.xattrs)) > limits.MaxXattrs) {
			t.Fatalf("%d points, %d xattrs", len(h.points), len(h.xattrs))
		}
	})
}
