package mounts

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// How often each mode is mounted and unmounted, and how often its helper is killed.
const (
	cycles        = 100 // of each mode
	cyclesNightly = 1000
	kills         = 40
	killsNightly  = 1000
)

// times is how often something is done: a quarter in the suite root, since the suite peers does it all and is run as well.
func times(ci, nightly int) int {
	switch {
	case testenv.Nightly():
		return nightly
	case os.Getenv("FLATROOT_TEST") == "root":
		return ci / 4
	}
	return ci
}

// writeSmall makes an image of a few files, one of which has a name of its own.
func writeSmall(t testing.TB, dir, name string) image {
	t.Helper()
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	b.file("/name", 0o644, []byte(name))
	b.dir("/dir", 0o755)
	b.file("/dir/object", 0o644, append([]byte(name+"\n"), groundData[:9000]...))
	b.symlink("/link", "dir/object")
	b.tree.Canonicalize()
	return writeImage(t, dir, "image-"+name, b.tree, b.objects, erofs.Format1)
}

// isSmall tells whether a mounted tree is that of writeSmall.
func isSmall(dir, name string) error {
	b, err := os.ReadFile(dir + "/link")
	if err == nil && !bytes.Equal(b, append([]byte(name+"\n"), groundData[:9000]...)) {
		err = errors.New("other content")
	}
	return err
}

// TestCycles mounts and unmounts, with files that are open for a while when it is unmounted lazily.
func TestCycles(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	img := writeSmall(t, dir, "cycle")
	for _, m := range allModes() {
		t.Run(m.name, func(t *testing.T) {
			before := look(t)
			target := t.TempDir()
			for i := range times(cycles, cyclesNightly) {
				must(t, m.tryMount(img, target))
				must(t, isSmall(target, "cycle"))
				unmountCycle(t, target, i%10 == 0)
			}
			before.same(t, m.name)
		})
	}
}

// unmountCycle unmounts, or finds that it can't while a file is open, and does it lazily.
func unmountCycle(t *testing.T, target string, busy bool) {
	t.Helper()
	if !busy {
		must(t, unix.Unmount(target, 0))
		return
	}
	f, err := os.Open(target + "/dir/object")
	must(t, err)
	defer f.Close()
	if err := unix.Unmount(target, 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmount with a file open: %v", err)
	}
	must(t, unix.Unmount(target, unix.MNT_DETACH))
	if b, err := os.ReadFile(fdPath(f)); err != nil || len(b) != 9006 {
		t.Errorf("file of a tree that was unmounted lazily: %d bytes, %v", len(b), err)
	}
}

// TestFailedMounts has mounts fail in all ways that are easily had.
func TestFailedMounts(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	img := writeSmall(t, dir, "fails")
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("no image"), 0o644))
	for _, m := range allModes() {
		t.Run(m.name, func(t *testing.T) {
			before := look(t)
			for name, change := range map[string]func(i image, target string) (image, string){
				"no objects":     func(i image, target string) (image, string) { i.objects = dir + "/none"; return i, target },
				"objects no dir": func(i image, target string) (image, string) { i.objects = file; return i, target },
				"no image":       func(i image, target string) (image, string) { i.path = dir + "/none"; return i, target },
				"image no file":  func(i image, target string) (image, string) { i.path = dir; return i, target },
				"other digest": func(i image, target string) (image, string) {
					i.digest = fsverity.Sum(fsverity.SHA256, nil)
					return i, target
				},
				"not an image":     func(i image, target string) (image, string) { i.path = file; return i, target },
				"no target":        func(i image, target string) (image, string) { return i, target + "/none" },
				"target is a file": func(i image, target string) (image, string) { return i, file },
			} {
				bad, target := change(img, t.TempDir())
				for range 5 {
					err := m.tryMount(bad, target)
					if err == nil {
						t.Errorf("%s: mounted", name)
						unix.Unmount(target, unix.MNT_DETACH)
					} else if lines := strings.Count(err.Error(), "\n"); lines > 0 || strings.Contains(err.Error(), "goroutine") {
						t.Errorf("%s: %v", name, err)
					}
					if mountedAt(t, target) {
						t.Errorf("%s: %s is mounted after all", name, target)
					}
				}
			}
			before.same(t, m.name)
		})
	}
}

// TestKilledHelper kills mount.flatroot while it mounts. What is mounted then has to work, and nothing else may be left.
func TestKilledHelper(t *testing.T) {
	needMounts(t)
	img := writeSmall(t, t.TempDir(), "killed")
	for _, m := range allModes() {
		t.Run(m.name, func(t *testing.T) {
			before := look(t)
			target := t.TempDir()
			took := timeMount(t, m, img, target)
			mounted := 0
			for i := range times(kills, killsNightly) {
				delay := time.Duration(rand.Int64N(int64(took)))
				killHelper(t, m, img, target, delay)
				if mountedAt(t, target) {
					mounted++
					checkAndUnmount(t, m, target, delay)
				}
				if i%10 == 9 {
					before.same(t, m.name+" killed")
				}
			}
			t.Logf("%s: mounted %d times, within %v", m.name, mounted, took)
		})
	}
}

// timeMount is how long a mount takes when nothing else happens, and a bit.
func timeMount(t *testing.T, m mode, img image, target string) time.Duration {
	t.Helper()
	took := time.Hour
	for range 5 {
		start := time.Now()
		must(t, m.tryMount(img, target))
		took = min(took, time.Since(start))
		must(t, unix.Unmount(target, 0))
	}
	return took * 5 / 4
}

func killHelper(t *testing.T, m mode, img image, target string, delay time.Duration) {
	t.Helper()
	cmd := m.command(img, target)
	must(t, cmd.Start())
	time.Sleep(delay)
	must(t, cmd.Process.Kill())
	var ended *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
}

func checkAndUnmount(t *testing.T, m mode, target string, delay time.Duration) {
	t.Helper()
	if err := soon(func() error { return isSmall(target, "killed") }); err != nil {
		t.Errorf("%s: helper killed after %v, the tree is mounted: %v", m.name, delay, err)
	}
	if err := soon(func() error { return unix.Unmount(target, 0) }); err != nil {
		t.Errorf("%s: helper killed after %v: unmount: %v", m.name, delay, err)
		unix.Unmount(target, unix.MNT_DETACH)
	}
}
