package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// layerModes are the modes that can have a writable layer and mapped owners.
var layerModes = []string{"native", "hybrid"}

// mounted calls the helper for os:1 and unmounts when the test has looked.
func (f *fixture) mounted(t *testing.T, options string, look func()) {
	t.Helper()
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-o", "store="+f.dir+","+options)
	if code != 0 {
		t.Errorf("%s: exit %d: %s", options, code, stderr)
		return
	}
	f.check(t, options)
	look()
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
}

func TestUpper(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	for _, mode := range layerModes {
		upper, work := t.TempDir(), t.TempDir()
		layers := "mode=" + mode + ",upperdir=" + upper + ",workdir=" + work
		f.mounted(t, layers, func() {
			must(t, os.WriteFile(filepath.Join(f.target, "new"), []byte("kept"), 0o600))
			must(t, os.Remove(filepath.Join(f.target, "new")))
			must(t, os.WriteFile(filepath.Join(f.target, "other"), []byte("kept"), 0o600))
		})
		f.mounted(t, "ro,"+layers, func() {
			b, err := os.ReadFile(filepath.Join(f.target, "other"))
			if err != nil || string(b) != "kept" {
				t.Errorf("%s: %q, %v", mode, b, err)
			}
			if err := os.WriteFile(filepath.Join(f.target, "other"), nil, 0o600); !isErrno(err, unix.EROFS) {
				t.Errorf("%s: written though ro: %v", mode, err)
			}
		})
	}
}

func isErrno(err error, want unix.Errno) bool {
	p, ok := err.(*os.PathError)
	return ok && p.Err == want
}

func TestTransient(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	for _, mode := range layerModes {
		for range 2 {
			f.mounted(t, "rw,transient,mode="+mode, func() {
				name := filepath.Join(f.target, "file")
				must(t, os.Truncate(name, 3))
				if b, err := os.ReadFile(name); err != nil || string(b) != string(content[:3]) {
					t.Errorf("%s: %q, %v", mode, b, err)
				}
			}) // the second time the file is whole again
		}
	}
}

func TestIDMap(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	ns := userNamespace(t)
	for _, mode := range layerModes {
		for _, more := range []string{"", ",transient"} {
			f.mounted(t, "mode="+mode+",idmap="+ns+more, func() {
				var st unix.Stat_t
				must(t, unix.Stat(filepath.Join(f.target, "file"), &st))
				if st.Uid != 100000 || st.Gid != 100000 {
					t.Errorf("%s%s: owner %d:%d, want 100000", mode, more, st.Uid, st.Gid)
				}
			})
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-o", "mode=native,store="+f.dir+",idmap="+file)
	if code != exitFailed || !strings.Contains(stderr, file) {
		t.Errorf("no namespace: exit %d: %s", code, stderr)
	}
	nothingMounted(t, f.target)
}

func TestCheckOption(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	f.mounted(t, "check", func() {})
	empty := t.TempDir()
	code, _, stderr := call("mount.flatroot", f.image, f.target, "-o", "check,basedir="+empty)
	if code != exitFailed || !strings.Contains(stderr, "/file") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("missing object: exit %d: %s", code, stderr)
	}
	nothingMounted(t, f.target)
}

// TestPlanJSON: --dry-run --json prints the specification, and nothing else.
func TestPlanJSON(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	code, stdout, stderr := call("mount.flatroot", "os:1", f.target, "--dry-run", "--json", "-o", "mode=native,transient,store="+f.dir)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var s mount.Spec
	must(t, json.Unmarshal([]byte(stdout), &s))
	if s.Mode != mount.ModeNative || s.Image.Path != f.image || *s.Image.Digest != f.digest || len(s.Mounts) != 2 {
		t.Errorf("specification %s", stdout)
	}
	if strings.Contains(stdout, "upperdir") {
		t.Errorf("more than the lower layers: %s", stdout)
	}
	nothingMounted(t, f.target)
}

// TestBusy: what is in use stays, with one line and mount(8)'s code for it.
func TestBusy(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	f.mounted(t, "ro", func() {
		open, err := os.Open(filepath.Join(f.target, "file"))
		must(t, err)
		defer open.Close()
		code, _, stderr := call("umount.flatroot", f.target)
		if code != exitFailed || !strings.Contains(stderr, "busy") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}
