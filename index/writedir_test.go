package index

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// listTar describes each entry of a tar in a line.
func listTar(t *testing.T, b []byte) []string {
	t.Helper()
	var lines []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%c %s %o %s %d %q", h.Typeflag, h.Name, h.Mode, h.Linkname, h.ModTime.UnixNano(), content))
	}
}

func writeDir(t *testing.T, dir string, o DirOptions) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	err := WriteDirTar(context.Background(), &b, dir, o)
	return b.Bytes(), err
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// makeTree makes names in an order that is not theirs, with fixed times.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	check(t,
		os.WriteFile(in("z"), []byte("last"), 0o600),
		os.Mkdir(in("dir"), 0o750),
		os.WriteFile(in("dir/b"), nil, 0o644),
		os.WriteFile(in("dir/a"), []byte("first"), 0o644),
		os.Link(in("dir/a"), in("a-link")),
		os.Symlink("../nowhere", in("sym")),
		unix.Mkfifo(in("fifo"), 0o622),
		os.Chmod(in("fifo"), 0o622), os.Chmod(in("dir"), 0o750|os.ModeSticky), os.Chmod(in("z"), 0o600|os.ModeSetuid),
		os.Chmod(in("dir/a"), 0o644), os.Chmod(in("dir/b"), 0o644), os.Chmod(dir, 0o755),
	)
	ts := unix.NsecToTimespec(1700000000123456789)
	for _, name := range []string{"z", "dir/a", "dir/b", "dir", "sym", "fifo", "."} {
		check(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return dir
}

func TestWriteDirTar(t *testing.T) {
	b, err := writeDir(t, makeTree(t), DirOptions{})
	check(t, err)
	const at = "1700000000123456789"
	want := []string{
		"5 ./ 755  " + at + ` ""`,
		"0 a-link 644  " + at + ` "first"`,
		"5 dir/ 1750  " + at + ` ""`,
		`1 dir/a 0 a-link 0 ""`,
		"0 dir/b 644  " + at + ` ""`,
		"6 fifo 622  " + at + ` ""`,
		"2 sym 777 ../nowhere " + at + ` ""`,
		"0 z 4600  " + at + ` "last"`,
	}
	if got := listTar(t, b); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	again, err := writeDir(t, makeTree(t), DirOptions{})
	check(t, err)
	if !bytes.Equal(b, again) {
		t.Error("two equal directories have two tars")
	}
	if bytes.Contains(b, []byte("root")) {
		t.Error("a user's name is in the tar")
	}
}

func TestWriteDirTarXattrs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o644))
	if err := unix.Setxattr(file, "user.test", []byte("a\x00b=\n"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system of TMPDIR has no extended attributes")
	} else if err != nil {
		t.Fatal(err)
	}
	check(t, unix.Setxattr(file, "user.none", nil, 0))
	var notes []string
	b, err := writeDir(t, dir, DirOptions{Note: func(path, what string) { notes = append(notes, path+": "+what) }})
	check(t, err)
	if !bytes.Contains(b, []byte(" SCHILY.xattr.user.test=a\x00b=\n\n")) {
		t.Error("the attribute is not in the tar")
	}
	if want := file + ": extended attribute user.none is empty, left out"; !slices.Equal(notes, []string{want}) {
		t.Errorf("notes %q", notes)
	}
}

func TestWriteDirTarNotes(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	check(t, err)
	defer unix.Close(fd)
	t.Chdir(dir) // a socket's address is short
	check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}))
	var notes []string
	b, err := writeDir(t, ".", DirOptions{Note: func(path, what string) { notes = append(notes, path+": "+what) }})
	check(t, err)
	if !slices.Equal(notes, []string{"socket: a socket, left out"}) || len(listTar(t, b)) != 1 {
		t.Errorf("notes %q, tar %q", notes, listTar(t, b))
	}
}

