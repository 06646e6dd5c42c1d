package inguest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// victim is a store to tamper with, on a disk of its own.
type victim struct {
	disk   disk
	dir    string
	digest fsverity.Digest // of the image
	intact snapshot        // of the mounted image

	imageBytes []byte
	tagged     string // where the tag leads

	unmountDisk func()
}

// newVictim pulls the sample. The disk has no other store.
func newVictim(t *testing.T, d disk, ref string) *victim {
	t.Helper()
	at, unmount := d.mount(t)
	v := &victim{disk: d, dir: filepath.Join(at, "store"), unmountDisk: unmount}
	must(t, os.RemoveAll(v.dir))
	var err error
	v.digest, err = fsverity.ParseDigest(pulled(t, v.dir, "auto", ref))
	must(t, err)
	target := t.TempDir()
	flatroot(t, "mount", sampleName, target, "-o", "mode=native", "--store", v.dir)
	v.intact = take(t, target)
	flatroot(t, "umount", target)
	v.imageBytes = read(t, v.image())
	v.tagged, err = os.Readlink(v.tag(t))
	must(t, err)
	return v
}

// heal undoes damage done to files and links. What is right already is made anew as well.
func (v *victim) heal(t *testing.T) {
	t.Helper()
	for name, content := range big {
		v.plant(t, v.object(name), content)
	}
	v.plant(t, v.image(), v.imageBytes)
	relink(t, v.entry(), "../objects/"+v.digest.ObjectPath())
	relink(t, v.tag(t), v.tagged)
}

// pulled makes a store and pulls the sample into it. It returns the image's digest.
func pulled(t *testing.T, dir, verity, ref string) string {
	t.Helper()
	flatroot(t, "init", "--store", dir, "--verity", verity)
	return flatroot(t, "pull", ref, "--store", dir)
}

func (v *victim) objects() string { return filepath.Join(v.dir, "objects") }
func (v *victim) path(d fsverity.Digest) string {
	return filepath.Join(v.objects(), d.ObjectPath())
}
func (v *victim) image() string { return v.path(v.digest) }

func (v *victim) object(name string) string {
	return v.path(fsverity.Sum(v.digest.Algorithm(), big[name]))
}

// plant puts another file in an object's place, with fs-verity where the disk has it.
func (v *victim) plant(t *testing.T, path string, content []byte) {
	t.Helper()
	a := v.digest.Algorithm()
	if !v.disk.verity {
		a = 0
	}
	plant(t, path, content, a)
}

func (v *victim) entry() string { return filepath.Join(v.dir, "images", v.digest.String()) }

// tag is the symlink that is the sample's name.
func (v *victim) tag(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(v.dir, "streams/refs/oci/*"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%d tags: %q", len(found), found)
	}
	return found[0]
}

func relink(t *testing.T, path, to string) {
	t.Helper()
	must(t, os.Remove(path))
	must(t, os.Symlink(to, path))
}

// again mounts the disk anew, until the end of this test, so that nothing of it is in memory.
func (v *victim) again(t *testing.T) {
	t.Helper()
	v.unmountDisk()
	at, unmount := v.disk.mount(t)
	v.dir, v.unmountDisk = filepath.Join(at, "store"), unmount
}

// flip changes one bit on the disk, of what an image or object has at an offset. The disk is mounted anew after that.
func (v *victim) flip(t *testing.T, path string, offset int64) (at int64) {
	t.Helper()
	at = blockOf(t, path, offset)
	v.unmountDisk()
	flipBit(t, v.disk.device, at)
	v.again(t)
	return at
}

// flipBack undoes a flip.
func (v *victim) flipBack(t *testing.T, at int64) {
	t.Helper()
	v.unmountDisk()
	flipBit(t, v.disk.device, at)
}
