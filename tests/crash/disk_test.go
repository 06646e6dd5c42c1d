//go:build amd64

package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// pointsOnDisk is how many points a night tries on a file system of a disk, in passes over all of them.
const pointsOnDisk = 10_000

// TestPointsOnDisk is TestPoints on ext4, where directories have another order than in memory, syncs take their time, and
// threads overlap in other ways. At every change there is time for a look at whether it works at all.
func TestPointsOnDisk(t *testing.T) {
	testenv.Need(t, "ptrace", "root", "loop", "mkfs.ext4")
	makeInputs(t)
	disk := mountExt4(t)
	if !testenv.Nightly() {
		for _, s := range scenarios()[:2] {
			prepare(t, disk, s).sweep(t, modes[0].fault, 29)
		}
		return
	}
	points := int64(0)
	for pass := 0; points < pointsOnDisk && !t.Failed(); pass++ {
		root := filepath.Join(disk, fmt.Sprint("pass", pass))
		must(t, os.Mkdir(root, 0o700))
		for _, s := range scenarios() {
			tpl := prepare(t, root, s)
			for _, m := range modes {
				points += tpl.sweep(t, m.fault, 1)
			}
		}
		must(t, os.RemoveAll(root))
	}
	t.Logf("%d points", points)
}

// mountExt4 makes a file system in a file and mounts it; none of that outlives the test.
func mountExt4(t *testing.T) string {
	t.Helper()
	file, at := filepath.Join(scratch, "ext4"), filepath.Join(scratch, "disk")
	must(t, os.Mkdir(at, 0o700))
	for _, argv := range [][]string{
		{"truncate", "-s", "1G", file},
		{"mkfs.ext4", "-q", "-F", file},
		{"mount", "-o", "loop", file, at},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmount %s: %v", at, err)
		}
		os.Remove(file)
	})
	return at
}
