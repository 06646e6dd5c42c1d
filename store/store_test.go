package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newStore(t testing.TB) *store.Store { return storetest.New(t, store.InitOptions{}) }

func sum(s *store.Store, content string) fsverity.Digest {
	return fsverity.Sum(s.Algorithm(), []byte(content))
}

func put(t testing.TB, s *store.Store, content string) fsverity.Digest {
	t.Helper()
	d := sum(s, content)
	_, err := s.PutObject(d, []byte(content))
	must(t, err)
	return d
}

func objectPath(s *store.Store, d fsverity.Digest) string {
	return filepath.Join(s.Dir(), "objects", d.ObjectPath())
}

func TestPutObject(t *testing.T) {
	for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
		s := storetest.New(t, store.InitOptions{Algorithm: a})
		for _, content := range []string{"", "x", strings.Repeat("abc", 5000)} {
			d := sum(s, content)
			for _, want := range []bool{true, false} {
				if isNew, err := s.PutObject(d, []byte(content)); err != nil || isNew != want {
					t.Errorf("%d bytes: %v, %v; want %v", len(content), isNew, err, want)
				}
			}
			got, err := os.ReadFile(objectPath(s, d))
			if err != nil || string(got) != content {
				t.Errorf("content: %v, %d bytes", err, len(got))
			}
			if size, err := s.ObjectSize(d); err != nil || size != int64(len(content)) {
				t.Errorf("size: %d, %v", size, err)
			}
			if f, err := s.OpenObject(d); err != nil {
				t.Error(err)
			} else if b, err := io.ReadAll(f); err != nil || string(b) != content || f.Close() != nil {
				t.Errorf("read: %d bytes, %v", len(b), err)
			}
		}
	}
}

func TestUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o027} {
		func() {
			defer unix.Umask(unix.Umask(mask))
			s := newStore(t)
			d := put(t, s, "x")
			_, err := s.Link(store.Streams, "a", d)
			must(t, err)
			must(t, s.SetRef(store.Streams, "deep/er/ref", "a"))
			must(t, s.WriteFile("origins/a.json", []byte("{}")))
			storetest.Check(t, s.Dir())
		}()
	}
}

func TestObjectWriter(t *testing.T) {
	s := newStore(t)
	content := strings.Repeat("0123456789", 1000)
	for _, want := range []bool{true, false} {
		w, err := s.NewObject()
		must(t, err)
		for b := range slices.Chunk([]byte(content), 999) {
			if n, err := w.Write(b); n != len(b) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		d, isNew, err := w.Commit()
		if err != nil || isNew != want || d != sum(s, content) {
			t.Errorf("%v, %v, %v", d, isNew, err)
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("writes after Commit")
		}
		if _, _, err := w.Commit(); err == nil {
			t.Error("second Commit")
		}
		w.Abort()
	}
}

func TestAbort(t *testing.T) {
	s := newStore(t)
	w, err := s.NewObject()
	must(t, err)
	_, err = w.Write([]byte("never mind"))
	must(t, err)
	w.Abort()
	w.Abort()
	if has, err := s.HasObject(sum(s, "never mind")); has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
}

func TestHoles(t *testing.T) {
	s := newStore(t)
	hole := int64(64 << 20)
	if testing.Short() {
		hole = 4 << 20 // fs-verity reads it all
	}
	for _, tail := range []string{"", "end"} {
		w, err := s.NewObject()
		must(t, err)
		_, err = w.Write([]byte("begin"))
		must(t, err)
		must(t, w.WriteHole(hole-5))
		must(t, w.WriteHole(0))
		_, err = w.Write([]byte(tail))
		must(t, err)
		d, _, err := w.Commit()
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Stat(objectPath(s, d), &st))
		if st.Size != hole+int64(len(tail)) || st.Blocks*512 > 1<<20 {
			t.Errorf("size %d, %d bytes on disk", st.Size, st.Blocks*512)
		}
	}
	w, err := s.NewObject()
	must(t, err)
	defer w.Abort()
	if w.WriteHole(-1) == nil {
		t.Error("negative hole")
	}
}

// TestHeal: what a crash may leave of an object is replaced as a whole.
func TestHeal(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "the content")
	path := objectPath(s, d)
	// A new file each time: one with fs-verity could not be changed.
	write := func(size int) error {
		return errors.Join(os.Remove(path), os.WriteFile(path, make([]byte, size), 0o644))
	}
	damage := map[string]func() error{
		"empty":     func() error { return write(0) },
		"longer":    func() error { return write(100) },
		"symlink":   func() error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"a pipe":    func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)) },
		"not there": func() error { return os.Remove(path) },
	}
	for name, f := range damage {
		must(t, f())
		if isNew, err := s.PutObject(d, []byte("the content")); err != nil || !isNew {
			t.Errorf("%s: PutObject %v, %v", name, isNew, err)
		}
		must(t, f())
		w, err := s.NewObject()
		must(t, err)
		w.Write([]byte("the content"))
		if _, isNew, err := w.Commit(); err != nil || !isNew {
			t.Errorf("%s: Commit %v, %v", name, isNew, err)
		}
		storetest.Check(t, s.Dir())
	}
}

