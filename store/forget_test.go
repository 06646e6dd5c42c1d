package store_test

import (
	"context"
	"errors"
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
