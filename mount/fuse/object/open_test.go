package object

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// openers are the two ways of opening a name.
var openers = map[string]func(int, string) (int, error){"openat2": openBeneath, "walk": walk}

// TestOpenBeneath opens what is an object's name but no object: by neither way
// anything is opened, and a pipe is not waited for.
func TestOpenBeneath(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "objects")
	must(t, os.MkdirAll(dir+"/aa", 0o755))
	must(t, os.WriteFile(dir+"/aa/file", []byte("x"), 0o644))
	must(t, os.WriteFile(top+"/outside", []byte("x"), 0o644))
	must(t, os.Symlink("file", dir+"/aa/link"))
	must(t, os.Symlink("aa", dir+"/ab"))
	must(t, os.Symlink("../outside", dir+"/up"))
	must(t, os.Symlink(top+"/outside", dir+"/absolute"))
	must(t, unix.Mkfifo(dir+"/aa/pipe", 0o644))
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	for way, open := range openers {
		for name, want := range map[string]error{
			"aa/file": nil, "aa/pipe": nil, "aa": nil, // what they are is looked at later
			"aa/link": unix.ELOOP, "up": unix.ELOOP, "absolute": unix.ELOOP,
			"aa/none": unix.ENOENT, "none/file": unix.ENOENT, "aa/file/x": unix.ENOTDIR,
		} {
			fd, err := open(int(f.Fd()), name)
			if err != want {
				t.Errorf("%s %s: %v, want %v", way, name, err, want)
			}
			if err == nil {
				unix.Close(fd)
			}
		}
		if fd, err := open(int(f.Fd()), "ab/file"); err == nil {
			unix.Close(fd)
			t.Errorf("%s goes through a symlink to a directory", way)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for path, ok := range map[string]bool{
		"a": true, "aa/bb": true, "a/b/c": true, "..a/.b": true, "...": true,
		"": false, "/": false, "/aa": false, "aa/": false, "aa//bb": false, ".": false, "./aa": false, "aa/.": false,
		"..": false, "../aa": false, "aa/../bb": false, "aa/..": false, "a\x00b": false,
	} {
		if err := checkPath([]byte(path)); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
		if ok {
			continue
		}
		_, err := newPool(t, Options{}, t.TempDir()).ReadAt(Ref{Path: []byte(path), Size: 1}, make([]byte, 1), 0)
		if !isBad(err) {
			t.Errorf("%q: %v", path, err)
		}
	}
	long := make([]byte, unix.PathMax)
	for i := range long {
		long[i] = 'a'
	}
	if err := checkPath(long); err == nil {
		t.Error("a path longer than the kernel takes")
	}
}

// TestNotRegular puts other things in an object's place, and then a file in a
// directory that is searched later.
func TestNotRegular(t *testing.T) {
	r := Ref{Path: []byte("aa/bb"), Size: 5}
	for name, put := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"socket": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			here, err := os.Getwd() // sun_path is short: bind in the directory
			if err != nil {
				return err
			}
			defer os.Chdir(here)
			if err := os.Chdir(filepath.Dir(path)); err != nil {
				return err
			}
			return unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Base(path)})
		},
		"symlink": func(path string) error { return os.Symlink("/etc/hostname", path) },
	} {
		t.Run(name, func(t *testing.T) {
			first, second := newObjects(t), newObjects(t)
			must(t, os.Mkdir(first.dir+"/aa", 0o755))
			must(t, put(first.path(r)))
			p := newPool(t, Options{}, first.dir, second.dir)
			begun := time.Now()
			_, err := p.ReadAt(r, make([]byte, 5), 0)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("read: %v", err)
			}
			if err := p.Check(r); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("check: %v", err)
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			second.write(r, []byte("right"))
			checkRead(t, readerOf{p, r}, []byte("right"), 5, 0)
		})
	}
}

// TestSearchOrder: the first directory that has the object counts, be its content
// good or bad, as in overlayfs.
func TestSearchOrder(t *testing.T) {
	first, second := newObjects(t), newObjects(t)
	r := second.add(fsverity.SHA256, []byte("right"))
	p := newPool(t, verified, first.dir, second.dir)
	checkRead(t, readerOf{p, r}, []byte("right"), 5, 0)
	first.write(r, []byte("wrong"))
	must(t, os.Remove(second.path(r)))
	failRead(t, readerOf{newPool(t, verified, first.dir, second.dir), r}, 5, 0, ErrBad)
	second.write(r, []byte("right"))
	failRead(t, readerOf{newPool(t, verified, first.dir, second.dir), r}, 5, 0, ErrBad)
	checkRead(t, readerOf{newPool(t, verified, second.dir, first.dir), r}, []byte("right"), 5, 0)
}

// TestOpenFile looks at the file that passthrough gets.
func TestOpenFile(t *testing.T) {
	content := randomBytes(200_000)
	o := newObjects(t)
	r := o.add(fsverity.SHA512, content)
	p := o.pool(verified)
	f, err := p.Open(r)
	must(t, err)
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	must(t, err)
	if flags&unix.O_NONBLOCK != 0 || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("flags %#x", flags)
	}
	p.Close()
	got, err := io.ReadAll(f) // from the beginning: the offset is its own
	must(t, err)
	if string(got) != string(content) {
		t.Error("wrong content")
	}
}

// TestNoDirectories: a pool without any has no object.
func TestNoDirectories(t *testing.T) {
	r := Ref{Path: []byte("aa/bb"), Size: 5}
	failRead(t, readerOf{newPool(t, Options{}), r}, 5, 0, fs.ErrNotExist)
}
