package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSwitchRoot: a keeper of the initramfs does its work when the root that it
// has is empty and covered by the real one.
func TestSwitchRoot(t *testing.T) {
	needSessions(t)
	c := runStarter(t, "switch")
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after the switch: %v", err)
	}
	waitGone(t, c.keeper)
}

// afterSwitch does what switch_root(8) does, has the keeper replace its server,
// reads, and unmounts. It is a starter in a mount namespace of its own.
func afterSwitch(s *sample, dir string, keeper int) error {
	newRoot := filepath.Join(filepath.Dir(s.image), "root")
	if err := switchRoot(newRoot, dir); err != nil {
		return err
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/proc/self", keeper)); err == nil {
		return fmt.Errorf("the old root still has /proc: this tests nothing")
	}
	old := children(keeper)
	if len(old) != 1 {
		return fmt.Errorf("servers %v", old)
	}
	if err := unix.Kill(old[0], unix.SIGKILL); err != nil {
		return err
	}
	if err := readUncached("/mnt/f00", make([]byte, sampleSize), s.content["f00"]); err != nil {
		return err
	}
	if err := unix.Unmount("/mnt", 0); err != nil {
		return err
	}
	for range 500 {
		if isGone(keeper) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("keeper %d is still there after 5 s", keeper)
}

// switchRoot makes a new root of proc, dev and the mount at dir, as mnt.
func switchRoot(newRoot, dir string) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"make directory", func() error { return os.Mkdir(newRoot, 0o755) }},
		{"mount tmpfs", func() error { return unix.Mount("tmpfs", newRoot, "tmpfs", 0, "") }},
		{"make /dev", func() error { return os.Mkdir(newRoot+"/dev", 0o755) }},
		{"make /proc", func() error { return os.Mkdir(newRoot+"/proc", 0o755) }},
		{"make /mnt", func() error { return os.Mkdir(newRoot+"/mnt", 0o755) }},
		{"bind /dev", func() error { return unix.Mount("/dev", newRoot+"/dev", "", unix.MS_BIND|unix.MS_REC, "") }},
		{"hide /dev", func() error { return unix.Mount("tmpfs", "/dev", "tmpfs", 0, "") }},
		{"move /proc", func() error { return unix.Mount("/proc", newRoot+"/proc", "", unix.MS_MOVE, "") }},
		{"move the mount", func() error { return unix.Mount(dir, newRoot+"/mnt", "", unix.MS_MOVE, "") }},
		{"enter", func() error { return unix.Chdir(newRoot) }},
		{"move to /", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"change root", func() error { return unix.Chroot(".") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("switch root: %s: %w", s.what, err)
		}
	}
	return nil
}
