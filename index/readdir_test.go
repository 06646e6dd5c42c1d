package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

func readDir(t *testing.T, dir string) *DirTree {
	t.Helper()
	d, err := ReadDir(context.Background(), fsverity.SHA256, dir, DirOptions{}, Limits{})
	check(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// TestReadDir: once it is hashed, a directory's tree is that of its tar.
func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	makeRootTree(t, dir)
	// Around what is hashed at once.
	for name, size := range map[string]int{"below": wholeMax - 1, "exactly": wholeMax, "above": wholeMax + 1, "twice": 2*wholeMax + 5} {
		check(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{1, 2, 3}, size)[:size], 0o644))
	}
	// The first name of a file is not the least of its paths.
	check(t, os.Mkdir(filepath.Join(dir, "n"), 0o755), os.Link(filepath.Join(dir, "above"), filepath.Join(dir, "n", "b")),
		os.Link(filepath.Join(dir, "above"), filepath.Join(dir, "n.b")), os.Remove(filepath.Join(dir, "above")))
	d := readDir(t, dir)
	for n := range tree.Node(d.Tree.Len()) {
		if a := d.Tree.Attr(n); a.Size > InlineMax && a.Mode&tree.TypeMask == tree.Regular && !d.Tree.Digest(n).IsZero() {
			t.Errorf("%s has a digest before anything was read", d.Tree.Path(n))
		}
	}
	check(t, d.Hash(context.Background(), silent{}))
	var b bytes.Buffer
	check(t, dump.Write(&b, d.Tree))
	if got, want := b.String(), dumpOf(t, tarOfDir(dir), Faithful1); got != want {
		t.Error(firstDifference(got, want))
	}
}

// TestReadDirChanged: what is not as it was found is not read, and what changes meanwhile is an error at its end.
func TestReadDirChanged(t *testing.T) {
	text := strings.Repeat("text ", 100)
	in := func(t *testing.T) (dir string, d *DirTree, n tree.Node) {
		dir = t.TempDir()
		check(t, os.Mkdir(filepath.Join(dir, "d"), 0o755), os.WriteFile(filepath.Join(dir, "d", "f"), []byte(text), 0o644),
			os.WriteFile(filepath.Join(dir, "outside"), []byte(text), 0o644))
		d = readDir(t, dir)
		sub, _ := d.Tree.Lookup(tree.Root, []byte("d"))
		n, ok := d.Tree.Lookup(sub, []byte("f"))
		if !ok {
			t.Fatal("no /d/f")
		}
		return dir, d, n
	}
	for name, change := range map[string]func(dir, f string) error{
		"longer": func(_, f string) error { return os.WriteFile(f, []byte(text+"x"), 0o644) },
		"later":  func(_, f string) error { return unix.UtimesNano(f, []unix.Timespec{{Sec: 1}, {Sec: 1}}) },
		"mode":   func(_, f string) error { return os.Chmod(f, 0o600) },
		"another": func(_, f string) error {
			return errors.Join(os.WriteFile(f+"2", []byte(text), 0o644), os.Rename(f+"2", f))
		},
		"gone":    func(_, f string) error { return os.Remove(f) },
		"pipe":    func(_, f string) error { return errors.Join(os.Remove(f), unix.Mkfifo(f, 0o644)) },
		"symlink": func(_, f string) error { return errors.Join(os.Remove(f), os.Symlink("../outside", f)) },
		"linked dir": func(dir, f string) error {
			return errors.Join(os.Rename(dir+"/d", dir+"/e"), os.Symlink("e", dir+"/d"))
		},
		"exchanged": func(dir, f string) error {
			return unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, dir+"/outside", unix.RENAME_EXCHANGE)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, d, n := in(t)
			check(t, change(dir, filepath.Join(dir, "d", "f")))
			if f, err := d.Open(n); err == nil {
				f.Close()
				t.Error("it was opened")
			}
			err := d.Hash(context.Background(), silent{})
			if err == nil || !strings.Contains(err.Error(), dir+"/d/f: ") && !strings.Contains(err.Error(), dir+"/outside: ") {
				t.Error(err)
			}
		})
	}
	t.Run("meanwhile", func(t *testing.T) {
		dir, d, n := in(t)
		f, err := d.Open(n)
		check(t, err)
		defer f.Close()
		_, err = f.Read(make([]byte, 10))
		check(t, err, unix.UtimesNano(filepath.Join(dir, "d", "f"), []unix.Timespec{{Sec: 1}, {Sec: 1}}))
		if _, err := io.Copy(io.Discard, f); !errors.Is(err, errChanged) {
			t.Error(err)
		}
	})
}

