package inguest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// tampering is a way to damage a store, and what has to come of it.
type tampering struct {
	name   string
	damage func(t *testing.T, v *victim)
	verity bool // only for a disk with fs-verity

	refused string // what the mount by name says; empty: it succeeds
	byPath  string // what a native mount of the image's path with its digest says; empty: not tried
	right   bool   // the image is right, but for its fs-verity: whoever needs none takes it by path

	// What reading /big ends with, and nothing but /big, if the mount succeeds: where overlayfs opens the objects, and where
	// a FUSE server reads them. 0: it is right.
	overlay, server unix.Errno
}

// filesTampered is done with ordinary means by somebody who may write to the store.
var filesTampered = []tampering{
	{name: "object with other content", overlay: unix.EIO, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		v.plant(t, v.object("big"), changed(big["big"]))
	}},
	{name: "object with other content, without fs-verity", verity: true, overlay: unix.EIO, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), changed(big["big"]), 0)
	}},
	{name: "object without fs-verity", verity: true, overlay: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), big["big"], 0)
	}},
	{name: "object with fs-verity of another hash", verity: true, overlay: unix.EIO, damage: func(t *testing.T, v *victim) {
		plant(t, v.object("big"), big["big"], fsverity.SHA512)
	}},
	{name: "object cut short", overlay: unix.EIO, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		v.plant(t, v.object("big"), big["big"][:bigSize-1])
	}},
	{name: "object with more at its end", overlay: unix.EIO, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		v.plant(t, v.object("big"), append(big["big"][:bigSize:bigSize], 0))
	}},
	{name: "another object in the place of one", overlay: unix.EIO, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		must(t, os.Rename(v.object("dir/small"), v.object("big")))
		v.plant(t, v.object("dir/small"), big["dir/small"])
	}},
	{name: "object missing", overlay: unix.ENOENT, server: unix.EIO, damage: func(t *testing.T, v *victim) {
		must(t, os.Remove(v.object("big")))
	}},
	{name: "another image", refused: "digest", byPath: "as asked", damage: func(t *testing.T, v *victim) {
		v.plant(t, v.image(), changed(read(t, v.image())))
	}},
	{name: "another image without fs-verity", verity: true, refused: "fs-verity", byPath: "fs-verity", damage: func(t *testing.T, v *victim) {
		plant(t, v.image(), changed(read(t, v.image())), 0)
	}},
	{name: "image without fs-verity", verity: true, refused: "fs-verity", byPath: "fs-verity", right: true, damage: func(t *testing.T, v *victim) {
		plant(t, v.image(), read(t, v.image()), 0)
	}},
	{name: "image missing", refused: "pull it again", damage: func(t *testing.T, v *victim) {
		must(t, os.Remove(v.image()))
	}},
}

// TestTamperedFiles mounts damaged stores: what is damaged can't be read, and all else can.
func TestTamperedFiles(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			for _, row := range filesTampered {
				if d.verity || !row.verity {
					t.Run(row.name, func(t *testing.T) { row.test(t, v) })
				}
			}
		})
	}
}

// test damages a store, mounts in all ways, and heals it.
func (row *tampering) test(t *testing.T, v *victim) {
	v.again(t)
	row.damage(t, v)
	check := func(t *testing.T, w way) {
		v.again(t)
		row.check(t, v, w)
	}
	v.disk.each(t, check)
	v.disk.eachOf(t, autoWays, check)
	v.again(t)
	v.heal(t)
}

func (row *tampering) check(t *testing.T, v *victim, w way) {
	t.Helper()
	if row.refused != "" {
		_, err := w.tryMount(v.dir, t.TempDir())
		wantRefused(t, err, row.refused)
		row.checkByPath(t, v, w)
		return
	}
	errno := row.server
	if w.byOverlay() {
		errno = row.overlay
	}
	failed := v.intact.compare(t, w.mount(t, v.dir))
	if errno != 0 && !errors.Is(failed["big"], errno) {
		t.Errorf("reading big: %v, want %v", failed["big"], errno)
	}
	if errno != 0 {
		delete(failed, "big")
	}
	if len(failed) > 0 {
		t.Errorf("fails as well: %v", failed)
	}
}

// checkByPath mounts a damaged image by path, which is given its digest.
func (row *tampering) checkByPath(t *testing.T, v *victim, w way) {
	t.Helper()
	if row.byPath == "" || !w.required() {
		return
	}
	target := t.TempDir()
	err := w.tryMountPath(v.image(), v.digest.String(), v.objects(), target)
	switch {
	case w.want.Mode == "native":
		wantRefused(t, err, row.byPath)
	case !row.right:
		wantRefused(t, err, "as asked")
	default:
		must(t, err)
		v.intact.wantIntact(t, target)
		unmount(t, target)
	}
}

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want it refused: %q", err, text)
	}
}
