package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// records lists what the store says is mounted.
func (f *fixture) records(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(f.dir + "/images/refs/flatroot/live/*/" + f.digest.String())
	must(t, err)
	return list
}

// hasVerity tells whether a file's digest is known without it being asked for.
func hasVerity(t *testing.T, path string) bool {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	_, err = fsverity.Measure(file)
	return err == nil
}

// TestRecords: what is mounted from a store that is known is recorded there, whatever way it is named; what was refused
// isn't, nor what was only looked at.
func TestRecords(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	objects, digest := filepath.Join(f.dir, "objects"), ",digest="+f.digest.String()
	for _, c := range []struct {
		args     string
		recorded bool
	}{
		{"mount.flatroot os:1 DIR -f -o store=STORE", false},
		{"mount.flatroot os:1 DIR -o store=STORE,mode=fuse,passthrough,verity=require", false},
		{"mount.flatroot " + f.image + " DIR -o store=STORE", hasVerity(t, f.image)},
		{"mount.flatroot " + f.image + " DIR -o basedir=" + objects + digest, false},
		{"mount.flatroot " + f.image + " DIR -o store=STORE" + digest, true},
		{"mount.flatroot os:1 DIR -o store=STORE,mode=fuse", true},
		{"mount.flatroot dump DIR -o store=STORE,mode=native -N /proc/thread-self/ns/mnt", true},
		{"mount.composefs os:1 DIR -o store=STORE", true},
	} {
		args := strings.Fields(strings.NewReplacer("DIR", f.target, "STORE", f.dir).Replace(c.args))
		code, _, stderr := call(args[0], args[1:]...)
		if got := f.records(t); (len(got) == 1) != c.recorded {
			t.Errorf("%s: exit %d: %s: records %q", c.args, code, stderr, got)
		}
		if c.recorded && code != 0 {
			t.Errorf("%s: exit %d: %s", c.args, code, stderr)
		}
		_ = unix.Unmount(f.target, 0)
		must(t, os.RemoveAll(f.dir+"/images/refs/flatroot"))
	}
	nothingMounted(t, f.target)
}
