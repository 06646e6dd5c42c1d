package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tests/testenv"
)

// putImage stores what refs take for an image.
func putImage(t *testing.T, s *store.Store, content string) fsverity.Digest {
	t.Helper()
	d := put(t, s, content)
	_, err := s.Link(store.Images, d.String(), d)
	must(t, err)
	return d
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// livePath is where the record of an image that is mounted now has to be.
func livePath(t *testing.T, dir string, d fsverity.Digest) string {
	t.Helper()
	boot, err := store.BootID()
	must(t, err)
	return filepath.Join(dir, "images/refs/flatroot/live", boot, d.String())
}

// mountedAre says what is mounted.
func mountedAre(complete bool, err error, list ...fsverity.Digest) store.MountedFunc {
	images := map[fsverity.Digest]bool{}
	for _, d := range list {
		images[d] = true
	}
	return func() (map[fsverity.Digest]bool, bool, error) { return images, complete, err }
}

func TestBootID(t *testing.T) {
	a, err := store.BootID()
	must(t, err)
	b, err := store.BootID()
	must(t, err)
	if a != b {
		t.Errorf("%q, then %q", a, b)
	}
	for id, is := range map[string]bool{
		a: true, "01234567-89ab-cdef-0123-456789abcdef": true,
		"": false, "x": false, "..": false, a + "\n": false, a[1:] + "-": false, a[:35] + "/": false, a[:35] + "G": false,
		"01234567-89AB-cdef-0123-456789abcdef": false, "012345678-9ab-cdef-0123-456789abcdef": false,
	} {
		if store.IsUUID(id) != is {
			t.Errorf("%q: a UUID should be %v", id, is)
		}
	}
}

func TestRecordMount(t *testing.T) {
	s := newStore(t)
	a, b := putImage(t, s, "a"), putImage(t, s, "b")
	for _, d := range []fsverity.Digest{a, b, a} {
		_, err := s.RecordMount(d, nil)
		must(t, err)
	}
	text, err := os.Readlink(livePath(t, s.Dir(), a))
	must(t, err)
	if want := "../../../../" + a.String(); text != want || !exists(t, livePath(t, s.Dir(), b)) {
		t.Errorf("record is a link to %s, want %s", text, want)
	}
	// An object that is no image is not this store's to keep.
	o := put(t, s, "no image")
	undo, err := s.RecordMount(o, nil)
	must(t, err)
	undo()
	if exists(t, livePath(t, s.Dir(), o)) {
		t.Error("recorded what is no image")
	}
}

// TestRecordUndone: only what surely isn't mounted is forgotten, and nobody is waited for.
func TestRecordUndone(t *testing.T) {
	a := sum(newStore(t), "a")
	other := sum(newStore(t), "other")
	for what, c := range map[string]struct {
		mounted store.MountedFunc
		inUse   bool
		gone    bool
	}{
		"not mounted":  {mountedAre(true, nil, other), false, true},
		"mounted":      {mountedAre(true, nil, a, other), false, false},
		"unsure":       {mountedAre(false, nil, other), false, false},
		"error":        {mountedAre(true, errors.New("broken")), false, false},
		"store in use": {mountedAre(true, nil), true, false},
	} {
		s := newStore(t)
		putImage(t, s, "a")
		must(t, s.SetRef(store.Images, "flatroot/rules/x", a.String()))
		if c.inUse {
			o, err := store.Open(s.Dir(), store.OpenOptions{ReadOnly: true})
			must(t, err)
			defer o.Close()
		}
		undo, err := s.RecordMount(a, c.mounted)
		must(t, err)
		undo()
		if exists(t, livePath(t, s.Dir(), a)) == c.gone {
			t.Errorf("%s: gone should be %v", what, c.gone)
		}
		if exists(t, s.Dir()+"/images/refs/flatroot/live") == c.gone || !exists(t, s.Dir()+"/images/refs/flatroot/rules/x") {
			t.Errorf("%s: of directories only the empty ones are to go", what)
		}
		undo()
		must(t, s.Close())
	}
}

// TestRecordRace: of mounts that fail and mounts that come to be, of the same image at the
// same time, none of the latter loses its record.
func TestRecordRace(t *testing.T) {
	s := newStore(t)
	a := putImage(t, s, "a")
	dir := s.Dir()
	must(t, s.Close())
	for range 50 {
		var mu sync.Mutex
		images := map[fsverity.Digest]bool{}
		mounted := func() (map[fsverity.Digest]bool, bool, error) {
			mu.Lock()
			defer mu.Unlock()
			return map[fsverity.Digest]bool{a: images[a]}, true, nil
		}
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				s, err := store.OpenToMount(dir, store.OpenOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				undo, err := s.RecordMount(a, mounted)
				switch {
				case err != nil:
					t.Error(err)
				case i > 0:
					undo()
				default:
					mu.Lock()
					images[a] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if !exists(t, livePath(t, dir, a)) {
			t.Fatal("a mount has lost its record")
		}
		must(t, os.RemoveAll(dir+"/images/refs"))
	}
}

func TestOpenToMount(t *testing.T) {
	s := newStore(t)
	a := putImage(t, s, "a")
	must(t, s.Close())
	s, err := store.OpenToMount(s.Dir(), store.OpenOptions{})
	must(t, err)
	_, err = s.RecordMount(a, nil)
	must(t, err)
	must(t, s.Close())
	if _, err := store.OpenToMount(t.TempDir(), store.OpenOptions{}); !errors.Is(err, store.ErrNotStore) {
		t.Errorf("no store: %v", err)
	}
}

// TestOpenToMountReadOnly: where a store can't be written, one can still mount, and is
// told why that isn't recorded.
func TestOpenToMountReadOnly(t *testing.T) {
	testenv.Need(t, "user")
	s := newStore(t)
	a := putImage(t, s, "a")
	must(t, s.Close())
	must(t, os.Chmod(s.Dir(), 0o500))
	t.Cleanup(func() { os.Chmod(s.Dir(), 0o700) })
	s, err := store.OpenToMount(s.Dir(), store.OpenOptions{})
	must(t, err)
	defer s.Close()
	undo, err := s.RecordMount(a, nil)
	if !errors.Is(err, store.ErrReadOnly) || !errors.Is(err, unix.EACCES) {
		t.Errorf("%v", err)
	}
	undo()
	if exists(t, s.Dir()+"/images/refs") {
		t.Error("something was written")
	}
}

// BenchmarkRecordMount is what a record adds to a mount: the first since the boot, which makes directories, and one of an
// image that is mounted already.
func BenchmarkRecordMount(b *testing.B) {
	s := newStore(b)
	d := put(b, s, "image")
	_, err := s.Link(store.Images, d.String(), d)
	must(b, err)
	record := func(b *testing.B) (undo func()) {
		undo, err := s.RecordMount(d, mountedAre(true, nil))
		must(b, err)
		return undo
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			undo := record(b)
			b.StopTimer()
			undo()
			b.StartTimer()
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			record(b)
		}
	})
}
