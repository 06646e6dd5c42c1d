package pkgdb

import (
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"
)

var errBroken = errors.New("broken")

// failing is a file system with one operation that fails, the first after left others.
type failing struct {
	fs.FS
	left *int
}

func (f failing) fails() error {
	*f.left--
	if *f.left == -1 {
		return errBroken
	}
	return nil
}

func (f failing) Open(name string) (fs.File, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return failingFile{file, f}, nil
}

type failingFile struct {
	fs.File
	fs failing
}

func (f failingFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.fails(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f failingFile) Read(b []byte) (int, error) {
	if err := f.fs.fails(); err != nil {
		return 0, err
	}
	return f.File.Read(b)
}

func (f failingFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.fails(); err != nil {
		return 0, err
	}
	return f.File.(io.ReaderAt).ReadAt(b, off)
}

func (f failingFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if err := f.fs.fails(); err != nil {
		return nil, err
	}
	return f.File.(fs.ReadDirFile).ReadDir(n)
}

// Whatever fails to be read, Read fails with it: nothing is taken for missing that is there.
func TestReadFails(t *testing.T) {
	small := rpmTree("rpmdb.sqlite", expand(t, "../sqlite/small.zst"))
	small[marinerLog] = &fstest.MapFile{Data: expand(t, "../sqlite/small-wal.zst")}
	small[mariner+"-journal"] = &fstest.MapFile{Data: make([]byte, 512)}
	for name, tree := range map[string]fs.FS{
		"dpkg": files(t, "-- var/lib/dpkg/status --\n"+stanza("a", "installed")+"-- var/lib/dpkg/info/a.list --\n/a\n"+
			"-- var/lib/dpkg/diversions --\n/b\n/c\nd\n-- usr/share/doc/a/changelog.Debian.gz --\n"),
		"distroless": samples(t, "distroless.txtar"),
		"sqlite":     small,
		"in memory":  small,
		"ndb":        rpmTree("Packages.db", ndbOf(headerOf(tag{tagName, "a"}))),
		"apk":        samples(t, "alpine.txtar"),
		"pacman":     samples(t, "pacman.txtar"),
	} {
		n := 0
		for ; ; n++ {
			left := n
			root := fs.FS(failing{tree, &left})
			if name == "in memory" {
				root = plainFS{root}
			}
			dbs, err := Read(root, ReadOptions{})
			if left >= 0 {
				must(t, err)
				break
			}
			if !errors.Is(err, errBroken) {
				t.Fatalf("%s: operation %d failed, and Read gave %v, %v", name, n, dbs, err)
			}
		}
		if n < 10 {
			t.Errorf("%s: %d operations", name, n)
		}
	}
}

// A file that is shorter than it was said to be is no reason to wait for more, or to take zeros for it.
func TestShortFile(t *testing.T) {
	f := &file{ReaderAt: emptyFile{}, size: 100}
	if err := f.at(make([]byte, 10), 90); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	for _, off := range []int64{-1, 91, 1<<63 - 1} {
		if err := f.at(make([]byte, 10), off); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d: %v", off, err)
		}
	}
}

type emptyFile struct{}

func (emptyFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