func TestWriteDirTarRefuses(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, ".wh.x"), nil, 0o644))
	if _, err := writeDir(t, dir, DirOptions{}); !errors.Is(err, errWhiteout) {
		t.Errorf("whiteout: %v", err)
	}
	if _, err := writeDir(t, filepath.Join(dir, ".wh.x"), DirOptions{}); err == nil {
		t.Error("a file was taken for a directory")
	}
	if _, err := writeDir(t, filepath.Join(dir, "missing"), DirOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := WriteDirTar(ctx, io.Discard, dir, DirOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// onWrite calls f at the first write after the bytes were seen, as somebody who changes the tree meanwhile.
type onWrite struct {
	seen []byte
	f    func()
}

func (w *onWrite) Write(p []byte) (int, error) {
	if w.f != nil && bytes.Contains(p, w.seen) {
		w.f()
		w.f = nil
	}
	return len(p), nil
}

// TestWriteDirTarChanges changes a file when its header has been written.
func TestWriteDirTarChanges(t *testing.T) {
	tests := map[string]func(path string) error{
		"grows":   func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 200<<10), 0o644) },
		"shrinks": func(p string) error { return os.Truncate(p, 10) },
		"touched": func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1, 0)) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			check(t, os.WriteFile(path, bytes.Repeat([]byte("y"), 100<<10), 0o644))
			w := &onWrite{[]byte("file"), func() { check(t, change(path)) }}
			if err := WriteDirTar(context.Background(), w, dir, DirOptions{}); !errors.Is(err, errChanged) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestWriteDirTarFollowsNothing puts a symlink where a file and a directory were when they were looked at.
func TestWriteDirTarFollowsNothing(t *testing.T) {
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	var st unix.Stat_t
	check(t, unix.Lstat(filepath.Join(dir, "sub"), &st))
	check(t, os.Remove(filepath.Join(dir, "sub")), os.Symlink(outside, filepath.Join(dir, "sub")))
	parent, err := os.Open(dir)
	check(t, err)
	defer parent.Close()
	if f, err := openSame(parent, "sub", &st, unix.O_DIRECTORY); err == nil {
		t.Errorf("%s was opened", f.Name())
	}
	check(t, os.Remove(filepath.Join(dir, "sub")), os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	if _, err := openSame(parent, "sub", &st, unix.O_DIRECTORY); !errors.Is(err, errChanged) {
		t.Errorf("another directory: %v", err)
	}
}

func TestWriteDirTarFileSystems(t *testing.T) {
	testenv.Need(t, "mount")
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	check(t, os.Mkdir(sub, 0o755), unix.Mount("tmpfs", sub, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { check(t, unix.Unmount(sub, 0)) })
	check(t, os.WriteFile(filepath.Join(sub, "file"), nil, 0o644))
	for one, want := range map[bool]string{false: "taken along", true: "left empty"} {
		var notes []string
		b, err := writeDir(t, dir, DirOptions{OneFileSystem: one, Note: func(_, what string) { notes = append(notes, what) }})
		check(t, err)
		if !slices.Equal(notes, []string{"another file system, " + want}) {
			t.Errorf("one file system %v: notes %q", one, notes)
		}
		if has := bytes.Contains(b, []byte("sub/file")); has == one {
			t.Errorf("one file system %v: the file in the other is there: %v", one, has)
		}
	}
}

// TestWriteDirTarDevices makes nodes whose numbers need all bits of a header's fields.
func TestWriteDirTarDevices(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	rdev := unix.Mkdev(0xfff, 0xfffff)
	if err := unix.Mknod(filepath.Join(dir, "char"), unix.S_IFCHR|0o600, int(rdev)); errors.Is(err, unix.EPERM) {
		t.Skip("device nodes can't be made here")
	} else if err != nil {
		t.Fatal(err)
	}
	b, err := writeDir(t, dir, DirOptions{})
	check(t, err)
	r := tar.NewReader(bytes.NewReader(b))
	_, err = r.Next()
	check(t, err)
	h, err := r.Next()
	check(t, err)
	if h.Typeflag != tar.TypeChar || h.Devmajor != 0xfff || h.Devminor != 0xfffff {
		t.Errorf("got %+v", h)
	}
}