// TestHashTells: how much was read is told, also of a part of a file, after which it can be interrupted.
func TestHashTells(t *testing.T) {
	dir := t.TempDir()
	const size = 3*wholeMax + 5
	check(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o644))
	d := readDir(t, dir)
	var told int64
	p := telling(func(n int64) { told += n })
	check(t, d.Hash(context.Background(), p))
	if told != size {
		t.Errorf("%d bytes of %d were told", told, size)
	}
	ctx, end := context.WithCancel(context.Background())
	told = 0
	p = func(n int64) { told += n; end() }
	if err := d.Hash(ctx, p); !errors.Is(err, context.Canceled) || told == 0 || told >= size {
		t.Errorf("%v after %d bytes of %d", err, told, size)
	}
}

// telling is a Progress for one thing at a time.
type telling func(int64)

func (p telling) Start(Work, oci.Layer) func(int64) { return p }

func (telling) Reused(oci.Layer) {}
func (telling) Step(string)      {}

// TestReadTreeOnly: of the layers that are not asked for nothing is read.
func TestReadTreeOnly(t *testing.T) {
	dir := t.TempDir()
	img := ocitest.Image{Layers: [][]byte{ocitest.Tar(ocitest.File{Name: "a", Data: "a"}), ocitest.Tar(ocitest.File{Name: "b", Data: "b"})}}
	_, err := img.WriteLayout(dir, "v1")
	check(t, err)
	ref, err := oci.ParseReference("oci:" + dir + ":v1")
	check(t, err)
	src, err := layout.Open(ref, layout.Options{})
	check(t, err)
	defer src.Close()
	parsed, err := src.Image(context.Background())
	check(t, err)
	hidden := filepath.Join(dir, "blobs", "sha256", parsed.Layers[0].Descriptor.Digest.Encoded())
	check(t, os.Remove(hidden))
	only := func(d oci.DiffID) bool { return d == parsed.Layers[1].DiffID }
	tr, err := ReadTree(context.Background(), src, fsverity.SHA256, ImportOptions{Rules: Faithful1, Only: only})
	check(t, err)
	_, a := tr.Lookup(tree.Root, []byte("a"))
	_, b := tr.Lookup(tree.Root, []byte("b"))
	if a || !b {
		t.Errorf("a is there: %t, b: %t", a, b)
	}
}

// TestReadDirErrors: errors name the file, limits hold.
func TestReadDirErrors(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1000), 0o644))
	for want, l := range map[string]Limits{
		"--max-file-size raises it": {MaxFileSize: 999}, "--max-entries raises it": {MaxEntries: 1}, "--max-image-metadata raises it": {MaxImageMetadata: 1},
	} {
		_, err := ReadDir(context.Background(), fsverity.SHA256, dir, DirOptions{}, l)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// Of a file that is larger than anything can be read the size tells, without delay, though it is found out about when the
	// directory was read further.
	for n := range 200 {
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("g%d", n)), nil, 0o644))
	}
	check(t, os.Truncate(filepath.Join(dir, "f"), 1<<42))
	_, err := ReadDir(context.Background(), fsverity.SHA256, dir, DirOptions{}, Limits{})
	if err == nil || !strings.HasPrefix(err.Error(), "read "+dir+`: tar entry 2, "f", `) ||
		!strings.HasSuffix(err.Error(), "--max-file-size raises it)") {
		t.Error(err)
	}
	check(t, os.Truncate(filepath.Join(dir, "f"), 1000))
	check(t, os.WriteFile(filepath.Join(dir, ".wh.f"), nil, 0o644))
	_, err = ReadDir(context.Background(), fsverity.SHA256, dir, DirOptions{}, Limits{})
	if want := "read " + dir + ": " + dir + "/.wh.f: a name that begins with .wh."; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