func TestOpenObjectRefuses(t *testing.T) {
	s := newStore(t)
	d := sum(s, "x")
	if _, err := s.OpenObject(d); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	other := fsverity.Sum(fsverity.SHA512, nil)
	for _, d := range []fsverity.Digest{other, {}} {
		_, err1 := s.OpenObject(d)
		_, err2 := s.PutObject(d, nil)
		_, err3 := s.HasObject(d)
		if err1 == nil || err2 == nil || err3 == nil {
			t.Errorf("digest %v of another kind: %v, %v, %v", d, err1, err2, err3)
		}
	}
	path := objectPath(s, d)
	put(t, s, "x")
	for name, make := range map[string]func() error{
		"symlink":   func() error { return os.Symlink("/etc/passwd", path) },
		"pipe":      func() error { return unix.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		must(t, os.Remove(path))
		must(t, make())
		_, err := s.OpenObject(d)
		var oe *store.ObjectError
		if !errors.As(err, &oe) || oe.Digest != d || !strings.Contains(err.Error(), d.ObjectPath()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// objects/xx as a symlink to another directory of objects.
	must(t, os.Remove(path))
	fan := filepath.Dir(path)
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	must(t, os.Rename(fan, s.Dir()+"/moved"))
	must(t, os.Symlink("../moved", fan))
	if _, err := s.OpenObject(d); err == nil {
		t.Error("a symlink for objects/xx was followed")
	}
	must(t, errors.Join(os.Remove(fan), os.Rename(s.Dir()+"/moved", fan), os.Chmod(path, 0o644)))
}

func TestConcurrentPuts(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	counts := make([]int, 8)
	for g := range counts {
		wg.Go(func() {
			for i := range 200 {
				content := fmt.Sprint("object ", i)
				isNew, err := s.PutObject(sum(s, content), []byte(content))
				if err != nil {
					t.Error(err)
				}
				if isNew {
					counts[g]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	if total != 200 {
		t.Errorf("%d objects were new, want 200", total)
	}
}

func TestObjects(t *testing.T) {
	s := newStore(t)
	want := map[string]int64{}
	for i := range 50 {
		content := strings.Repeat("x", i)
		want[put(t, s, content).String()] = int64(i)
	}
	last := ""
	for o, err := range s.Objects() {
		must(t, err)
		if o.Path <= last {
			t.Errorf("%s comes behind %s", o.Path, last)
		}
		last = o.Path
		if size, ok := want[o.Digest.String()]; !ok || size != o.Size {
			t.Errorf("%v: %d bytes, want %d", o.Digest, o.Size, size)
		}
		delete(want, o.Digest.String())
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
	bad := s.Dir() + "/objects/00/.tmp-object-x"
	must(t, os.MkdirAll(filepath.Dir(bad), 0o755))
	must(t, os.WriteFile(bad, nil, 0o644))
	var failed, good int
	for o, err := range s.Objects() {
		if err != nil {
			failed++
			if o.Path != "objects/00/.tmp-object-x" {
				t.Errorf("%v: %v", o, err)
			}
			continue
		}
		good++
	}
	if failed != 1 || good != 50 {
		t.Errorf("%d errors, %d objects", failed, good)
	}
	for range s.Objects() {
		break
	}
	must(t, os.Remove(bad))
}

func TestRemoveObject(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	if err := s.RemoveObject(d); !errors.Is(err, store.ErrNotExclusive) {
		t.Errorf("with the shared lock: %v", err)
	}
	must(t, s.LockExclusive(context.Background(), nil))
	must(t, s.RemoveObject(d))
	if err := s.RemoveObject(d); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	must(t, s.LockShared())
	if err := s.RemoveObject(d); !errors.Is(err, store.ErrNotExclusive) {
		t.Errorf("with the shared lock again: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	_, err := s.Link(store.Streams, "a", d)
	must(t, err)
	r, err := store.Open(s.Dir(), store.OpenOptions{ReadOnly: true})
	must(t, err)
	defer r.Close()
	f, err := r.OpenObject(d)
	must(t, err)
	must(t, f.Close())
	_, e1 := r.PutObject(d, []byte("x"))
	_, e2 := r.NewObject()
	_, e3 := r.Link(store.Streams, "a", d)
	_, e4 := r.Scratch()
	for i, err := range []error{e1, e2, e3, e4,
		r.Relink(store.Streams, "a", d), r.SetRef(store.Streams, "r", "a"), r.RemoveRef(store.Streams, "r"),
		r.RemoveEntry(store.Streams, "a"), r.SetNote("d", "n", "t"), r.RemoveNote("d", "n"),
		r.WriteFile("x", nil), r.RemoveObject(d), r.LockExclusive(context.Background(), nil),
	} {
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestRemoveLeftovers(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "x")
	must(t, s.WriteFile("origins/deep/a.json", nil))
	must(t, s.SetNote("verified", "a", "b"))
	for _, name := range []string{".symlink-abc", ".init-abc", "objects/.tmp-object-abc", "flatroot/origins/deep/.tmp-abc", "flatroot/.tmp-abc"} {
		must(t, os.WriteFile(filepath.Join(s.Dir(), name), nil, 0o644))
	}
	must(t, os.Symlink("../objects", s.Dir()+"/flatroot/link"))
	if _, err := s.RemoveLeftovers(); !errors.Is(err, store.ErrNotExclusive) {
		t.Errorf("with the shared lock: %v", err)
	}
	must(t, s.LockExclusive(context.Background(), nil))
	for _, want := range []int{5, 0} {
		if n, err := s.RemoveLeftovers(); n != want || err != nil {
			t.Errorf("%d, %v; want %d", n, err, want)
		}
	}
	must(t, s.LockShared())
	if has, err := s.HasObject(d); !has || err != nil {
		t.Errorf("the object: %v, %v", has, err)
	}
}

func TestScratch(t *testing.T) {
	s := newStore(t)
	f, err := s.Scratch()
	must(t, err)
	_, err = f.WriteAt([]byte("hello"), 1<<20)
	must(t, err)
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 1<<20); err != nil || !bytes.Equal(b, []byte("hello")) {
		t.Errorf("%q, %v", b, err)
	}
	must(t, f.Close())
}

func TestLocks(t *testing.T) {
	s := newStore(t)
	other, err := store.Open(s.Dir(), store.OpenOptions{})
	must(t, err)

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	waited := 0
	if err := s.LockExclusive(ctx, func(string) { waited++ }); !errors.Is(err, context.DeadlineExceeded) || waited != 1 {
		t.Errorf("with another user: %v, waiting called %d times", err, waited)
	}
	must(t, other.Close())
	must(t, s.LockExclusive(context.Background(), nil))

	waiting := make(chan bool)
	opened := make(chan error)
	go func() {
		o, err := store.Open(s.Dir(), store.OpenOptions{Waiting: func(string) { waiting <- true }})
		if err == nil {
			err = o.Close()
		}
		opened <- err
	}()
	<-waiting
	select {
	case err := <-opened:
		t.Fatalf("opened under an exclusive lock: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	must(t, s.LockShared())
	must(t, <-opened)
}

func TestSync(t *testing.T) { must(t, newStore(t).Sync()) }

// TestDiskFull: a failed write leaves nothing.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs a small file system, and mounting it root: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root := filepath.Join(dir, "store")
	must(t, store.Init(root, store.InitOptions{}))
	s, err := store.Open(root, store.OpenOptions{})
	must(t, err)
	defer s.Close()
	big := bytes.Repeat([]byte("x"), 2<<20)
	if _, err := s.PutObject(fsverity.Sum(s.Algorithm(), big), big); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("PutObject: %v", err)
	}
	w, err := s.NewObject()
	must(t, err)
	if _, err := w.Write(big); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Write: %v", err)
	}
	if _, _, err := w.Commit(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Commit: %v", err)
	}
	if err := s.WriteFile("big", big); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("WriteFile: %v", err)
	}
	put(t, s, "small")
	storetest.Check(t, root)
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if used := (st.Blocks - st.Bfree) * uint64(st.Bsize); used > 64<<10 {
		t.Errorf("%d bytes are still in use", used)
	}
}

func TestErrorsAreFsErrors(t *testing.T) {
	s := newStore(t)
	path := s.Dir() + "/objects/" + sum(s, "x").ObjectPath()
	must(t, os.MkdirAll(path+"/full", 0o755))
	must(t, s.WriteFile("quarantine", nil)) // so that it can't be moved away
	_, err := s.PutObject(sum(s, "x"), []byte("x"))
	var pe *fs.PathError
	if !errors.As(err, &pe) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	must(t, os.RemoveAll(path))
}
