package inguest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// namesTampered are changes of what leads from a name to an image.
var namesTampered = []struct {
	name     string
	damage   func(t *testing.T, v *victim)
	flatroot string // what flatroot says
	helper   string // what mount.flatroot says
	digest   bool   // by the image's digest it can be mounted all the same
}{
	{"image entry leads to another object", func(t *testing.T, v *victim) {
		relink(t, v.entry(), "../objects/"+fsverity.Sum(fsverity.SHA256, big["big"]).ObjectPath())
	}, "pull it again", "damaged", false},
	{"image entry leads out of the store", func(t *testing.T, v *victim) {
		plant(t, filepath.Join(v.dir, "../outside"), v.imageBytes, 0)
		relink(t, v.entry(), "../../outside")
	}, "is no sha256 object", "is no sha256 object", false},
	{"image entry is a copy of the image", func(t *testing.T, v *victim) {
		plant(t, v.entry(), v.imageBytes, 0)
	}, "no symbolic link", "no symbolic link", false},
	{"tag leads to no entry", func(t *testing.T, v *victim) {
		relink(t, v.tag(t), "../../"+strings.Repeat("0", 64))
	}, "is no manifest", "damaged", true},
	{"tag leads out of the store", func(t *testing.T, v *victim) {
		relink(t, v.tag(t), "../../../../outside")
	}, "is no manifest", "damaged", true},
	{"tag leads to an image", func(t *testing.T, v *victim) {
		relink(t, v.tag(t), "../../../images/"+v.digest.String())
	}, "is no manifest", "damaged", true},
	{"tag is a file", func(t *testing.T, v *victim) {
		plant(t, v.tag(t), []byte(v.digest.String()), 0)
	}, "no symbolic link", "no symbolic link", true},
}

// TestTamperedNames mounts by names that lead elsewhere: the mount is refused, in one line.
func TestTamperedNames(t *testing.T) {
	needGuest(t)
	v := newVictim(t, verityDisk, layout(t))
	for _, row := range namesTampered {
		t.Run(row.name, func(t *testing.T) {
			row.damage(t, v)
			texts := []string{row.flatroot, row.helper}
			for i, p := range programs {
				p.wantRefused(t, sampleName, "store="+v.dir, texts[i])
				if !row.digest {
					p.wantRefused(t, v.digest.String(), "store="+v.dir, "")
				}
			}
			if row.digest {
				target := t.TempDir()
				flatroot(t, "mount", v.digest.String(), target, "--store", v.dir, "-o", "verity=require")
				v.intact.wantIntact(t, target)
				flatroot(t, "umount", target)
			}
			v.heal(t)
		})
	}
}
