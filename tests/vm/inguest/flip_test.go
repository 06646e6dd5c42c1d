package inguest

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// bit is one of an object's on the disk.
type bit struct {
	name string
	at   func(t *testing.T, object string) int64 // in the file
	hit  int                                     // a block that can't be read any more
}

var (
	dataBits = []bit{
		{"first block of data", func(*testing.T, string) int64 { return 0 }, 0},
		{"a block of data", func(*testing.T, string) int64 { return 77*fsverity.BlockSize + 1234 }, 77},
		{"last byte", func(*testing.T, string) int64 { return bigSize - 1 }, 300},
	}
	// The root comes first, then the blocks of leaves: the second one has blocks 128 to 255.
	treeBits = []bit{
		{"root of the Merkle tree", func(t *testing.T, o string) int64 { return merkleOf(t, o) }, 0},
		{"leaf of the Merkle tree", func(t *testing.T, o string) int64 { return merkleOf(t, o) + 2*fsverity.BlockSize + 32 }, 129},
	}
)

// bits are those that can be flipped in an object there.
func (d disk) bits() []bit {
	if d.verity {
		return append(dataBits[:len(dataBits):len(dataBits)], treeBits...)
	}
	return dataBits
}

// TestFlippedObjects changes single bits on the disk: each block is right or an error, and the one that was hit is an error.
func TestFlippedObjects(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			v.intact = v.intact.few()
			delete(v.intact, "big")
			for _, b := range d.bits() {
				t.Run(b.name, func(t *testing.T) { b.test(t, v) })
			}
		})
	}
}

func (b bit) test(t *testing.T, v *victim) {
	v.again(t)
	at := v.flip(t, v.object("big"), b.at(t, v.object("big")))
	v.disk.each(t, func(t *testing.T, w way) {
		v.again(t)
		target := w.mount(t, v.dir)
		b.check(t, target)
		v.intact.wantIntact(t, target)
	})
	v.flipBack(t, at)
}

// check reads /big block by block.
func (b bit) check(t *testing.T, target string) {
	t.Helper()
	failed := readBlocks(t, filepath.Join(target, "big"), big["big"])
	t.Logf("%d of %d blocks fail", len(failed), (bigSize+fsverity.BlockSize-1)/fsverity.BlockSize)
	if !errors.Is(failed[b.hit], unix.EIO) {
		t.Errorf("block %d: %v, want EIO", b.hit, failed[b.hit])
	}
}

// TestFlippedImage changes a bit in each block of the image and its Merkle tree: the mount is refused, or what lies in the
// block can't be seen.
func TestFlippedImage(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			for _, offset := range v.imageOffsets(t) {
				t.Run(fmt.Sprint(offset), func(t *testing.T) { v.testFlippedImage(t, offset) })
			}
			d.each(t, func(t *testing.T, w way) { // with all bits flipped back
				v.again(t)
				v.intact.wantIntact(t, w.mount(t, v.dir))
			})
		})
	}
}

func (v *victim) testFlippedImage(t *testing.T, offset int64) {
	v.again(t)
	at := v.flip(t, v.image(), offset)
	v.disk.each(t, func(t *testing.T, w way) {
		if w.want.ObjectCheck != "once" { // who reads the image as those do that check more
			v.again(t)
			v.checkFlippedImage(t, w)
		}
	})
	v.flipBack(t, at)
}

// imageOffsets has a place in each block of the image, the first one in the superblock, and one in its Merkle tree.
func (v *victim) imageOffsets(t *testing.T) []int64 {
	t.Helper()
	var offsets []int64
	for at := int64(1024 + 5); at < sizeOf(t, v.image()); at += fsverity.BlockSize {
		offsets = append(offsets, at)
	}
	if v.disk.verity {
		offsets = append(offsets, merkleOf(t, v.image()))
	}
	return offsets
}

func (v *victim) checkFlippedImage(t *testing.T, w way) {
	t.Helper()
	target := t.TempDir()
	if _, err := w.tryMount(v.dir, target); err != nil {
		t.Log(err)
		return
	}
	defer unmount(t, target)
	failed := v.intact.compare(t, target)
	t.Logf("%d of %d paths fail", len(failed), len(v.intact))
	if len(failed) == 0 {
		t.Error("nothing fails")
	}
}
