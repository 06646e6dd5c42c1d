package mounts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// mode is a way of mounting.
type mode struct {
	name    string
	options string // of mount.flatroot
}

// native is the oracle.
var native = mode{"native", "mode=native"}

// modes are those that have to agree with the native mount.
func modes() []mode {
	return nil
}

func needMounts(t testing.TB) {
	t.Helper()
	testenv.Need(t, "root", "mount", "erofs", "overlay", "loop", "fuse")
}

// tryMount has the helper mount an image. Options are added to the mode's.
func (m mode) tryMount(img image, target string, options ...string) error {
	list := append([]string{m.options, "basedir=" + img.objects}, options...)
	if !img.digest.IsZero() {
		list = append(list, "digest="+img.digest.String())
	}
	var errs bytes.Buffer
	cmd := exec.Command(helper, img.path, target, "-o", strings.Join(list, ","))
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mount.flatroot, %s: %w: %s", m.name, err, strings.TrimSpace(errs.String()))
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
