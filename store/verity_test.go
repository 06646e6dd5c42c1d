package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/tests/testenv"
	"golang.org/x/sys/unix"
)

// fakeKernel has fs-verity on every file system; as in the real one, it is the
// inode that has it, and who enables it must hold it read-only.
type fakeKernel struct {
	mu       sync.Mutex
	sealed   map[uint64]fsverity.Digest // by inode
	tries    int
	busy     int  // so many calls of Enable find the file busy
	none     bool // the file system has no fs-verity
	wrongSum bool
}

func newKernel() *fakeKernel { return &fakeKernel{sealed: map[uint64]fsverity.Digest{}} }

func inode(f *os.File) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		panic(err)
	}
	return st.Ino
}

func (k *fakeKernel) Enable(f *os.File, a fsverity.Algorithm) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tries++
	if k.none {
		return fmt.Errorf("enable: %w", fsverity.ErrNotSupported)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		return unix.EACCES
	}
	if k.busy > 0 {
		k.busy--
		return fmt.Errorf("enable: %w", fsverity.ErrBusy)
	}
	if _, ok := k.sealed[inode(f)]; ok {
		return fmt.Errorf("enable: %w", fsverity.ErrEnabled)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if k.wrongSum {
		b = append(b, 'x')
	}
	k.sealed[inode(f)] = fsverity.Sum(a, b)
	return err
}

func (k *fakeKernel) Measure(f *os.File) (fsverity.Digest, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.none {
		return fsverity.Digest{}, fmt.Errorf("measure: %w", fsverity.ErrNotSupported)
	}
	d, ok := k.sealed[inode(f)]
	if !ok {
		return d, fmt.Errorf("measure: %w", fsverity.ErrNoVerity)
	}
	return d, nil
}

func (k *fakeKernel) has(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	_, err = k.Measure(f)
	return err == nil
}

// verityStore makes a store under this kernel and opens it.
func verityStore(t *testing.T, k *fakeKernel, v store.Verity) *store.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.InitWith(dir, store.InitOptions{Verity: v}, k))
	s, err := store.OpenWith(dir, store.OpenOptions{}, k)
	must(t, err)
	t.Cleanup(func() {
		storetest.Check(t, dir)
		s.Close()
	})
	return s
}

func TestVerityModes(t *testing.T) {
	for _, tc := range []struct {
		none   bool
		asked  store.Verity
		got    store.Verity
		sealed bool
	}{
		{false, store.VerityAuto, store.VerityRequire, true},
		{false, store.VerityRequire, store.VerityRequire, true},
		{false, store.VerityOff, store.VerityOff, false},
		{true, store.VerityAuto, store.VerityAuto, false},
		{true, store.VerityOff, store.VerityOff, false},
	} {
		k := newKernel()
		k.none = tc.none
		s := verityStore(t, k, tc.asked)
		if s.Verity() != tc.got || s.Secure() != tc.sealed {
			t.Errorf("%+v: verity %v, secure %v", tc, s.Verity(), s.Secure())
		}
		k.tries = 0
		for i := range 5 {
			d := put(t, s, fmt.Sprint("content ", i))
			if k.has(t, objectPath(s, d)) != tc.sealed {
				t.Errorf("%+v: object %d is not as the store", tc, i)
			}
			f, err := s.OpenObject(d)
			must(t, err)
			must(t, f.Close())
		}
		want := map[bool]int{true: 5, false: 0}[tc.sealed]
		if tc.none && tc.got == store.VerityAuto {
			want = 1 // and never again
		}
		if k.tries != want {
			t.Errorf("%+v: tried %d times, want %d", tc, k.tries, want)
		}
	}
}

