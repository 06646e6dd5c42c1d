package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsverity"
)

// memories are a pool with room for all leaves, and one that has to make them
// again and again.
var memories = map[string]Options{
	"roomy": {Verify: true, MaxOpen: 2},
	"tight": {Verify: true, MaxOpen: 2, LeafBytes: 1, Workers: 3},
}

// TestFlip flips a bit at every kind of position, before and after the pool knew
// the object: reads of its block fail, all others are right, and once it is
// flipped back all are.
func TestFlip(t *testing.T) {
	all := randomBytes(4 << 20)
	for _, a := range algorithms {
		for _, n := range []int{5000, 4096, 128*4096 + 1, 3*128*4096 + 4096 + 10} {
			for name, opt := range memories {
				t.Run(fmt.Sprintf("%v/%d/%s", a, n, name), func(t *testing.T) {
					o := newObjects(t)
					r := o.add(a, all[:n])
					p := o.pool(opt)
					for _, off := range []int{0, 1, 4095, 4096, 64*4096 - 1, 64 * 4096, 128*4096 - 1, 128 * 4096, n - 1} {
						if off < n {
							flipOnce(t, o, p, r, all[:n], int64(off))
						}
					}
				})
			}
		}
	}
}

func flipOnce(t *testing.T, o *objects, p *Pool, r Ref, content []byte, off int64) {
	reader, n := readerOf{p, r}, len(content)
	checkRead(t, reader, content, n, 0)
	checkRead(t, reader, content, 1, off) // the leaves are known from here on
	o.flip(r, off)
	failRead(t, reader, n, 0, ErrBad)
	failRead(t, reader, 1, off&^4095, ErrBad)
	failRead(t, reader, n, off&^4095, ErrBad)
	if _, err := p.Open(r); !isBad(err) {
		t.Fatalf("open: %v", err)
	}
	if fresh := o.pool(verified); n > 4096 {
		failRead(t, readerOf{fresh, r}, 1, off, ErrBad)
		failRead(t, readerOf{fresh, r}, 4096, (off+2*4096)%int64(n)&^4095, ErrBad) // no leaves agree with the digest
	}
	o.flip(r, off)
	checkRead(t, reader, content, n, 0)
	checkRead(t, reader, content, 4096, off&^4095)
	f, err := p.Open(r)
	must(t, err)
	f.Close()
}

// TestReplaced renames another file over an object that is open: a bad one is
// not read, and the good one that comes after a bad one is, at once.
func TestReplaced(t *testing.T) {
	content := randomBytes(300_000)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	p := o.pool(verified)
	reader := readerOf{p, r}
	replace := func(b []byte) {
		must(t, os.WriteFile(o.dir+"/new", b, 0o644))
		must(t, os.Rename(o.dir+"/new", o.path(r)))
	}
	bad := bytes.Clone(content)
	bad[200_000]++
	replace(bad)
	failRead(t, reader, 4096, 0, ErrBad)
	replace(content)
	checkRead(t, reader, content, 4096, 0)
	o.flip(r, 5000) // in the file that is open
	replace(content)
	checkRead(t, reader, content, 4096, 4096)
}

// TestLength cuts and lengthens objects, with zeros too, which no leaf shows.
func TestLength(t *testing.T) {
	zeros := make([]byte, 6000)
	for _, verify := range []bool{false, true} {
		o := newObjects(t)
		r := o.add(fsverity.SHA256, zeros)
		p := o.pool(Options{Verify: verify})
		reader := readerOf{p, r}
		for _, size := range []int64{0, 1, 4096, 5999} {
			checkRead(t, reader, zeros, 10, 0)
			must(t, os.Truncate(o.path(r), size))
			failRead(t, reader, 6000, 0, ErrBad)
			failRead(t, reader, 10, 5990, ErrBad)
			if err := p.Check(r); !isBad(err) {
				t.Errorf("check of %d bytes: %v", size, err)
			}
			must(t, os.Truncate(o.path(r), 6000))
		}
		must(t, os.Truncate(o.path(r), 6001))
		if err := o.pool(Options{Verify: verify}).Check(r); !isBad(err) {
			t.Errorf("check of 6001 bytes: %v", err)
		}
		failRead(t, readerOf{o.pool(Options{Verify: verify}), r}, 10, 0, ErrBad)
	}
}

