package mounts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// mode is a way of mounting.
type mode struct {
	name    string
	options string // of mount.flatroot
	differ  []difference
	served  bool // there is no overlayfs: a FUSE server gives the content too
}

// passthrough needs the rights of the system's superuser.
func (m mode) passthrough() bool { return strings.Contains(m.options, "passthrough") }

// native is the oracle.
var native = mode{"native", "mode=native,verity=off", slices.Concat(erofsDifferences, overlayDifferences), false}

// modes are those that have to agree with the native mount.
func modes() []mode {
	served := slices.Concat(fuseDifferences, servedDifferences)
	verified := slices.Concat(served, verifiedDifferences)
	return []mode{
		{"hybrid", "mode=hybrid,verity=off", slices.Concat(fuseDifferences, overlayDifferences), false},
		{"fuse", "mode=fuse,verity=off", served, true},
		{"fuse, verified", "mode=fuse,verity=require", verified, true},
		{"passthrough", "mode=fuse,passthrough,verity=off", served, true},
		{"passthrough, checked", "mode=fuse,passthrough,verity=auto", verified, true},
	}
}

func needMounts(t testing.TB) {
	t.Helper()
	testenv.Need(t, "root", "mount", "erofs", "overlay", "loop", "fuse")
}

// allModes begins with the native one.
func allModes() []mode { return append([]mode{native}, modes()...) }

// command is the helper's, to mount an image. Options are added to the mode's.
func (m mode) command(img image, target string, options ...string) *exec.Cmd {
	list := append([]string{m.options, "basedir=" + img.objects}, options...)
	if !img.digest.IsZero() {
		list = append(list, "digest="+img.digest.String())
	}
	return exec.Command(helper, img.path, target, "-o", strings.Join(list, ","))
}

func (m mode) tryMount(img image, target string, options ...string) error {
	var errs bytes.Buffer
	cmd := m.command(img, target, options...)
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", m.name, err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// mount mounts an image for the time of the test, or until the returned function unmounts it.
func (m mode) mount(t testing.TB, img image, options ...string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // users must get there
	must(t, m.tryMount(img, dir, options...))
	done := false
	unmount = func() {
		t.Helper()
		if done {
			return
		}
		done = true
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("%s: unmount: %v", m.name, err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}
