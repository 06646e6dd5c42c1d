package index

import (
	"bytes"
	"fmt"
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