func TestVerityRequireImpossible(t *testing.T) {
	k := newKernel()
	k.none = true
	dir := filepath.Join(t.TempDir(), "store")
	err := store.InitWith(dir, store.InitOptions{Verity: store.VerityRequire}, k)
	if !errors.Is(err, fsverity.ErrNotSupported) || !strings.Contains(err.Error(), "tune2fs") {
		t.Errorf("%v", err)
	}
	if fs, _ := os.ReadDir(dir); len(fs) != 0 {
		t.Errorf("left %v", fs)
	}
}

func TestVerityBusy(t *testing.T) {
	k := newKernel()
	s := verityStore(t, k, store.VerityRequire)
	k.busy = 3
	if d := put(t, s, "x"); !k.has(t, objectPath(s, d)) {
		t.Error("no fs-verity")
	}
	k.busy = 1 << 30
	if _, err := s.PutObject(sum(s, "y"), []byte("y")); !errors.Is(err, fsverity.ErrBusy) {
		t.Errorf("for ever busy: %v", err)
	}
}

// busyKernel is the kernel, and every tenth file is open for writing somewhere else for a moment.
type busyKernel struct{ tries, busy atomic.Int64 }

func (k *busyKernel) Enable(f *os.File, a fsverity.Algorithm) error {
	if k.tries.Add(1)%10 == 0 {
		child, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		time.AfterFunc(2*time.Millisecond, func() { child.Close() })
	}
	err := fsverity.Enable(f, a)
	if errors.Is(err, fsverity.ErrBusy) {
		k.busy.Add(1)
	}
	return err
}

func (k *busyKernel) Measure(f *os.File) (fsverity.Digest, error) { return fsverity.Measure(f) }

