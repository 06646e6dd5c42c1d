package fsck_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// bitsWorld is a store of one image, whose files are objects of these sizes.
func bitsWorld(t testing.TB, sizes ...int) (*graphWorld, fsverity.Digest, []fsverity.Digest) {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(7, 7))}
	path := filepath.Join(fastDir(t), "store")
	w.must(store.Init(path, store.InitOptions{}))
	var err error
	w.s, err = store.Open(path, store.OpenOptions{})
	w.must(err)
	t.Cleanup(func() { w.s.Close() })
	g := &graphWorld{world: w}
	root := tree.New(w.s.Algorithm(), tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
	var objects []fsverity.Digest
	for _, size := range sizes {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(w.rng.Uint32())
		}
		d := fsverity.Sum(w.s.Algorithm(), b)
		_, err := w.s.PutObject(d, b)
		w.must(err)
		n, err := root.Add(tree.Root, []byte(fmt.Sprint("size-", size)), tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1, Size: uint64(size)})
		w.must(err)
		w.must(root.SetObject(n, d))
		objects = append(objects, d)
	}
	o, err := w.s.NewObject()
	w.must(err)
	w.must(imageWriter(io.Writer(o), root))
	image, _, err := o.Commit()
	w.must(err)
	g.link(store.Images, image.String(), image)
	w.must(w.s.SetRef(store.Images, "image", image.String()))
	// Nothing has to be noted of what is put right again at once.
	w.must(w.s.Settled())
	w.must(w.s.Close())
	w.s, err = store.Open(path, store.OpenOptions{ReadOnly: true})
	w.must(err)
	return g, image, objects
}

// flipped checks the store with one bit of an object flipped.
func (w *world) flipped(f *os.File, d fsverity.Digest, bit int64, hits []fsck.Hit) {
	w.t.Helper()
	var b [1]byte
	_, err := f.ReadAt(b[:], bit/8)
	w.must(err)
	flip := func() {
		b[0] ^= 1 << (bit % 8)
		_, err := f.WriteAt(b[:], bit/8)
		w.must(err)
	}
	flip()
	r := w.check(fsck.Options{Jobs: 1})
	flip()
	if len(r.Problems) != 1 {
		w.t.Fatalf("bit %d of %s: want one problem, got:\n%s", bit, d, describe(r))
	}
	if p := r.Problems[0]; p.Code != fsck.ObjectDamaged || p.Subject != objectSubject(d) || !reflect.DeepEqual(p.Images, hits) {
		w.t.Fatalf("bit %d of %s: got\n%s", bit, d, describe(r))
	}
}

func (w *world) openObject(d fsverity.Digest) *os.File {
	w.t.Helper()
	f, err := os.OpenFile(w.object(d), os.O_RDWR, 0)
	w.must(err)
	w.t.Cleanup(func() { f.Close() })
	return f
}

// step leaves out bits where there is no time for all: a check is made for each. It is odd, so that over the bytes all bits
// of one occur.
func step() int64 {
	switch {
	case testenv.Nightly():
		return 1
	case thorough():
		return 13
	}
	return 301
}

// TestEveryBit: whichever bit of an object flips, that is found, and what it hits.
func TestEveryBit(t *testing.T) {
	for _, size := range []int{1, 4096, 4097} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w, _, objects := bitsWorld(t, size)
			f := w.openObject(objects[0])
			hits := []fsck.Hit{{Name: "image", Paths: []string{fmt.Sprint("/size-", size)}}}
			for bit := int64(0); bit < int64(size)*8; bit += step() {
				w.flipped(f, objects[0], bit, hits)
			}
		})
	}
}

// TestRandomBits does the same to a large object.
func TestRandomBits(t *testing.T) {
	const size = 3<<20 + 5
	w, _, objects := bitsWorld(t, size, 100)
	f := w.openObject(objects[0])
	hits := []fsck.Hit{{Name: "image", Paths: []string{fmt.Sprint("/size-", size)}}}
	for n := int64(0); n < 1000; n += step()/10 + 1 {
		w.flipped(f, objects[0], w.rng.Int64N(size*8), hits)
	}
}

// TestEveryImageBit: no bit of an image can flip unnoticed.
func TestEveryImageBit(t *testing.T) {
	w, image, _ := bitsWorld(t, 1)
	f := w.openObject(image)
	st, err := f.Stat()
	w.must(err)
	hits := []fsck.Hit{{Name: "image", Paths: []string{"/"}}}
	for bit := int64(0); bit < st.Size()*8; bit += step() {
		w.flipped(f, image, bit, hits)
	}
}
