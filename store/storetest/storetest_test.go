package storetest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// filled is a store with something of everything.
func filled(t *testing.T) (string, fsverity.Digest) {
	t.Helper()
	dir := t.TempDir() + "/store"
	if err := store.Init(dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir, store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := fsverity.Sum(s.Algorithm(), []byte("content"))
	_, e1 := s.PutObject(d, []byte("content"))
	_, e2 := s.Link(store.Streams, "entry", d)
	_, e3 := s.Link(store.Images, d.String(), d)
	if err := errors.Join(e1, e2, e3, s.SetRef(store.Streams, "oci/tag", "entry"),
		s.SetNote("verified", "a", "b"), s.WriteFile("origins/a.json", []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	return dir, d
}

func TestGoodStore(t *testing.T) {
	dir, _ := filled(t)
	if ps := Problems(dir); len(ps) != 0 {
		t.Errorf("%q", ps)
	}
}

func TestProblems(t *testing.T) {
	write := func(name string) func(string, string) error {
		return func(dir, _ string) error { return os.WriteFile(dir+"/"+name, nil, 0o644) }
	}
	link := func(text, name string) func(string, string) error {
		return func(dir, object string) error {
			return os.Symlink(strings.ReplaceAll(text, "OBJECT", object), dir+"/"+name)
		}
	}
	for name, spoil := range map[string]func(dir, object string) error{
		"wrong content":        func(dir, o string) error { return os.WriteFile(dir+"/objects/"+o, []byte("CONTENT"), 0o644) },
		"missing object":       func(dir, o string) error { return os.Remove(dir + "/objects/" + o) },
		"object's mode":        func(dir, o string) error { return os.Chmod(dir+"/objects/"+o, 0o600) },
		"directory's mode":     func(dir, o string) error { return os.Chmod(dir+"/objects/"+o[:2], 0o700) },
		"root's mode":          func(dir, _ string) error { return os.Chmod(dir, 0o755) },
		"meta.json gone":       func(dir, _ string) error { return os.Remove(dir + "/meta.json") },
		"private file's mode":  func(dir, _ string) error { return os.Chmod(dir+"/flatroot/origins/a.json", 0o600) },
		"temporary object":     write("objects/.tmp-object-abc"),
		"temporary link":       link("x", ".symlink-abc"),
		"temporary meta.json":  write(".init-abc"),
		"temporary note":       write("flatroot/origins/.tmp-abc"),
		"download":             func(dir, _ string) error { return os.Mkdir(dir+"/flatroot/tmp", 0o755) },
		"not an object's name": write("objects/ab"),
		"file as entry":        write("streams/file"),
		"file as ref":          write("streams/refs/file"),
		"dangling entry":       link("../objects/00/00", "streams/dangling"),
		"absolute entry":       link("/etc/passwd", "streams/absolute"),
		"image's name":         link("../objects/OBJECT", "images/other"),
		"dangling ref":         link("../none", "streams/refs/dangling"),
		"ref to an object":     link("../../objects/OBJECT", "streams/refs/object"),
		"ref of wrong depth":   link("../entry", "streams/refs/oci/shallow"),
	} {
		dir, d := filled(t)
		if err := spoil(dir, d.ObjectPath()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == "download" {
			if err := write("flatroot/tmp/sha256:aa")(dir, ""); err != nil {
				t.Fatal(err)
			}
		}
		if len(Problems(dir)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}
