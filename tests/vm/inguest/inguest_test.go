// Package inguest tests what only a kernel with fs-verity shows: the commands from pull to mount with every byte checked by
// the kernel, and what a reader gets of a store that was tampered with. It runs in the virtual machine of tests/vm/test.sh,
// which puts the programs flatroot and mount.flatroot into PATH and has disks of its own for it; elsewhere it skips.
package inguest

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// The disks that tests/vm/test.sh made: ext4 with fs-verity, and without.
const (
	verityDisk = "/dev/vdb"
	plainDisk  = "/dev/vdc"
)

func needGuest(t *testing.T) {
	t.Helper()
	testenv.Need(t, "verity", "root", "mount", "erofs", "overlay", "loop")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tryFlatroot runs the command.
func tryFlatroot(args ...string) (stdout string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("flatroot", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("flatroot %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// flatroot runs the command, which has to succeed, and returns what it printed.
func flatroot(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryFlatroot(args...)
	must(t, err)
	return out
}

// mountDisk mounts a disk for the time of the test, or until the returned function unmounts it.
func mountDisk(t *testing.T, device string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount(device, dir, "ext4", 0, ""))
	done := false
	unmount = func() {
		if !done {
			done = true
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %s: %v", device, err)
			}
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// randomBytes are always the same n bytes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// bigSize is over 128 blocks, so that the Merkle tree has leaves in two blocks and a root above them.
const bigSize = 150*fsverity.BlockSize + 7

// big are the contents of the sample's objects.
var big = map[string][]byte{"big": randomBytes(bigSize), "dir/small": randomBytes(5000), "dir/text": bytes.Repeat([]byte("flatroot\n"), 100)}

// layout writes a sample image of two layers, many files inline, some objects and a whiteout, and returns its reference.
func layout(t *testing.T) string {
	t.Helper()
	files := []ocitest.File{{Name: "dir/"}, {Name: "link", Link: "dir/text"}, {Name: "gone", Data: "deleted by the second layer"}}
	for name, data := range big {
		files = append(files, ocitest.File{Name: name, Data: string(data)})
	}
	for i := range 200 {
		files = append(files, ocitest.File{Name: fmt.Sprintf("dir/inline%03d", i), Data: strings.Repeat("x", i%64)})
	}
	dir := filepath.Join(t.TempDir(), "layout")
	image := ocitest.Image{Layers: [][]byte{ocitest.Tar(files...), ocitest.Tar(ocitest.File{Name: ".wh.gone"})}}
	_, err := image.WriteLayout(dir, "os:1")
	must(t, err)
	return "oci:" + dir + ":os:1"
}

// snapshot is what a tree shows: of each path what is found there.
type snapshot map[string]string

// look describes what is at a path: type, permissions, size and content or names.
func look(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	fi, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%v %d %v", fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
	var content any
	switch fi.Mode().Type() {
	case 0:
		var b []byte
		b, err = os.ReadFile(path)
		content = fsverity.Sum(fsverity.SHA256, b)
	case fs.ModeSymlink:
		content, err = os.Readlink(path)
	case fs.ModeDir:
		content, err = list(path)
	}
	return fmt.Sprintf("%s %v", text, content), err
}

// list reads a directory. The root of an image holds whiteouts, named 00 to ff, which overlayfs hides; but the kernel shows
// those that it can't read. They are names without anything behind them, and count as an error.
func list(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if e.Type()&fs.ModeCharDevice != 0 && err == nil {
			_, err = e.Info()
		}
	}
	return entries, err
}

// take looks at a whole tree, which has to be intact.
func take(t *testing.T, dir string) snapshot {
	t.Helper()
	s := snapshot{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		s[name], err = look(dir, name)
		return err
	}))
	return s
}

// compare looks at all paths of the snapshot again and returns the errors met. Anything that is found without an error has to
// be as it was.
func (s snapshot) compare(t *testing.T, dir string) map[string]error {
	t.Helper()
	failed := map[string]error{}
	for name, want := range s {
		got, err := look(dir, name)
		if err != nil {
			failed[name] = err
		} else if got != want {
			t.Errorf("WRONG DATA at %s: %s, want %s", name, got, want)
		}
	}
	return failed
}
