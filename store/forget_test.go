package store_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// TestForgetMount: who unmounted takes the record away only if he is sure, and waits for
// nobody.
func TestForgetMount(t *testing.T) {
	s := newStore(t)
	a := putImage(t, s, "a")
	_, err := s.RecordMount(a, nil)
	must(t, err)
	dir := s.Dir()
	stays := func(what string, mounted store.MountedFunc) {
		t.Helper()
		store.ForgetMount(dir, a, mounted)
		if !exists(t, livePath(t, dir, a)) {
			t.Errorf("%s: it is forgotten", what)
		}
	}
	none := mountedAre(true, nil)
	stays("the store is in use", none)
	must(t, s.LockExclusive(context.Background(), nil))
	stays("the store is another's", none)
	if _, err := store.Open(dir, store.OpenOptions{NoWait: true}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("open without waiting: %v", err)
	}
	must(t, s.Close())
	stays("still mounted", mountedAre(true, nil, a))
	stays("unsure", mountedAre(false, nil))
	stays("no /proc", mountedAre(true, errors.New("no /proc")))
	store.ForgetMount(dir, fsverity.Sum(fsverity.SHA256, []byte("b")), none)
	stays("another image", func() (map[fsverity.Digest]bool, bool, error) { return nil, false, nil })
	store.ForgetMount(dir, a, none)
	if exists(t, dir+"/images/refs/flatroot") {
		t.Error("it is not forgotten, or leaves directories")
	}
	store.ForgetMount(dir, a, none)
	store.ForgetMount(t.TempDir(), a, none)
}

// TestEmptyLive: directories that a killed command has left go with the next collection,
// those of a ref don't.
func TestEmptyLive(t *testing.T) {
	s := newStore(t)
	refs := s.Dir() + "/images/refs/"
	o := store.GCOptions{Tracers: map[store.Kind]store.Tracer{
		store.Images: func(io.ReaderAt, int64, func(store.Edge, fsverity.Digest) error) error { return nil },
	}}
	gc := func() {
		t.Helper()
		_, err := s.GC(context.Background(), o)
		must(t, err)
	}
	for _, dir := range []string{"flatroot", "flatroot/live", "flatroot/live/01234567-89ab-cdef-0123-456789abcdef"} {
		must(t, os.MkdirAll(refs+dir, 0o755))
		gc()
		if exists(t, refs+"flatroot") {
			t.Errorf("%s stays", dir)
		}
	}
	a := putImage(t, s, "a")
	_, err := s.RecordMount(a, nil)
	must(t, err)
	must(t, os.MkdirAll(refs+"flatroot/live/empty", 0o755))
	gc()
	if exists(t, refs+"flatroot/live/empty") || !exists(t, livePath(t, s.Dir(), a)) {
		t.Error("beside a record")
	}
}