// TestVerityForks writes objects while other goroutines start programs: between fork and exec a child has copies of all
// descriptors, and fs-verity can't be enabled on what one of them may write to. On one processor they hardly ever meet, so
// the kernel's part is taken by one that makes them.
func TestVerityForks(t *testing.T) {
	testenv.Need(t, "verity")
	k := new(busyKernel)
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.InitWith(dir, store.InitOptions{Verity: store.VerityRequire}, k))
	s, err := store.OpenWith(dir, store.OpenOptions{}, k)
	must(t, err)
	defer s.Close()
	var writers, forkers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		forkers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					t.Logf("%d forks", n)
					return
				default:
				}
				if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 4 {
		writers.Go(func() {
			for i := range 100 {
				content := fmt.Sprint("object ", w, i)
				if isNew, err := s.PutObject(sum(s, content), []byte(content)); err != nil || !isNew {
					t.Errorf("new %t, %v", isNew, err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	forkers.Wait()
	if k.busy.Load() == 0 {
		t.Error("no file was ever busy")
	}
	t.Logf("%d times busy", k.busy.Load())
}

// TestVerityWrong: what the kernel hashes to something else gets no name.
func TestVerityWrong(t *testing.T) {
	k := newKernel()
	s := verityStore(t, k, store.VerityRequire)
	k.wrongSum = true
	_, err := s.PutObject(sum(s, "x"), []byte("x"))
	var m *store.MismatchError
	if !errors.As(err, &m) || m.Want != sum(s, "x") || m.Got == m.Want {
		t.Errorf("%v", err)
	}
	if has, _ := s.HasObject(sum(s, "x")); has {
		t.Error("it has a name")
	}
}

func TestSecureObjects(t *testing.T) {
	k := newKernel()
	s := verityStore(t, k, store.VerityRequire)
	d := sum(s, "content")
	path := objectPath(s, d)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	plant := func(content string) { // as a copy by ordinary tools does
		os.Remove(path)
		must(t, os.WriteFile(path, []byte(content), 0o644))
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		delete(k.sealed, st.Ino)
	}

	plant("content")
	if _, err := s.OpenObject(d); !errors.Is(err, fsverity.ErrNoVerity) {
		t.Errorf("open without fs-verity: %v", err)
	}
	if isNew, err := s.PutObject(d, []byte("content")); isNew || err != nil || !k.has(t, path) {
		t.Errorf("right content is sealed: new %v, %v", isNew, err)
	}
	plant("CONTENT")
	if isNew, err := s.PutObject(d, []byte("content")); !isNew || err != nil {
		t.Errorf("wrong content is replaced: new %v, %v", isNew, err)
	}
	if f, err := s.OpenObject(d); err != nil {
		t.Errorf("open: %v", err)
	} else {
		must(t, f.Close())
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	k.sealed[st.Ino] = sum(s, "other")
	var m *store.MismatchError
	if _, err := s.OpenObject(d); !errors.As(err, &m) {
		t.Errorf("open what measures wrong: %v", err)
	}
	k.none = true
	if _, err := s.PutObject(sum(s, "new"), []byte("new")); !errors.Is(err, fsverity.ErrNotSupported) {
		t.Errorf("a file system that lost fs-verity: %v", err)
	}
}

// TestInsecureObjects: in an insecure store on a capable file system missing
// fs-verity is no error, but a wrong one is.
func TestInsecureObjects(t *testing.T) {
	k := newKernel()
	k.none = true
	s := verityStore(t, k, store.VerityAuto)
	k.none = false
	d := sum(s, "content")
	path := objectPath(s, d)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("content"), 0o644))
	f, err := s.OpenObject(d)
	must(t, err)
	must(t, f.Close())
	if isNew, err := s.PutObject(d, []byte("content")); isNew || err != nil || !k.has(t, path) {
		t.Errorf("new %v, %v", isNew, err)
	}
	k.sealed[statIno(t, path)] = sum(s, "other")
	var m *store.MismatchError
	if _, err := s.OpenObject(d); !errors.As(err, &m) {
		t.Errorf("open what measures wrong: %v", err)
	}
}

func statIno(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}

// TestVerityOtherHash: meta.json sealed with another hash is a store that can't be.
func TestVerityOtherHash(t *testing.T) {
	k := newKernel()
	s := verityStore(t, k, store.VerityRequire)
	k.sealed[statIno(t, s.Dir()+"/meta.json")] = fsverity.Sum(fsverity.SHA512, nil)
	if _, err := store.OpenWith(s.Dir(), store.OpenOptions{}, k); err == nil || !strings.Contains(err.Error(), "sha512") {
		t.Errorf("%v", err)
	}
}

func TestInitSameVerity(t *testing.T) {
	k := newKernel()
	s := verityStore(t, k, store.VerityAuto)
	for v, ok := range map[store.Verity]bool{store.VerityAuto: true, store.VerityRequire: true, store.VerityOff: false} {
		if err := store.InitWith(s.Dir(), store.InitOptions{Verity: v}, k); ok != (err == nil) {
			t.Errorf("%s on a secure store: %v", v, err)
		}
	}
}

// TestFallbacks: everything works without unnamed files and without linkat by
// descriptor, and leaves as little behind.
func TestFallbacks(t *testing.T) {
	for _, tc := range []struct{ noTmpfile, noEmptyPath, none bool }{
		{true, false, false}, {false, true, false}, {true, false, true}, {false, true, true},
	} {
		k := newKernel()
		s := verityStore(t, k, store.VerityAuto)
		k.none = tc.none && !s.Secure()
		s.Pretend(tc.noTmpfile, tc.noEmptyPath)
		d := put(t, s, "content")
		put(t, s, "content")
		must(t, os.Truncate(objectPath(s, d), 1))
		if isNew, err := s.PutObject(d, []byte("content")); err != nil || !isNew {
			t.Errorf("%+v: replace: %v, %v", tc, isNew, err)
		}
		w, err := s.NewObject()
		must(t, err)
		w.Write([]byte("aborted"))
		w.Abort()
		f, err := s.Scratch()
		must(t, err)
		must(t, f.Close())
		for range 2 {
			must(t, s.WriteFile("origins/x.json", []byte("{}")))
		}
		storetest.Check(t, s.Dir())
	}
}