// TestWrongSize: an image may say another size than its digest does. All sizes
// here have the same leaves.
func TestWrongSize(t *testing.T) {
	o := newObjects(t)
	right := o.add(fsverity.SHA256, make([]byte, 6000))
	p := o.pool(verified)
	checkRead(t, readerOf{p, right}, make([]byte, 6000), 100, 0)
	for _, size := range []int64{1, 5999, 6001, 8192} {
		r := right
		r.Size = size
		failRead(t, readerOf{p, r}, 1, 0, ErrBad)
		must(t, os.Truncate(o.path(r), size))
		failRead(t, readerOf{p, r}, 1, 0, ErrBad)
		failRead(t, readerOf{p, r}, int(size), 0, ErrBad)
		if _, err := p.Open(r); !isBad(err) {
			t.Errorf("open as %d bytes: %v", size, err)
		}
		must(t, os.Truncate(o.path(r), 6000))
		checkRead(t, readerOf{p, right}, make([]byte, 6000), 100, 0)
	}
}

func TestNoDigest(t *testing.T) {
	o := newObjects(t)
	r := o.add(fsverity.SHA256, []byte("content"))
	r.Digest = fsverity.Digest{}
	p := o.pool(verified)
	failRead(t, readerOf{p, r}, 7, 0, ErrBad)
	if err := p.Check(r); !isBad(err) {
		t.Errorf("check: %v", err)
	}
	if _, err := p.Open(r); !isBad(err) {
		t.Errorf("open: %v", err)
	}
	plain := o.pool(Options{})
	checkRead(t, readerOf{plain, r}, []byte("content"), 7, 0)
	must(t, plain.Check(r))
}

// TestVerdict: a bad object is not hashed for each READ, and a verdict is of its
// time and its file.
func TestVerdict(t *testing.T) {
	v := verdict{err: ErrBad, file: identity{ino: 1}, until: time.Now().Add(time.Hour)}
	if !v.holds(identity{ino: 1}) {
		t.Error("the verdict is forgotten")
	}
	for name, file := range map[string]identity{"size": {ino: 1, size: 1}, "inode": {ino: 2}, "device": {dev: 1, ino: 1}} {
		if v.holds(file) {
			t.Errorf("the verdict holds for another %s", name)
		}
	}
	v.until = time.Now().Add(-time.Second)
	if v.holds(v.file) {
		t.Error("the verdict holds for ever")
	}

	o := newObjects(t)
	content := randomBytes(1 << 20)
	r := o.add(fsverity.SHA256, content)
	o.flip(r, 1000)
	p := o.pool(verified)
	failRead(t, readerOf{p, r}, 10, 0, ErrBad)
	tree, err := p.leaves.findTree(contentKey{r.Digest, r.Size})
	must(t, err)
	if tree.bad.err == nil {
		t.Fatal("no verdict")
	}
	// Whoever looks again in time gets this very error.
	mark := errors.New("verdict")
	tree.bad.err, tree.bad.until = mark, time.Now().Add(time.Hour)
	failRead(t, readerOf{p, r}, 10, 0, mark)
	must(t, os.Remove(o.path(r)))
	o.write(r, content)
	checkRead(t, readerOf{p, r}, content, 10, 0)
}

// TestMutating reads while another changes the file: what is read is right or an
// error, and all is well in the end.
func TestMutating(t *testing.T) {
	content := randomBytes(3*128*4096 + 100)
	for name, opt := range memories {
		t.Run(name, func(t *testing.T) {
			o := newObjects(t)
			r := o.add(fsverity.SHA256, content)
			p := o.pool(opt)
			done := make(chan error, 4)
			for i := range cap(done) {
				go func() { done <- readRandomly(p, r, content, uint64(i), 300) }()
			}
			for open, i := cap(done), int64(0); open > 0; i++ {
				off := i * 7919 % r.Size
				o.flip(r, off)
				select {
				case err := <-done:
					open--
					if err != nil {
						t.Error(err)
					}
				default:
				}
				o.flip(r, off)
			}
			checkRead(t, readerOf{p, r}, content, len(content), 0)
			checkRead(t, readerOf{p, r}, content, 5000, 128*4096-100)
		})
	}
}

// readRandomly checks that reads are right or ErrBad, whatever happens to the
// object meanwhile.
func readRandomly(p *Pool, r Ref, content []byte, seed uint64, times int) error {
	random := rand.New(rand.NewPCG(seed, 0))
	buf := make([]byte, 1<<19)
	for range times {
		b := buf[:1+random.IntN(1<<(1+random.IntN(19)))]
		off := random.Int64N(r.Size)
		n, err := p.ReadAt(r, b, off)
		switch {
		case isBad(err) && n == 0 && !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }):
		case err != nil && err != io.EOF:
			return fmt.Errorf("%d bytes at %d: %d, %w", len(b), off, n, err)
		case !bytes.Equal(b[:n], content[off:off+int64(n)]):
			return fmt.Errorf("%d bytes at %d: wrong data", len(b), off)
		}
	}
	return nil
}
