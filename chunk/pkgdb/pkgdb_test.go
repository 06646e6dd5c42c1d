package pkgdb

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files makes a tree of a txtar archive. Of a file NAME.gz it has the text, which is compressed; LINK -> TARGET is a symlink.
func files(t testing.TB, archive string) fstest.MapFS {
	t.Helper()
	tree := fstest.MapFS{}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name, target, link := strings.Cut(f.Name, " -> ")
		switch {
		case link:
			tree[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
		case strings.HasSuffix(name, ".gz"):
			tree[name] = &fstest.MapFile{Data: compress(t, f.Data)}
		default:
			tree[name] = &fstest.MapFile{Data: f.Data}
		}
	}
	return tree
}

func compress(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(text)
	must(t, err)
	must(t, z.Close())
	return b.Bytes()
}

// render shows databases as tests expect them.
func render(dbs []Database) string {
	var b strings.Builder
	for _, d := range dbs {
		fmt.Fprintf(&b, "%s\n", d.Kind)
		for _, f := range d.Files {
			fmt.Fprintf(&b, "file %s\n", f)
		}
		for _, p := range d.Packages {
			fmt.Fprintf(&b, "%s|%s|%s|%s\n", p.Name, p.Version, p.Arch, p.Source)
			if !p.Built.IsZero() {
				fmt.Fprintf(&b, "  built %s\n", p.Built.Format(time.RFC3339))
			}
			for _, c := range p.Changes {
				fmt.Fprintf(&b, "  changed %s\n", c.Format(time.RFC3339))
			}
			for _, path := range p.Paths {
				fmt.Fprintf(&b, "  %s\n", path)
			}
		}
	}
	return b.String()
}

func expect(t *testing.T, root fs.FS, want string) {
	t.Helper()
	dbs, err := Read(root, ReadOptions{})
	must(t, err)
	if got := render(dbs); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func expectError(t *testing.T, root fs.FS, want ...string) {
	t.Helper()
	dbs, err := Read(root, ReadOptions{})
	if err == nil {
		t.Fatalf("no error but\n%s", render(dbs))
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got error %q, which doesn't have %q", err, w)
		}
	}
}

// samples is a tree of a file in testdata.
func samples(t testing.TB, name string) fstest.MapFS {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	return files(t, string(b))
}

func TestReadNothing(t *testing.T) {
	expect(t, fstest.MapFS{}, "")
	expect(t, files(t, "-- var/lib/dpkg/info/format --\n1\n-- var/lib/rpm/rpmdb.sqlite --\n-- var/lib/pacman/x --\n"), "")
	expect(t, files(t, "-- var --\nno directory\n-- lib --\n"), "")
	expect(t, os.DirFS(t.TempDir()), "")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "var"), nil, 0o644))
	expect(t, os.DirFS(dir), "")
}

// TestReadWithout: what is not to be read can be damaged, and an error says what it is about.
func TestReadWithout(t *testing.T) {
	root := files(t, "-- var/lib/dpkg/status --\nno field\n-- lib/apk/db/installed --\nP:a\nV:1\n")
	_, err := Read(root, ReadOptions{Without: []string{"rpm", "apk"}})
	var of *Error
	if !errors.As(err, &of) || of.Kind != "dpkg" {
		t.Errorf("%v", err)
	}
	dbs, err := Read(root, ReadOptions{Without: []string{"dpkg"}})
	must(t, err)
	if len(dbs) != 1 || dbs[0].Kind != "apk" {
		t.Errorf("%v", dbs)
	}
	if dbs, err = Read(root, ReadOptions{Without: Kinds()}); len(dbs) != 0 || err != nil {
		t.Errorf("%v, %v", dbs, err)
	}
	if got := strings.Join(Kinds(), " "); got != "dpkg rpm apk pacman" {
		t.Error(got)
	}
}

