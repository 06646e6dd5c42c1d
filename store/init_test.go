package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"golang.org/x/sys/unix"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b/store")
	o := store.InitOptions{Algorithm: fsverity.SHA512, Verity: store.VerityOff}
	for range 2 {
		must(t, store.Init(dir, o))
	}
	storetest.Check(t, dir)
	s, err := store.Open(dir, store.OpenOptions{})
	must(t, err)
	defer s.Close()
	if s.Algorithm() != fsverity.SHA512 || s.Secure() || s.Verity() != store.VerityOff || s.Dir() != dir || !slices.Equal(s.Formats(), []int{1}) {
		t.Errorf("%v, secure %v, verity %v, %s, formats %v", s.Algorithm(), s.Secure(), s.Verity(), s.Dir(), s.Formats())
	}
	for _, other := range []store.InitOptions{{}, {Algorithm: fsverity.SHA256, Verity: store.VerityOff}} {
		if err := store.Init(dir, other); err == nil || !strings.Contains(err.Error(), "sha512, not sha256") {
			t.Errorf("other settings: %v", err)
		}
	}
	if err := store.Init(dir, store.InitOptions{Algorithm: fsverity.SHA512, Verity: store.VerityRequire}); err == nil || !strings.Contains(err.Error(), "verity off, not require") {
		t.Errorf("other verity: %v", err)
	}
	must(t, store.Init(dir, store.InitOptions{Algorithm: fsverity.SHA512, Verity: store.VerityAuto}))
	for _, bad := range []store.InitOptions{{Algorithm: 9}, {Verity: "maybe"}} {
		if store.Init(filepath.Join(t.TempDir(), "x"), bad) == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
}

func TestInitWhere(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(dir string) error
		ok   bool
	}{
		"missing":        {os.Remove, true},
		"empty":          {func(string) error { return nil }, true},
		"mount point":    {func(dir string) error { return os.Mkdir(dir+"/lost+found", 0o700) }, true},
		"killed init":    {func(dir string) error { return os.MkdirAll(dir+"/flatroot/settings", 0o755) }, true},
		"killed init 2":  {func(dir string) error { return os.WriteFile(dir+"/meta.json", []byte(metaSHA256), 0o644) }, true},
		"file inside":    {func(dir string) error { return os.WriteFile(dir+"/letter", nil, 0o600) }, false},
		"objects inside": {func(dir string) error { return os.Mkdir(dir+"/objects", 0o755) }, false},
		"damaged meta":   {func(dir string) error { return os.WriteFile(dir+"/meta.json", nil, 0o600) }, false},
		"a file":         {func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }, false},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		must(t, os.Mkdir(dir, 0o755))
		must(t, tc.make(dir))
		before, _ := os.ReadDir(dir)
		err := store.Init(dir, store.InitOptions{})
		if tc.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if after, _ := os.ReadDir(dir); err != nil && len(after) != len(before) {
			t.Errorf("%s: refused, but now there are %v", name, after)
		}
		if err == nil {
			s, err := store.Open(dir, store.OpenOptions{})
			must(t, err)
			must(t, s.Close())
		}
	}
}

// TestInitRace: all find a whole store, whoever made it.
// TestInitAgain lets one finish what a killed one has left: directories that are missing.
func TestInitAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"images", "streams"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Init(dir, store.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"objects", "images", "streams"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInitRace(t *testing.T) {
	for range 10 {
		initRace(t)
	}
}

func initRace(t *testing.T) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := map[fsverity.Algorithm]int{}
	for i := range 16 {
		wg.Go(func() {
			a := fsverity.Algorithm(1 + i%2)
			err := store.Init(dir, store.InitOptions{Algorithm: a})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made[a]++
			} else if !strings.Contains(err.Error(), "it is there already") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Errorf("success with %v", made)
	}
	s, err := store.Open(dir, store.OpenOptions{})
	must(t, err)
	if made[s.Algorithm()] != 8 {
		t.Errorf("%v: %d of 8", s.Algorithm(), made[s.Algorithm()])
	}
	must(t, s.Close())
	storetest.Check(t, dir)
}

func TestOpenRefuses(t *testing.T) {
	base := t.TempDir()
	must(t, os.MkdirAll(base+"/old/objects/00", 0o755))
	must(t, os.MkdirAll(base+"/other/things", 0o755))
	must(t, os.WriteFile(base+"/file", nil, 0o644))
	for name, want := range map[string]error{
		"none": store.ErrNotStore, "file": store.ErrNotStore, "other": store.ErrNotStore, "old": store.ErrOldStore,
	} {
		for _, o := range []store.OpenOptions{{}, {ReadOnly: true}} {
			_, err := store.Open(base+"/"+name, o)
			if !errors.Is(err, want) || !strings.Contains(err.Error(), base+"/"+name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := store.Init(base+"/old", store.InitOptions{}); !errors.Is(err, store.ErrOldStore) {
		t.Errorf("Init of an old one: %v", err)
	}
}

// TestOpenBare: other tools make everything but meta.json when it is needed.
func TestOpenBare(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700))
	must(t, os.WriteFile(dir+"/meta.json", []byte(metaSHA256), 0o644))
	r, err := store.Open(dir, store.OpenOptions{ReadOnly: true})
	must(t, err)
	d := sum(r, "x")
	if has, err := r.HasObject(d); has || err != nil {
		t.Errorf("HasObject: %v, %v", has, err)
	}
	if _, err := r.OpenObject(d); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenObject: %v", err)
	}
	if _, err := r.Entry(store.Images, d.String()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Entry: %v", err)
	}
	if r.ObjectsDir() != nil {
		t.Error("there is a directory of objects")
	}
	for range r.Objects() {
		t.Error("there are objects")
	}
	for x, err := range r.Entries(store.Streams) {
		t.Errorf("entry %v, %v", x, err)
	}
	for x, err := range r.Refs(store.Streams, "") {
		t.Errorf("ref %v, %v", x, err)
	}
	must(t, r.Close())
	if fs, _ := os.ReadDir(dir); len(fs) != 1 {
		t.Errorf("reading made %v", fs)
	}
	s, err := store.Open(dir, store.OpenOptions{})
	must(t, err)
	put(t, s, "x")
	_, err = s.Link(store.Streams, "a", d)
	must(t, err)
	must(t, s.Close())
	storetest.Check(t, dir)
}

func TestOpenUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.Init(dir, store.InitOptions{}))
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs a read-only mount, and mounting it root: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, err := store.Open(dir, store.OpenOptions{}); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	s, err := store.Open(dir, store.OpenOptions{ReadOnly: true})
	must(t, err)
	must(t, s.Close())
}
