package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"golang.org/x/sys/unix"
)

// putBoth puts a content in both ways and tells which of them wrote it.
func putBoth(t *testing.T, s *store.Store, b []byte) (whole, streamed bool) {
	t.Helper()
	d := fsverity.Sum(s.Algorithm(), b)
	whole, err := s.PutObject(d, b)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.NewObject()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	got, streamed, err := w.Commit()
	if err != nil || got != d {
		t.Fatalf("commit: %v, %v", got, err)
	}
	return whole, streamed
}

func objectFile(s *store.Store, d fsverity.Digest) string {
	return filepath.Join(s.Dir(), "objects", d.ObjectPath())
}

func quarantineFile(s *store.Store, d fsverity.Digest) string {
	return filepath.Join(s.Dir(), "flatroot/quarantine", d.String())
}

// spoil gives an object other bytes, in place.
func spoil(t *testing.T, s *store.Store, d fsverity.Digest, b []byte) {
	t.Helper()
	if err := os.WriteFile(objectFile(s, d), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%s: %q, %v, want %q", path, b, err, want)
	}
}

// TestBadNote has an object whose damage doesn't show: only the note of it has it
// replaced, once, in whichever way it is put.
func TestBadNote(t *testing.T) {
	good, bad := []byte("the content"), []byte("the tnetnoc")
	for _, streamed := range []bool{false, true} {
		s := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
		d := fsverity.Sum(s.Algorithm(), good)
		putBoth(t, s, good)
		spoil(t, s, d, bad)
		if a, b := putBoth(t, s, good); a || b {
			t.Fatal("an object without a note was replaced")
		}
		if err := s.MarkBad(d, "object-damaged"); err != nil {
			t.Fatal(err)
		}
		if notes, err := s.Bad(); err != nil || len(notes) != 1 || notes[d] != "object-damaged" {
			t.Fatalf("notes: %v, %v", notes, err)
		}
		if streamed {
			w, err := s.NewObject()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(good); err != nil {
				t.Fatal(err)
			}
			if _, isNew, err := w.Commit(); err != nil || !isNew {
				t.Fatalf("commit: %v, %v", isNew, err)
			}
		} else if isNew, err := s.PutObject(d, good); err != nil || !isNew {
			t.Fatalf("put: %v, %v", isNew, err)
		}
		wantFile(t, objectFile(s, d), good)
		wantFile(t, quarantineFile(s, d), bad)
		if notes, err := s.Bad(); err != nil || len(notes) != 0 {
			t.Errorf("notes afterwards: %v, %v", notes, err)
		}
		if a, b := putBoth(t, s, good); a || b {
			t.Error("it was replaced again")
		}
	}
}

