package inguest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// uncheckedWays mount an image file that no digest protects.
var uncheckedWays = []way{
	{name: "fuse", options: "mode=fuse,verity=off"},
	{name: "hybrid", options: "mode=hybrid,verity=off"},
}

// TestTruncatedImage cuts an image that a server works on without a copy: that is an error for its readers, and the server is
// still there when the image is whole again.
func TestTruncatedImage(t *testing.T) {
	needGuest(t)
	v := newVictim(t, plainDisk, layout(t))
	for _, w := range uncheckedWays {
		t.Run(w.name, func(t *testing.T) {
			image := filepath.Join(v.dir, "../image")
			for _, size := range []int64{0, fsverity.BlockSize + 100, int64(len(v.imageBytes)) / 2} {
				plant(t, image, v.imageBytes, 0)
				target := t.TempDir()
				_, err := tryFlatroot("mount", image, target, "-o", w.options+",basedir="+v.objects())
				must(t, err)
				must(t, os.Truncate(image, size))
				failed := v.intact.compare(t, target)
				t.Logf("%d bytes: %d of %d paths fail", size, len(failed), len(v.intact))
				writeAt(t, image, v.imageBytes, 0)
				dropCaches(t)
				v.intact.wantIntact(t, target)
				unmount(t, target)
			}
		})
	}
}
