package pkgdb

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// entry is one of a changelog.
func entryText(suites, trailer string) string {
	return "a (1) " + suites + "; urgency=low\n\n  * Text.\n\n -- " + trailer + "\n\n"
}

func TestParseChangelog(t *testing.T) {
	const some = "N (x) <n@example.com>  "
	for _, c := range []struct{ name, text, want string }{
		{"one", entryText("unstable", some+"Mon, 02 Jan 2006 15:04:05 -0700"), "2006-01-02T22:04:05Z"},
		{"several", entryText("bookworm-security", some+"Mon, 02 Jan 2006 15:04:05 +0000") +
			entryText("stable unstable", some+"Sun, 01 Jan 2006 15:04:05 +0000"), "2006-01-02T15:04:05Z 2006-01-01T15:04:05Z"},
		{"not uploaded", entryText("UNRELEASED", some+"Mon, 02 Jan 2006 15:04:05 -0700"), ""},
		{"not uploaded, beside a suite", entryText("unstable UNRELEASED", some+"Mon, 02 Jan 2006 15:04:05 -0700"), ""},
		{"experimental", entryText("unstable", some+"Tue, 03 Jan 2006 15:04:05 +0000") +
			entryText("experimental", some+"Mon, 02 Jan 2006 15:04:05 +0000") +
			entryText("unstable experimental", some+"Sun, 01 Jan 2006 15:04:05 +0000"), "2006-01-03T15:04:05Z 2006-01-01T15:04:05Z"},
		{"no suite", entryText(" ", some+"Mon, 02 Jan 2006 15:04:05 -0700"), "2006-01-02T22:04:05Z"},
		{"old forms", entryText("frozen", some+"Thu,  1 Jan 1998 1:02:03 +0100 (CET)") +
			entryText("x", "nobody <x>  2 Jan 1998 01:02:03 +0000"), "1998-01-01T00:02:03Z 1998-01-02T01:02:03Z"},
		{"wrong day of the week", entryText("unstable", some+"Fri, 02 Jan 2006 15:04:05 +0000"), "2006-01-02T15:04:05Z"},
		{"no date", entryText("unstable", some) + entryText("unstable", some+"Mon, 31 Feb 2006 15:04:05 +0000"), ""},
		{"no title", " -- " + some + "Mon, 02 Jan 2006 15:04:05 +0000\n", ""},
		{"of upstream", "2006-01-02  N  <n@example.com>\n\n\t* x.c (f): Text; more.\n\n -- \n", ""},
		{"no end", strings.TrimSpace(entryText("unstable", some+"Mon, 02 Jan 2006 15:04:05 +0000")), "2006-01-02T15:04:05Z"},
		{"long lines", strings.Repeat("x", 3*maxChangelogLine) + "\n" +
			entryText("unstable", some+"Mon, 02 Jan 2006 15:04:05 +0000"), "2006-01-02T15:04:05Z"},
	} {
		var got []string
		for _, d := range parseChangelog(strings.NewReader(c.text)) {
			got = append(got, d.Format(time.RFC3339))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: got %q, want %q", c.name, g, c.want)
		}
	}
	many := strings.Repeat(entryText("unstable", some+"Mon, 02 Jan 2006 15:04:05 -0700"), 2*maxChanges)
	if n := len(parseChangelog(strings.NewReader(many))); n != maxChanges {
		t.Errorf("%d dates", n)
	}
}

// changed is a changelog with one entry, of a day of 2006.
func changed(day string) []byte {
	return []byte(entryText("unstable", "N <n@example.com>  Mon, "+day+" Jan 2006 00:00:00 +0000"))
}

func TestDebianChanges(t *testing.T) {
	const doc = "usr/share/doc/a/"
	gz := func(b []byte) *fstest.MapFile { return &fstest.MapFile{Data: compress(t, b)} }
	upstream := gz([]byte("Version 1\n"))
	for _, c := range []struct {
		name string
		tree fstest.MapFS
		want string
	}{
		{"none", fstest.MapFS{doc + "copyright": {}}, ""},
		{"of Debian", fstest.MapFS{doc + "changelog.Debian.gz": gz(changed("02")), doc + "changelog.gz": gz(changed("03"))}, "02"},
		{"native", fstest.MapFS{doc + "changelog.gz": gz(changed("03"))}, "03"},
		{"not compressed", fstest.MapFS{doc + "changelog.Debian": {Data: changed("04")}, doc + "changelog.gz": upstream}, "04"},
		{"rebuilt", fstest.MapFS{doc + "changelog.Debian.gz": gz(changed("02")), doc + "changelog.Debian.amd64.gz": gz(changed("05")),
			doc + "changelog.Debian.i386.gz": gz(changed("06"))}, "02 05"},
		{"in another's directory", fstest.MapFS{"usr/share/doc/a": {Data: []byte("b"), Mode: fs.ModeSymlink},
			"usr/share/doc/b/changelog.Debian.gz": gz(changed("07"))}, "07"},
		{"no gzip", fstest.MapFS{doc + "changelog.Debian.gz": {Data: changed("02")}}, ""},
		{"truncated", fstest.MapFS{doc + "changelog.Debian.gz": {Data: compress(t, changed("02"))[:20]}}, ""},
		{"a directory", fstest.MapFS{doc + "changelog.Debian.gz/x": {}, doc + "changelog.gz": gz(changed("03"))}, "03"},
	} {
		dates, err := newTree(c.tree).debianChanges("a", "amd64")
		must(t, err)
		var got []string
		for _, d := range dates {
			got = append(got, d.Format("02"))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: got %q, want %q", c.name, g, c.want)
		}
	}
}

func TestChangelogBounds(t *testing.T) {
	bomb := compress(t, append(changed("02"), make([]byte, maxExpanded)...))
	tree := newTree(fstest.MapFS{"a.gz": {Data: bomb}, "b": {Data: make([]byte, maxChangelog+1)}})
	dates, ok, err := tree.changelog("a.gz")
	if len(dates) != 1 || !ok || err != nil {
		t.Errorf("%v, %v, %v", dates, ok, err)
	}
	if used := int64(maxChangelogs) - tree.changelogs; used != maxExpanded {
		t.Errorf("%d bytes were read", used)
	}
	tree.changelogs = maxExpanded - 1
	if _, _, err := tree.changelog("a.gz"); err == nil {
		t.Error("more than all changelogs may have")
	}
	if dates, ok, err := tree.changelog("b"); ok || err != nil {
		t.Errorf("longer than any: %v, %v", dates, err)
	}
}

// FuzzChangelog reads changelogs.
func FuzzChangelog(f *testing.F) {
	f.Add(changed("02"))
	f.Add([]byte("a (1) x; y\n -- >\n -- > 1 2 3 4 5 6\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if dates := parseChangelog(bytes.NewReader(text)); len(dates) > maxChanges || len(dates)*20 > len(text) {
			t.Errorf("%d dates in %d bytes", len(dates), len(text))
		}
	})
}