// TestBadNoteOfOthers has notes that another process made before this one first looked.
func TestBadNoteOfOthers(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	good := []byte("the content")
	d := fsverity.Sum(s.Algorithm(), good)
	putBoth(t, s, good)
	other, err := store.Open(s.Dir(), store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := s.MarkBad(d, "object-damaged"); err != nil {
		t.Fatal(err)
	}
	for _, strange := range []string{"nonsense", fsverity.Sum(fsverity.SHA512, good).String()} {
		if err := s.SetNote("bad", strange, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if bad, err := other.IsBad(d); err != nil || !bad {
		t.Errorf("IsBad: %v, %v", bad, err)
	}
	if notes, err := other.Bad(); err != nil || len(notes) != 1 {
		t.Errorf("notes: %v, %v", notes, err)
	}
	if whole, streamed := putBoth(t, other, good); !whole || streamed {
		t.Errorf("replaced: %v, %v", whole, streamed)
	}
	if err := s.ClearBad(d); err != nil { // there is no note any more
		t.Error(err)
	}
	if bad, err := s.IsBad(d); err != nil || bad {
		t.Errorf("IsBad afterwards: %v, %v", bad, err)
	}
}

// TestQuarantineOfReplaced has damage that shows, of all sorts.
func TestQuarantineOfReplaced(t *testing.T) {
	good := []byte("the content")
	for name, damage := range map[string]struct {
		do   func(path string) error
		kept string // what is in quarantine; empty: nothing
	}{
		"cut":       {func(p string) error { return os.Truncate(p, 3) }, "the"},
		"empty":     {func(p string) error { return os.Truncate(p, 0) }, ""},
		"link":      {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/nowhere", p)) }, "link"},
		"directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "directory"},
	} {
		s := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
		d := fsverity.Sum(s.Algorithm(), good)
		putBoth(t, s, good)
		if err := damage.do(objectFile(s, d)); err != nil {
			t.Fatal(err)
		}
		if whole, streamed := putBoth(t, s, good); !whole || streamed {
			t.Errorf("%s: replaced: %v, %v", name, whole, streamed)
		}
		wantFile(t, objectFile(s, d), good)
		kept, err := s.Quarantined()
		if err != nil || len(kept) > 1 || (len(kept) == 0) != (damage.kept == "") {
			t.Fatalf("%s: quarantine has %q, %v", name, kept, err)
		}
		switch damage.kept {
		case "":
		case "link":
			if to, err := os.Readlink(quarantineFile(s, d)); err != nil || to != "/nowhere" {
				t.Errorf("%s: %q, %v", name, to, err)
			}
		case "directory":
			if fi, err := os.Stat(filepath.Join(s.Dir(), kept[0])); err != nil || !fi.IsDir() {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
		default:
			wantFile(t, quarantineFile(s, d), []byte(damage.kept))
		}
	}
}

// TestQuarantineKeepsFirst damages an object twice.
func TestQuarantineKeepsFirst(t *testing.T) {
	s := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
	good := []byte("the content")
	d := fsverity.Sum(s.Algorithm(), good)
	putBoth(t, s, good)
	for _, bad := range []string{"first", "second"} {
		spoil(t, s, d, []byte(bad))
		putBoth(t, s, good)
	}
	wantFile(t, quarantineFile(s, d), []byte("first"))
	wantFile(t, objectFile(s, d), good)
}

// TestReplaceSealed replaces an object in a store with fs-verity: the new one has it,
// and what the kernel says of the old one is not believed against a note.
func TestReplaceSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	k := newKernel()
	if err := store.InitWith(dir, store.InitOptions{Verity: store.VerityRequire}, k); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenWith(dir, store.OpenOptions{}, k)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	good := []byte("the content")
	d := fsverity.Sum(s.Algorithm(), good)
	putBoth(t, s, good)
	spoil(t, s, d, []byte("the tnetnoc")) // the kernel goes on measuring the old digest
	if a, b := putBoth(t, s, good); a || b {
		t.Fatal("replaced without a note")
	}
	if err := s.MarkBad(d, "object-damaged"); err != nil {
		t.Fatal(err)
	}
	if whole, streamed := putBoth(t, s, good); !whole || streamed {
		t.Errorf("replaced: %v, %v", whole, streamed)
	}
	wantFile(t, objectFile(s, d), good)
	f, err := s.OpenObject(d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestQuarantine moves an object away, which only the exclusive lock permits.
func TestQuarantine(t *testing.T) {
	s := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
	good := []byte("the content")
	d := fsverity.Sum(s.Algorithm(), good)
	putBoth(t, s, good)
	if err := s.Quarantine(d); !errors.Is(err, store.ErrNotExclusive) {
		t.Errorf("without the lock: %v", err)
	}
	if err := s.LockExclusive(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"first", "second"} {
		spoil(t, s, d, []byte(content))
		if err := s.MarkBad(d, "unused-damaged"); err != nil {
			t.Fatal(err)
		}
		if err := s.Quarantine(d); err != nil {
			t.Fatal(err)
		}
		wantFile(t, quarantineFile(s, d), []byte("first"))
		if has, err := s.HasObject(d); err != nil || has {
			t.Errorf("it is still there: %v", err)
		}
		if bad, err := s.Bad(); err != nil || len(bad) != 0 {
			t.Errorf("notes: %v, %v", bad, err)
		}
	}
	if err := s.Quarantine(d); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of what is not there: %v", err)
	}
}

func TestLockEntries(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	other, err := store.Open(s.Dir(), store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	unlock, err := s.LockEntries(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	for _, who := range []*store.Store{s, other} {
		if _, err := who.LockEntries(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it is held: %v", err)
		}
	}
	unlock()
	// Nobody has it twice.
	var wg sync.WaitGroup
	var holders, count atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			unlock, err := []*store.Store{s, other}[i%2].LockEntries(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if holders.Add(1) != 1 {
				t.Error("two have it")
			}
			time.Sleep(time.Millisecond)
			holders.Add(-1)
			count.Add(1)
		})
	}
	wg.Wait()
	if n := count.Load(); n != 8 {
		t.Errorf("%d had it", n)
	}
	// The directory's lock is no lock of the store.
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	unlock, err = s.LockEntries(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := s.LockExclusive(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestLockEntriesReadOnly(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	ro, err := store.Open(s.Dir(), store.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if _, err := ro.LockEntries(context.Background()); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("lock: %v", err)
	}
	d := fsverity.Sum(s.Algorithm(), nil)
	for _, err := range []error{ro.MarkBad(d, "x"), ro.ClearBad(d), ro.Quarantine(d)} {
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("%v", err)
		}
	}
}

// TestBadNotesUnread has notes that can't be read: what they say is not guessed.
func TestBadNotesUnread(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	if err := s.WriteFile("bad", nil); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	b := []byte("the content")
	for range 2 {
		if _, err := s.PutObject(fsverity.Sum(s.Algorithm(), b), b); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%v", err)
		}
	}
}

// TestBadNoteOfMissing puts an object that is noted as damaged and is gone: the note goes.
func TestBadNoteOfMissing(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	b := []byte("the content")
	d := fsverity.Sum(s.Algorithm(), b)
	if err := s.MarkBad(d, "object-missing"); err != nil {
		t.Fatal(err)
	}
	if whole, streamed := putBoth(t, s, b); !whole || streamed {
		t.Errorf("new: %v, %v", whole, streamed)
	}
	if bad, err := s.Bad(); err != nil || len(bad) != 0 {
		t.Errorf("notes: %v, %v", bad, err)
	}
}
