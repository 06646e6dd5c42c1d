package fuse_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/fusetest"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// repo is an image and its objects.
type repo struct {
	image   string
	objects string
	digest  fsverity.Digest
}

// newRepo writes the image of a dump, and the objects of contents.
func newRepo(t testing.TB, text string, contents ...[]byte) *repo {
	t.Helper()
	dir := t.TempDir()
	r := &repo{image: filepath.Join(dir, "image"), objects: filepath.Join(dir, "objects")}
	must(t, os.Mkdir(r.objects, 0o755))
	for _, c := range contents {
		p := r.object(c)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, c, 0o644))
	}
	tr, err := dump.Parse(bytes.NewReader([]byte(text)), dump.Options{})
	must(t, err)
	r.digest = writeImage(t, r.image, tr)
	return r
}

func writeImage(t testing.TB, path string, tr *tree.Tree) fsverity.Digest {
	t.Helper()
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	must(t, os.WriteFile(path, b.Bytes(), 0o644))
	return sum.Digest
}

// object is the path of the object with a content.
func (r *repo) object(content []byte) string {
	return filepath.Join(r.objects, fsverity.Sum(fsverity.SHA256, content).ObjectPath())
}

// serving has the repo's files open until the test ends.
func (r *repo) serving(t testing.TB, v mount.View) mount.Serving {
	t.Helper()
	image, err := os.Open(r.image)
	must(t, err)
	objects, err := os.Open(r.objects)
	must(t, err)
	t.Cleanup(func() {
		image.Close()
		objects.Close()
	})
	return mount.Serving{
		Service: mount.Service{View: v, Digest: r.digest, Image: mount.ImageUnchecked, Objects: mount.ObjectsUnchecked},
		Image:   image, Objects: []*os.File{objects},
	}
}

func TestRead(t *testing.T) {
	fusetest.NeedMounts(t)
	big := bytes.Repeat([]byte("flatroot\n"), 300_000)
	d := fsverity.Sum(fsverity.SHA256, big)
	r := newRepo(t, "/ 0 40755 2 0 0 0 0.0 - - -\n"+
		"/big "+strconv.Itoa(len(big))+" 100644 1 0 0 0 0.0 "+d.ObjectPath()+" - "+d.String()+"\n"+
		"/inline 5 100644 1 0 0 0 0.0 - hello -\n/link 6 120777 1 0 0 0 0.0 inline - -\n", big)
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	for name, want := range map[string]string{"big": string(big), "inline": "hello", "link": "hello"} {
		if got, err := fusetest.ReadFile(filepath.Join(s.Dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	names, err := os.ReadDir(s.Dir)
	if err != nil || len(names) != 3 {
		t.Errorf("%d names, %v", len(names), err)
	}
}