func TestReadSeveral(t *testing.T) {
	expect(t, files(t, `
-- var/lib/dpkg/status --
Package: a
Status: install ok installed
Version: 1
Architecture: all
-- var/lib/dpkg/info/a.list --
/.
-- var/lib/pacman/local/b-2-1/desc --
%NAME%
b

%VERSION%
2-1
-- lib/apk/db/installed --
P:c
V:3
`), `dpkg
file /var/lib/dpkg/status
a|1|all|a
  /
  /var/lib/dpkg/info/a.list
apk
file /lib/apk/db/installed
c|3||c
pacman
b|2-1||b
  /var/lib/pacman/local/b-2-1/desc
`)
}

// A merged /usr has one database under two names, and so does a copy or a hard link.
func TestReadTwice(t *testing.T) {
	const stanza = "P:a\nV:1\nF:usr\nR:b\n\n"
	const want = "apk\nfile /lib/apk/db/installed\nfile /usr/lib/apk/db/installed\na|1||a\n  /usr\n  /usr/b\n"
	expect(t, files(t, "-- usr/lib/apk/db/installed --\n"+stanza+"-- lib -> usr/lib --\n"), want)
	expect(t, files(t, "-- usr/lib/apk/db/installed --\n"+stanza+"-- lib/apk/db/installed --\n"+stanza), want)
	expect(t, files(t, "-- usr/lib/apk/db/installed --\n"+stanza+"-- lib/apk/db/installed --\nP:a\nV:2\n"),
		"apk\nfile /usr/lib/apk/db/installed\na|1||a\n  /usr\n  /usr/b\napk\nfile /lib/apk/db/installed\na|2||a\n")
}

func TestReadOddFiles(t *testing.T) {
	expectError(t, fstest.MapFS{"var/lib/dpkg/status/x": {}}, "var/lib/dpkg/status: it is no regular file")
	expectError(t, fstest.MapFS{"lib/apk/db/installed": {Mode: fs.ModeNamedPipe}}, "lib/apk/db/installed: it is no regular file")
	expectError(t, files(t, "-- var/lib/rpm/Packages --\nP:a\n"), "var/lib/rpm/Packages: ")
	expect(t, files(t, "-- var/lib/dpkg/status -> gone --\n"), "")
}

func TestNewest(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2020, 1, n, 0, 0, 0, 0, time.UTC) }
	var dates []time.Time
	for n := range maxChanges + 5 {
		dates = append(dates, day(n), day(n))
	}
	got := newest(dates)
	if len(got) != maxChanges || !got[0].Equal(day(maxChanges+4)) || !got[maxChanges-1].Equal(day(5)) {
		t.Errorf("%d dates from %v to %v", len(got), got[0], got[len(got)-1])
	}
}

func TestPathBounds(t *testing.T) {
	tree := newTree(fstest.MapFS{})
	long := strings.Repeat("/abc", maxPath/4)
	for _, c := range []struct{ name, want string }{
		{"", "/"}, {"/.", "/"}, {"a//b/", "/a/b"}, {"../../etc/x", "/etc/x"}, {"/a/./b/../c", "/a/c"}, {long, long},
	} {
		got, err := tree.pathsOf(maxPath).clean(c.name)
		if err != nil || got != c.want {
			t.Errorf("%q: got %q, %v", c.name, got, err)
		}
	}
	for _, bad := range []string{"/a\x00", long + "/abc"} {
		if got, err := tree.pathsOf(maxPath).clean(bad); err == nil {
			t.Errorf("%d bytes: got %q", len(bad), got)
		}
	}
	if _, err := tree.pathsOf(0).clean(long); err != nil {
		t.Error(err)
	}
	tree.paths = int64(len(long))
	if _, err := tree.pathsOf(maxPath).clean(long); err == nil {
		t.Error("more than all packages may have")
	}
	p := tree.pathsOf(1)
	tree.paths = maxPaths
	for range 3 {
		if _, err := p.clean(long); err != nil {
			return
		}
	}
	t.Error("more than one byte accounts for")
}

// plainFS is a file system whose files have no ReadAt.
type plainFS struct{ fs.FS }

type plainFile struct{ fs.File }

func (p plainFS) Open(name string) (fs.File, error) {
	f, err := p.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return plainFile{f}, nil
}

func (p plainFile) ReadDir(n int) ([]fs.DirEntry, error) { return p.File.(fs.ReadDirFile).ReadDir(n) }
