package object

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// blocks opens an object as an image.
func (o *objects) blocks(r Ref) *Blocks {
	o.t.Helper()
	b, err := o.tryBlocks(r)
	must(o.t, err)
	return b
}

func (o *objects) tryBlocks(r Ref) (*Blocks, error) {
	f, err := os.Open(o.path(r))
	must(o.t, err)
	o.t.Cleanup(func() { f.Close() })
	return NewBlocks(f, r.Size, r.Digest, 0)
}

func TestBlocks(t *testing.T) {
	all := randomBytes(2 << 20)
	o := newObjects(t)
	for _, a := range algorithms {
		for _, n := range append(sizes, 0) {
			t.Run(fmt.Sprintf("%v/%d", a, n), func(t *testing.T) {
				content := all[:n]
				b := o.blocks(o.add(a, content))
				random := rand.New(rand.NewPCG(uint64(n), 1))
				for range 300 {
					length := random.IntN(1 << (1 + random.IntN(18)))
					checkRead(t, b, content, length, random.Int64N(int64(n)+2))
				}
			})
		}
	}
}

// TestBlocksRefuse gives NewBlocks what is not the content asked for.
func TestBlocksRefuse(t *testing.T) {
	content := randomBytes(2*128*4096 + 3)
	for name, spoil := range map[string]func(o *objects, r *Ref){
		"a bit":     func(o *objects, r *Ref) { o.flip(*r, 128*4096+1) },
		"short":     func(o *objects, r *Ref) { must(o.t, os.Truncate(o.path(*r), r.Size-1)) },
		"long":      func(o *objects, r *Ref) { must(o.t, os.Truncate(o.path(*r), r.Size+1)) },
		"size":      func(o *objects, r *Ref) { r.Size++; must(o.t, os.Truncate(o.path(*r), r.Size)) },
		"no digest": func(o *objects, r *Ref) { r.Digest = fsverity.Digest{} },
		"algorithm": func(o *objects, r *Ref) { r.Digest = fsverity.Sum(fsverity.SHA512, []byte("other")) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newObjects(t)
			r := o.add(fsverity.SHA256, content)
			spoil(o, &r)
			if _, err := o.tryBlocks(r); !isBad(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestBlocksChange changes an image that is in use: what was read before may be
// read again, nothing else comes, and what heals is right.
func TestBlocksChange(t *testing.T) {
	content := randomBytes(128*4096 + 5000)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	b := o.blocks(r)
	checkRead(t, b, content, 64, 4096)
	for _, off := range []int64{0, 4096, 8191, 128 * 4096, r.Size - 1} {
		o.flip(r, off)
		if off/4096 != 1 {
			failRead(t, b, 1, off&^4095, ErrBad)
		} else {
			checkRead(t, b, content, 64, 4096)
		}
		failRead(t, b, 6*4096, max(off-3*4096, 0), ErrBad)
		o.flip(r, off)
		checkRead(t, b, content, 6*4096, max(off-3*4096, 0))
	}
	must(t, os.Truncate(o.path(r), r.Size-1))
	failRead(t, b, 6*4096, r.Size&^4095-5*4096, ErrBad)
	must(t, os.WriteFile(o.path(r), content, 0))
	checkRead(t, b, content, 2, r.Size-2)
}

// TestBlocksBounded reads more blocks than are kept, twice, and looks at how many
// there are.
func TestBlocksBounded(t *testing.T) {
	content := randomBytes(3 * blockSets * blockWays * blockSize)
	o := newObjects(t)
	b := o.blocks(o.add(fsverity.SHA256, content))
	for range 2 {
		for off := int64(0); off < int64(len(content)); off += blockSize {
			checkRead(t, b, content, 100, off+1)
		}
	}
	for i := range b.sets {
		for at, number := range b.sets[i].number {
			if (number-1)%blockSets != int64(i) || !bytes.Equal(b.sets[i].block[at][:], content[(number-1)*4096:number*4096]) {
				t.Fatalf("set %d has block %d", i, number-1)
			}
		}
	}
}

// TestBlocksKeep: a block that is kept is not read again, and the one that was
// used last stays longest.
func TestBlocksKeep(t *testing.T) {
	content := randomBytes((blockWays + 2) * blockSets * blockSize)
	o := newObjects(t)
	r := o.add(fsverity.SHA256, content)
	b := o.blocks(r)
	stride := int64(blockSets * blockSize) // the same set
	for i := range int64(blockWays) {
		checkRead(t, b, content, 10, i*stride)
	}
	checkRead(t, b, content, 10, 0)
	checkRead(t, b, content, 10, blockWays*stride) // in place of the second
	must(t, os.WriteFile(o.path(r), make([]byte, len(content)), 0))
	checkRead(t, b, content, 10, 0)
	failRead(t, b, 10, stride, ErrBad) // in the place of the third, whose bytes are gone
	failRead(t, b, 10, 2*stride, ErrBad)
	checkRead(t, b, content, 10, 3*stride)
}

func TestBlocksAllocate(t *testing.T) {
	content := randomBytes(1 << 20)
	o := newObjects(t)
	b := o.blocks(o.add(fsverity.SHA256, content))
	buf := make([]byte, 100)
	off := int64(0)
	read := func() {
		if _, err := b.ReadAt(buf, off); err != nil {
			t.Fatal(err)
		}
		off = (off + 4096) % int64(len(content))
	}
	for range 256 {
		read()
	}
	if n := testing.AllocsPerRun(1000, read); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}
