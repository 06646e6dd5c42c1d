package object

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// opened is how many descriptors this process has.
func opened(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// TestFilesBounded reads many objects and counts descriptors.
func TestFilesBounded(t *testing.T) {
	o := newObjects(t)
	var refs []Ref
	for i := range 50 {
		refs = append(refs, o.add(fsverity.SHA256, fmt.Append(nil, i)))
	}
	p := o.pool(Options{Verify: true, MaxOpen: 7})
	before := opened(t)
	for range 3 {
		for i, r := range refs {
			checkRead(t, readerOf{p, r}, fmt.Append(nil, i), 10, 0)
			if n := opened(t) - before; n > 7 {
				t.Fatalf("%d descriptors", n)
			}
		}
	}
	if n := opened(t) - before; n != 7 {
		t.Errorf("%d descriptors are kept, want 7", n)
	}
	must(t, p.Close())
	if n := opened(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
	failRead(t, readerOf{p, refs[0]}, 10, 0, os.ErrClosed)
}

// TestFilesKeepUsed: the object that was used longest ago is closed first.
func TestFilesKeepUsed(t *testing.T) {
	o := newObjects(t)
	p := o.pool(Options{MaxOpen: 2})
	read := func(name string) (kept bool) {
		d, kept, err := p.files.get([]byte(name))
		must(t, err)
		p.files.put(d, false)
		return kept
	}
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(o.dir+"/"+name, []byte(name), 0o644))
	}
	for _, step := range []struct {
		name string
		kept bool
	}{{"a", false}, {"b", false}, {"a", true}, {"c", false}, {"a", true}, {"b", false}, {"c", false}} {
		if kept := read(step.name); kept != step.kept {
			t.Errorf("%s is kept: %t", step.name, kept)
		}
	}
}

// TestFilesInUse: what is read from stays open, evicted, bad or the pool closed.
func TestFilesInUse(t *testing.T) {
	o := newObjects(t)
	p := o.pool(Options{MaxOpen: 1})
	for _, name := range []string{"a", "b"} {
		must(t, os.WriteFile(o.dir+"/"+name, []byte(name), 0o644))
	}
	before := opened(t)
	get := func(name string) *descriptor {
		d, _, err := p.files.get([]byte(name))
		must(t, err)
		return d
	}
	a, b, again := get("a"), get("b"), get("a")
	if a == again {
		t.Error("one that was evicted came back")
	}
	p.files.put(again, true)
	must(t, p.Close())
	for d, want := range map[*descriptor]string{a: "a", b: "b"} {
		got := make([]byte, 1)
		if err := d.readFull(got, 0); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
		p.files.put(d, true)
	}
	if n := opened(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// TestFilesShort is a process, or a machine, that has no descriptor left while
// the pool has some that it doesn't need.
func TestFilesShort(t *testing.T) {
	for _, errno := range []error{unix.EMFILE, unix.ENFILE} {
		o := newObjects(t)
		first, second := o.add(fsverity.SHA256, []byte("a")), o.add(fsverity.SHA256, []byte("b"))
		p := o.pool(verified)
		checkRead(t, readerOf{p, first}, []byte("a"), 1, 0)
		p.files.open = func(path []byte) (*descriptor, error) {
			if len(p.files.kept.nodes) > 0 {
				return nil, fmt.Errorf("open: %w", errno)
			}
			return p.open(path)
		}
		checkRead(t, readerOf{p, second}, []byte("b"), 1, 0)
		p.files.open = func([]byte) (*descriptor, error) { return nil, errno }
		failRead(t, readerOf{p, first}, 1, 0, errno)
	}
}

// TestConcurrent reads few objects through fewer descriptors from many goroutines
// while the pool is told to close in the end.
func TestConcurrent(t *testing.T) {
	o := newObjects(t)
	contents := [][]byte{randomBytes(5000), randomBytes(300_000), randomBytes(1_100_000), randomBytes(64*4096 + 1)}
	var refs []Ref
	for i, c := range contents {
		refs = append(refs, o.add(algorithms[i%2], c))
	}
	p := o.pool(Options{Verify: true, MaxOpen: 2, LeafBytes: 1})
	before := opened(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := readRandomly(p, refs[i%4], contents[i%4], uint64(i), 100); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		wg.Go(func() {
			err := readRandomly(p, refs[i%4], contents[i%4], uint64(i), 100)
			if err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		})
	}
	must(t, p.Close())
	wg.Wait()
	if n := opened(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

// TestPoolAllocates nothing once an object and its leaves are known.
func TestPoolAllocates(t *testing.T) {
	o := newObjects(t)
	for _, a := range algorithms {
		r := o.add(a, randomBytes(1<<20+100))
		for name, opt := range map[string]Options{"verified": verified, "plain": {}} {
			p := o.pool(opt)
			buf := make([]byte, r.Size)
			for what, n := range map[string]int64{"whole": r.Size, "blocks": 128 << 10, "part": 5000} {
				got := testing.AllocsPerRun(20, func() {
					if _, err := p.ReadAt(r, buf[:n], r.Size-n); err != nil {
						t.Fatal(err)
					}
				})
				if got != 0 {
					t.Errorf("%v %s, %s: %v allocations", a, name, what, got)
				}
			}
		}
	}
}
