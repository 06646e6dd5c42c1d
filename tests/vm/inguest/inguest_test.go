// Package inguest tests what only a kernel with fs-verity shows: the commands from pull to mount with every byte checked, and
// what a reader gets of a store that was tampered with, whoever serves the tree. It runs in the virtual machine of
// tests/vm/test.sh, which puts the programs flatroot and mount.flatroot into PATH and has disks of its own for it; elsewhere
// it skips.
//
// Words: a way is a mode, a policy and a disk, and a victim is a store to tamper with. Tests go through all ways that a disk
// has. What each of them may see is either an error or what was there before; anything else is reported as WRONG DATA.
package inguest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// disk is one of those that tests/vm/test.sh made.
type disk struct {
	name   string
	device string
	verity bool // ext4 with fs-verity
}

var (
	verityDisk = disk{"ext4 with fs-verity", "/dev/vdb", true}
	plainDisk  = disk{"ext4 without", "/dev/vdc", false}
)

func needGuest(t *testing.T) {
	t.Helper()
	testenv.Need(t, "verity", "root", "mount", "erofs", "overlay", "loop", "fuse")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a program and returns what it printed and how it ended.
func command(name string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// tryFlatroot runs the command flatroot.
func tryFlatroot(args ...string) (stdout string, err error) {
	stdout, stderr, err := command("flatroot", args...)
	if err != nil {
		return "", fmt.Errorf("flatroot %s: %w: %s", strings.Join(args, " "), err, stderr)
	}
	return strings.TrimSpace(stdout), nil
}

// flatroot runs the command, which has to succeed, and returns what it printed.
func flatroot(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryFlatroot(args...)
	must(t, err)
	return out
}

// serverEnd is how long a server may need to close its files after its mount is gone.
const serverEnd = 5 * time.Second

// mount mounts a disk for the time of the test, or until the returned function unmounts it.
func (d disk) mount(t *testing.T) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount(d.device, dir, "ext4", 0, ""))
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		if err := unmountUnused(dir); err != nil {
			t.Errorf("unmount %s: %v", d.device, err)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// unmountUnused waits for those who still have files open.
func unmountUnused(dir string) error {
	for end := time.Now().Add(serverEnd); ; time.Sleep(5 * time.Millisecond) {
		if err := unix.Unmount(dir, 0); err != unix.EBUSY || time.Now().After(end) {
			return err
		}
	}
}

// unmount is umount without the time that a program takes to start.
func unmount(t *testing.T, target string) {
	t.Helper()
	must(t, unix.Unmount(target, unix.UMOUNT_NOFOLLOW))
}

// dropCaches makes the kernel forget what it has read from disks and servers, so that it reads again.
func dropCaches(t *testing.T) {
	t.Helper()
	unix.Sync()
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
}

// plant puts another file in an object's place, with fs-verity of the algorithm unless that is 0.
func plant(t *testing.T, path string, content []byte, a fsverity.Algorithm) {
	t.Helper()
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o644))
	if a == 0 {
		return
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, fsverity.Enable(f, a))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// changed is content of the same length with one bit another.
func changed(content []byte) []byte {
	b := bytes.Clone(content)
	b[len(b)/2] ^= 1
	return b
}
