package inguest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// release is the running kernel's version.
func release(t *testing.T) (major, minor int) {
	t.Helper()
	var uts unix.Utsname
	must(t, unix.Uname(&uts))
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

// TestLayerForm expects the form of layers that this kernel is known to take: what was probed must not fall back.
func TestLayerForm(t *testing.T) {
	needGuest(t)
	v := newVictim(t, verityDisk, layout(t))
	want := "layers-by:name"
	if major, minor := release(t); major > 6 || minor >= 15 {
		want = "layers-by:mount"
	}
	v.disk.each(t, func(t *testing.T, w way) {
		if w.byOverlay() {
			plan := flatroot(t, "mount", sampleName, t.TempDir(), "--store", v.dir, "-o", w.options, "--dry-run")
			if !strings.Contains(plan, want) {
				t.Errorf("no %s in the plan:\n%s", want, plan)
			}
		}
	})
}

// TestMounts lists each kind of mount as it was reported when it was made, and no more when it is gone.
func TestMounts(t *testing.T) {
	needGuest(t)
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			test := func(t *testing.T, w way) { v.testList(t, w) }
			for _, list := range [][]way{ways, autoWays, otherWays} {
				d.eachOf(t, list, test)
			}
		})
	}
}

func (v *victim) testList(t *testing.T, w way) {
	v.again(t)
	target := t.TempDir()
	_, err := w.tryMount(v.dir, target)
	must(t, err)
	var got struct {
		Target, Image string
		mounted
	}
	must(t, json.Unmarshal([]byte(flatroot(t, "mounts", "--json")), &got))
	if got.mounted != w.want || got.Target != target || got.Image != v.digest.String() {
		t.Errorf("listed as %+v, want %s on %s as %+v", got, v.digest, target, w.want)
	}
	flatroot(t, "umount", target)
	if list := flatroot(t, "mounts", "--json"); list != "" {
		t.Errorf("listed after umount: %s", list)
	}
}
