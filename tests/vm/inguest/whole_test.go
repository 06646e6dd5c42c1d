package inguest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// mountNative mounts the sample by name in the kernel, and returns what is said to be checked.
func mountNative(t *testing.T, dir, target, verity string) mounted {
	t.Helper()
	m, err := way{options: "mode=native,verity=" + verity}.tryMount(dir, target)
	must(t, err)
	return m
}

func secure(t *testing.T, dir string) bool {
	t.Helper()
	s, err := store.Open(dir, store.OpenOptions{ReadOnly: true})
	must(t, err)
	defer s.Close()
	return s.Secure()
}

// TestWholeWay goes from a layout to mounts that are checked throughout.
func TestWholeWay(t *testing.T) {
	needGuest(t)
	for _, hash := range []string{"sha256", "sha512"} {
		t.Run(hash, func(t *testing.T) {
			dir, ref := filepath.Join(t.TempDir(), "store"), layout(t)
			flatroot(t, "init", "--store", dir, "--verity", "require", "--hash", hash)
			digest := flatroot(t, "pull", ref, "--store", dir)
			if want := flatroot(t, "digest", ref, "--hash", hash); digest != want {
				t.Errorf("pulled image %s, want %s", digest, want)
			}
			if !secure(t, dir) {
				t.Error("the store doesn't demand fs-verity")
			}
			if n := checkObjects(t, dir); n < len(big)+1 {
				t.Errorf("only %d objects", n)
			}
			storetest.Check(t, dir)
			verityDisk.each(t, func(t *testing.T, w way) {
				checkTree(t, w.mount(t, dir))
				target := t.TempDir()
				helper(t, sampleName, target, "-o", w.options+",store="+dir)
				checkTree(t, target)
				flatroot(t, "umount", target)
			})
			// What is complete is neither fetched nor written again.
			if again := flatroot(t, "pull", ref, "--store", dir); again != digest {
				t.Errorf("pulled again: %s", again)
			}
		})
	}
}

func helper(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount.flatroot", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount.flatroot %q: %v: %s", args, err, out)
	}
}

func checkTree(t *testing.T, dir string) {
	t.Helper()
	for name, want := range big {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "dir/inline063")); err != nil || string(b) != strings.Repeat("x", 63) {
		t.Errorf("inline063 is %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted file: %v", err)
	}
}

// checkObjects asks the kernel for each object's digest, which has to be its name, tries to write, and counts them.
func checkObjects(t *testing.T, dir string) (n int) {
	t.Helper()
	objects := filepath.Join(dir, "objects")
	must(t, filepath.WalkDir(objects, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		name, _ := filepath.Rel(objects, path)
		if d, err := measure(path); err != nil || d.ObjectPath() != name {
			t.Errorf("the kernel's digest of object %s is %v, %v", name, d, err)
		}
		if err := os.Truncate(path, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate object %s: %v, want EPERM", name, err)
		}
		return nil
	}))
	return n
}

func measure(path string) (fsverity.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return fsverity.Digest{}, err
	}
	defer f.Close()
	return fsverity.Measure(f)
}

// TestVerityModes makes stores where fs-verity can be had and where it can't.
func TestVerityModes(t *testing.T) {
	needGuest(t)
	withVerity, _ := verityDisk.mount(t)
	plain, _ := plainDisk.mount(t)
	tmpfs := t.TempDir()
	must(t, unix.Mount("tmpfs", tmpfs, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(tmpfs, 0)) })
	ref := layout(t)
	for _, row := range []struct {
		name, dir, verity string
		secure            bool
		check             mounted // of a mount with verity=auto
	}{
		{"auto, ext4 with fs-verity", withVerity, "auto", true, mounted{"native", "kernel", "kernel"}},
		{"require, ext4 with fs-verity", withVerity, "require", true, mounted{"native", "kernel", "kernel"}},
		{"off, ext4 with fs-verity", withVerity, "off", false, mounted{"native", "sealed", "unchecked"}},
		{"auto, ext4 without", plain, "auto", false, mounted{"native", "sealed", "unchecked"}},
		{"auto, tmpfs", tmpfs, "auto", false, mounted{"native", "sealed", "unchecked"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(row.dir, "store-"+row.verity)
			pulled(t, dir, row.verity, ref)
			t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
			if got := secure(t, dir); got != row.secure {
				t.Errorf("secure: %t, want %t", got, row.secure)
			}
			if row.secure {
				checkObjects(t, dir)
			}
			target := t.TempDir()
			if m := mountNative(t, dir, target, "auto"); m != row.check {
				t.Errorf("verity=auto is %+v, want %+v", m, row.check)
			}
			checkTree(t, target)
			flatroot(t, "umount", target)
			if !row.secure {
				refused(t, "mount", sampleName, target, "-o", "mode=native,verity=require", "--store", dir)
			}
		})
	}
	for _, dir := range []string{plain, tmpfs} {
		dir = filepath.Join(dir, "none")
		refused(t, "init", "--store", dir, "--verity", "require")
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("init left %v", names)
		}
	}
}

// refused runs a command that has to say that fs-verity is missing.
func refused(t *testing.T, args ...string) {
	t.Helper()
	if _, err := tryFlatroot(args...); err == nil || !strings.Contains(err.Error(), "fs-verity") {
		t.Errorf("%q: %v, want it refused for lack of fs-verity", args, err)
	}
}
