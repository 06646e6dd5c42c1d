package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// manyObjects is a sample whose image names n objects that don't exist, /dir/0 and on.
func manyObjects(t *testing.T, n int) *sample {
	t.Helper()
	s := newSample(t, t.TempDir(), false)
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 3})
	dir, err := tr.Add(tree.Root, []byte("dir"), tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	must(t, err)
	for i := range n {
		f, err := tr.Add(dir, fmt.Append(nil, i), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: 100})
		must(t, err)
		must(t, tr.SetObject(f, fsverity.Sum(fsverity.SHA256, fmt.Append(nil, i))))
	}
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	s.digest = sum.Digest
	must(t, os.WriteFile(s.image, b.Bytes(), 0o644))
	return s
}

// checked runs the step that looks for objects.
func checked(r Request) error {
	d := &doing{request: &r, image: r.Image}
	return d.checkObjects(context.Background())
}

func TestMissingObjects(t *testing.T) {
	r := manyObjects(t, 5).request(t, "")
	err := checked(r)
	var m *MissingError
	if !errors.As(err, &m) || m.Total != 5 || len(m.Missing) != missingNamed {
		t.Fatalf("%v", err)
	}
	zero := fsverity.Sum(fsverity.SHA256, []byte("0"))
	if m.Missing[0] != (MissingObject{File: "/dir/0", Object: zero.ObjectPath(), Digest: zero}) {
		t.Errorf("first is %+v", m.Missing[0])
	}
	for _, text := range []string{"files without content: 5: ", `"/dir/0" needs object ` + zero.ObjectPath(), "and 2 more"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q lacks %q", err, text)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := (&doing{request: &r, image: r.Image}).checkObjects(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestCheckObjects puts other things where the object should be.
func TestCheckObjects(t *testing.T) {
	s := newSample(t, t.TempDir(), false)
	empty, err := OpenObjects(t.TempDir())
	must(t, err)
	t.Cleanup(func() { closeAll(empty) })
	r := s.request(t, "")
	r.Objects = append(empty, r.Objects...)
	must(t, checked(r))
	away := filepath.Join(s.dir, "away")
	must(t, os.Rename(s.object, away))
	for _, c := range []struct {
		name string
		put  func() error
		text string
	}{
		{"nothing", func() error { return nil }, "files without content: 1: "},
		{"short", func() error { return os.WriteFile(s.object, bigContent[1:], 0o644) }, "has 26999 bytes"},
		{"link", func() error { return os.Symlink(away, s.object) }, "no regular file"},
		{"directory", func() error { return os.Mkdir(s.object, 0o755) }, "no regular file"},
	} {
		must(t, c.put())
		if err := checked(r); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
		os.Remove(s.object)
	}
	outside := r.Objects[1:]
	if why, ok := findObject(outside, "../away", int64(len(bigContent))); ok || !strings.Contains(why, "can't be looked up") {
		t.Errorf("an object outside of its directory: %q, %v", why, ok)
	}
}

// TestCheckOption: the mount is refused before anything is made.
func TestCheckOption(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	r.Check = true
	mounted(t, r, plan(t, r))
	must(t, Unmount(r.Target, UnmountOptions{}))
	must(t, os.Remove(s.object))
	before := snapshot(t)
	var m *MissingError
	if err := plan(t, r).Do(context.Background()); !errors.As(err, &m) {
		t.Errorf("object missing: %v", err)
	}
	before.same(t)
}
