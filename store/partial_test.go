package store_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

const someBlob = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// openPartial opens a partial blob that has a content.
func openPartial(t *testing.T, s *store.Store, want string) *store.Partial {
	t.Helper()
	p, err := s.OpenPartial(someBlob)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(p, 0, p.Size()))
	if err != nil || string(got) != want {
		t.Errorf("it has %q, %v; want %q", got, err, want)
	}
	return p
}

// TestPartial goes on with a blob where another one left it, and leaves nothing of one that is complete.
func TestPartial(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	file := s.Dir() + "/flatroot/partial/" + someBlob
	p := openPartial(t, s, "")
	if _, err := io.WriteString(p, "some"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenPartial(someBlob); !errors.Is(err, store.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, p.Close())

	p = openPartial(t, s, "some")
	if _, err := io.WriteString(p, " more"); err != nil {
		t.Fatal(err)
	}
	must(t, p.Close())
	p = openPartial(t, s, "some more")
	must(t, p.Clear())
	if _, err := io.WriteString(p, "anew"); err != nil {
		t.Fatal(err)
	}
	must(t, p.Close())
	p = openPartial(t, s, "anew")
	must(t, p.Remove())
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed, but there: %v", err)
	}
	must(t, openPartial(t, s, "").Close())
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty, but there: %v", err)
	}
	if _, err := s.OpenPartial("../x"); err == nil {
		t.Error("opened ../x")
	}
}

// TestPartialRace has many processes go for one blob: one at a time has it, under the name that others open.
func TestPartialRace(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	var wg sync.WaitGroup
	var mu sync.Mutex // held by who has the blob
	for range 8 {
		wg.Go(func() {
			for range 200 {
				p, err := s.OpenPartial(someBlob)
				if errors.Is(err, store.ErrLocked) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !mu.TryLock() {
					t.Error("two have it")
					return
				}
				if p.Size() != 0 {
					t.Errorf("%d bytes of one that was removed", p.Size())
				}
				if _, err := io.WriteString(p, "x"); err != nil {
					t.Error(err)
				}
				mu.Unlock()
				must(t, p.Remove())
			}
		})
	}
	wg.Wait()
}

// TestPartialLeftover has partial blobs listed and collected as leftovers.
func TestPartialLeftover(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	p := openPartial(t, s, "")
	if _, err := io.WriteString(p, "some"); err != nil {
		t.Fatal(err)
	}
	must(t, p.Close())
	if got, err := s.Unfinished(); err != nil || !slices.Equal(got, []string{"flatroot/partial/" + someBlob}) {
		t.Errorf("unfinished: %q, %v", got, err)
	}
	for _, dry := range []bool{true, false} {
		r, err := s.GC(context.Background(), store.GCOptions{DryRun: dry})
		if err != nil || r.Leftovers != 1 {
			t.Errorf("dry run %v: %+v, %v", dry, r, err)
		}
	}
	if got, err := s.Unfinished(); err != nil || len(got) > 0 {
		t.Errorf("unfinished: %q, %v", got, err)
	}
}

// TestPartialReadOnly: a store that is not written to has none.
func TestPartialReadOnly(t *testing.T) {
	s, err := store.Open(storetest.New(t, store.InitOptions{}).Dir(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.OpenPartial(someBlob); !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), s.Dir()) {
		t.Errorf("got %v", err)
	}
}
