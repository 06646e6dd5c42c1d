package object

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// algorithms have segments of 128 and of 64 blocks.
var algorithms = []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}

// sizes are those around which a block, a segment or a unit more begins, and
// those of READs.
var sizes = []int{
	1, 2, 4095, 4096, 4097, 2*4096 - 1, 64*4096 - 1, 64 * 4096, 64*4096 + 1, 128*4096 - 1, 128 * 4096, 128*4096 + 1,
	3 * 128 * 4096, 3*128*4096 + 5*4096 + 77, 1 << 20, 1<<20 + 1,
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// objects is an object directory and its files.
type objects struct {
	t   testing.TB
	dir string
}

func newObjects(t testing.TB) *objects { return &objects{t, t.TempDir()} }

// add writes an object under its digest and returns the reference to it.
func (o *objects) add(a fsverity.Algorithm, content []byte) Ref {
	o.t.Helper()
	d := fsverity.Sum(a, content)
	r := Ref{Digest: d, Path: []byte(d.ObjectPath()), Size: int64(len(content))}
	o.write(r, content)
	return r
}

func (o *objects) path(r Ref) string { return filepath.Join(o.dir, string(r.Path)) }

func (o *objects) write(r Ref, content []byte) {
	o.t.Helper()
	must(o.t, os.MkdirAll(filepath.Dir(o.path(r)), 0o755))
	must(o.t, os.WriteFile(o.path(r), content, 0o644))
}

// flip changes one bit in the file as it is.
func (o *objects) flip(r Ref, off int64) {
	o.t.Helper()
	f, err := os.OpenFile(o.path(r), os.O_RDWR, 0)
	must(o.t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	must(o.t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], off)
	must(o.t, err)
}

func (o *objects) pool(opt Options) *Pool { return newPool(o.t, opt, o.dir) }

func newPool(t testing.TB, opt Options, dirs ...string) *Pool {
	t.Helper()
	var open []*os.File
	for _, dir := range dirs {
		f, err := os.Open(dir)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		open = append(open, f)
	}
	p := NewPool(open, opt)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var verified = Options{Verify: true}

// checkRead compares one read with what bytes.Reader has.
func checkRead(t *testing.T, r io.ReaderAt, content []byte, n int, off int64) {
	t.Helper()
	got, want := make([]byte, n), make([]byte, n)
	gotN, gotErr := r.ReadAt(got, off)
	wantN, wantErr := bytes.NewReader(content).ReadAt(want, off)
	if n == 0 {
		wantErr = nil // bytes.Reader says EOF at the end
	}
	if gotN != wantN || gotErr != wantErr || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes at %d: %d, %v, equal %t; want %d, %v",
			n, len(content), off, gotN, gotErr, bytes.Equal(got, want), wantN, wantErr)
	}
}

// readerOf is a pool's object as an io.ReaderAt.
type readerOf struct {
	p *Pool
	r Ref
}

func (r readerOf) ReadAt(b []byte, off int64) (int, error) { return r.p.ReadAt(r.r, b, off) }

// TestReadAt reads around every border, each kind of reading on its own pool.
func TestReadAt(t *testing.T) {
	all := randomBytes(4 << 20)
	o := newObjects(t)
	for _, a := range algorithms {
		for _, n := range sizes {
			content := all[n : 2*n]
			r := o.add(a, content)
			for name, opt := range map[string]Options{"verified": verified, "plain": {}, "little memory": {Verify: true, LeafBytes: 1}} {
				t.Run(fmt.Sprintf("%v/%d/%s", a, n, name), func(t *testing.T) {
					p := o.pool(opt)
					for _, off := range []int{0, 1, 4095, 4096, 5000, n - 4097, n - 1, n, n + 1} {
						for _, length := range []int{0, 1, 4096, 4097, 8192, n, 600_000, 1 << 20} {
							if off >= 0 {
								checkRead(t, readerOf{p, r}, content, length, int64(off))
							}
						}
					}
				})
			}
		}
	}
}

func TestReadNothing(t *testing.T) {
	o := newObjects(t)
	r := o.add(fsverity.SHA256, nil)
	p := o.pool(verified)
	if n, err := p.ReadAt(r, make([]byte, 10), 0); n != 0 || err != io.EOF {
		t.Errorf("an empty object: %d, %v", n, err)
	}
	if n, err := p.ReadAt(r, make([]byte, 10), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
	f, err := p.Open(r)
	must(t, err)
	f.Close()
}

// failRead expects an error that wraps want, and no byte of the file.
func failRead(t *testing.T, r io.ReaderAt, n int, off int64, want error) {
	t.Helper()
	b := bytes.Repeat([]byte{0xaa}, n)
	got, err := r.ReadAt(b, off)
	if !errors.Is(err, want) {
		t.Fatalf("%d bytes at %d: %d, %v; want %v", n, off, got, err, want)
	}
	if got != 0 || !bytes.Equal(b, make([]byte, n)) {
		t.Fatalf("%d bytes at %d: %d bytes handed out with %v", n, off, got, err)
	}
}

// isBad tells what may be said of wrong content.
func isBad(err error) bool { return errors.Is(err, ErrBad) }

func TestMissing(t *testing.T) {
	o := newObjects(t)
	r := o.add(fsverity.SHA256, []byte("content"))
	must(t, os.Remove(o.path(r)))
	p := o.pool(verified)
	failRead(t, readerOf{p, r}, 7, 0, fs.ErrNotExist)
	if err := p.Check(r); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := p.Open(r); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	o.write(r, []byte("content"))
	checkRead(t, readerOf{p, r}, []byte("content"), 7, 0)
	must(t, p.Check(r))
}
