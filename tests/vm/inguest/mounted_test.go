package inguest

import (
	"os"
	"testing"
)

// TestFlippedWhileMounted changes bits on the disk below a mount that has been read: what is read again is right or an error,
// and right once the bit is flipped back.
func TestFlippedWhileMounted(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			d.each(t, func(t *testing.T, w way) {
				v.again(t)
				target := w.mount(t, v.dir)
				v.intact.wantIntact(t, target)
				for _, b := range d.bits() {
					at := blockOf(t, v.object("big"), b.at(t, v.object("big")))
					flipBit(t, d.device, at)
					dropCaches(t)
					b.check(t, target)
					flipBit(t, d.device, at)
					dropCaches(t)
				}
				v.intact.wantIntact(t, target)
			})
		})
	}
}

// outcome is what becomes of /big.
type outcome int

const (
	stays outcome = iota // it is right
	may                  // it is right or fails
	fails
)

// change is made to a store below a mount.
type change struct {
	name   string
	make   func(t *testing.T, v *victim)
	big    outcome
	verity bool // also where files have fs-verity, and can't be written
}

var changes = []change{
	{"byte of an object written", func(t *testing.T, v *victim) { writeAt(t, v.object("big"), []byte{^big["big"][70000]}, 70000) }, fails, false},
	{"last byte of an object written", func(t *testing.T, v *victim) {
		writeAt(t, v.object("big"), []byte{^big["big"][bigSize-1]}, bigSize-1)
	}, fails, false},
	{"object emptied", func(t *testing.T, v *victim) { must(t, os.Truncate(v.object("big"), 0)) }, fails, false},
	{"object cut short", func(t *testing.T, v *victim) { must(t, os.Truncate(v.object("big"), bigSize-5000)) }, fails, false},
	{"object grown", func(t *testing.T, v *victim) { writeAt(t, v.object("big"), []byte{0}, bigSize) }, may, false},
	{"object replaced", func(t *testing.T, v *victim) { v.plant(t, v.object("big"), changed(big["big"])) }, may, true},
	{"object removed", func(t *testing.T, v *victim) { must(t, os.Remove(v.object("big"))) }, may, true},
	{"image written over", func(t *testing.T, v *victim) { writeAt(t, v.image(), make([]byte, len(v.imageBytes)), 0) }, stays, false},
	{"image emptied", func(t *testing.T, v *victim) { must(t, os.Truncate(v.image(), 0)) }, stays, false},
	{"image replaced", func(t *testing.T, v *victim) { v.plant(t, v.image(), changed(v.imageBytes)) }, stays, true},
	{"image removed", func(t *testing.T, v *victim) { must(t, os.Remove(v.image())) }, stays, true},
}

func writeAt(t *testing.T, path string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(b, off)
	must(t, err)
	must(t, f.Close())
}

// TestChangedWhileMounted changes files of a store below a mount: nothing but what was changed fails, and the mount can be
// used and unmounted.
func TestChangedWhileMounted(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			d.each(t, func(t *testing.T, w way) {
				for _, c := range changes {
					if c.verity || !d.verity {
						t.Run(c.name, func(t *testing.T) { c.test(t, v, w) })
					}
				}
			})
		})
	}
}

// test makes the change below a mount of which nothing has been read and, where nothing but the server stands in the way of
// wrong content, also below one that has been read.
func (c change) test(t *testing.T, v *victim, w way) {
	for _, first := range []bool{true, false} {
		if !first && v.disk.verity {
			break
		}
		v.again(t)
		target := t.TempDir()
		_, err := w.tryMount(v.dir, target)
		must(t, err)
		if !first {
			v.intact.few().wantIntact(t, target)
		}
		c.make(t, v)
		dropCaches(t)
		look := v.intact
		if c.big != stays {
			look = look.few()
		}
		failed := look.compare(t, target)
		if err := failed["big"]; err != nil && c.big == stays || err == nil && c.big == fails {
			t.Errorf("first look %t: reading big: %v", first, err)
		}
		delete(failed, "big")
		if len(failed) > 0 {
			t.Errorf("first look %t: fails as well: %v", first, failed)
		}
		unmount(t, target)
		v.heal(t)
	}
}
