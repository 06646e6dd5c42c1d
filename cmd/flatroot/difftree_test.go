package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

const diffBase = `/ 0 40755 4 0 0 0 0.0 - - -
/d 0 40755 2 0 0 0 0.0 - - -
/d/e 3 100644 1 0 0 0 0.0 - abc -
/f 3 100644 1 0 0 0 0.0 - abc -
/l 1 120777 1 0 0 0 0.0 f - -
/x 0 100644 1 0 0 0 0.0 - - - user.a=1 user.b=
`

func parseTree(t *testing.T, text string) *tree.Tree {
	t.Helper()
	tr, err := dump.Parse(strings.NewReader(text), dump.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr.Canonicalize()
	return tr
}

func TestDiffTrees(t *testing.T) {
	tests := map[string]struct {
		old, new string // in a line of diffBase
		want     []string
	}{
		"nothing":    {"", "", nil},
		"root":       {"/ 0 40755", "/ 0 40700", []string{"~ / mode 0755 → 0700"}},
		"mode":       {"/f 3 100644", "/f 3 104755", []string{"~ /f mode 0644 → 4755"}},
		"owner":      {"/f 3 100644 1 0 0", "/f 3 100644 1 1 2", []string{"~ /f uid 0 → 1, gid 0 → 2"}},
		"time":       {"1 0 0 0 0.0 f", "1 0 0 0 -1.5 f", []string{"~ /l mtime 1970-01-01T00:00:00Z → 1969-12-31T23:59:59.000000005Z"}},
		"target":     {"0.0 f - -", "0.0 x - -", []string{"~ /l target f → x"}},
		"content":    {"/f 3 100644 1 0 0 0 0.0 - abc", "/f 3 100644 1 0 0 0 0.0 - xyz", []string{`~ /f content "abc" → "xyz"`}},
		"xattrs":     {"user.a=1 user.b=", "user.b= user.c=2", []string{`~ /x xattr user.a "1" → none, xattr user.c none → "2"`}},
		"removed":    {"/f 3 100644 1 0 0 0 0.0 - abc -\n", "", []string{"- /f"}},
		"renamed":    {"/f 3", "/g 3", []string{"- /f", "+ /g"}},
		"strange":    {"/f 3", `/\x1b\n\x20 3`, []string{`+ "/\x1b\n "`, "- /f"}},
		"type":       {"/l 1 120777 1 0 0 0 0.0 f", "/l 0 10777 1 0 0 0 0.0 -", []string{"~ /l type symlink → fifo, target f → none"}},
		"device":     {"/l 1 120777 1 0 0 0 0.0 f", "/l 0 20777 1 0 0 259 0.0 -", []string{"~ /l type symlink → \"character device\", rdev 0 → 259, target f → none"}},
		"hard link":  {"/f 3 100644 1 0 0 0 0.0 - abc -", "/f 0 @100644 1 0 0 0 0.0 /d/e - -", []string{"~ /f link none → /d/e"}},
		"dir to not": {"/d 0 40755 2 0 0 0 0.0 - - -\n/d/e 3 100644 1 0 0 0 0.0 - abc -", "/d 0 100755 1 0 0 0 0.0 - - -", []string{"~ /d type directory → file, size none → 0", "- /d/e"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := parseTree(t, diffBase)
			b := parseTree(t, strings.Replace(diffBase, tt.old, tt.new, 1))
			if got := diffLines(t, a, b); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			back := diffLines(t, b, a)
			if len(back) != len(tt.want) {
				t.Errorf("the other way round: %q", back)
			}
		})
	}
}

func diffLines(t *testing.T, a, b *tree.Tree) []string {
	t.Helper()
	var lines []string
	for c := range diffTrees(a, b) {
		var s strings.Builder
		if err := c.print(&s, false); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSuffix(s.String(), "\n"))
	}
	return lines
}

// TestDiffStops makes sure that nothing comes after the reader has had enough.
func TestDiffStops(t *testing.T) {
	a := parseTree(t, diffBase)
	b := parseTree(t, "/ 0 40700 2 1 1 0 0.0 - - -\n/z 0 100644 1 0 0 0 0.0 - - -\n")
	for n := range 6 {
		seen := 0
		for range diffTrees(a, b) {
			if seen++; seen > n {
				break
			}
		}
	}
}
