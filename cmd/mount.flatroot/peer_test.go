package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/tests/testenv"
)

// seen is what a mount looks like from outside.
type seen struct {
	code     int
	content  bool  // the file has its content
	writable error // what a new file comes to
	uid, gid uint32
}

// TestBesideC gives the same command lines to the C tool and to us. It has none
// with verity: where objects have no fs-verity, the C tool mounts what nobody can
// read then, and we mount nothing or look at the objects first.
func TestBesideC(t *testing.T) {
	peer := testenv.Peer(t, "mount.composefs")
	needMounts(t)
	f := newFixture(t)
	objects := filepath.Join(f.dir, "objects")
	comma := filepath.Join(t.TempDir(), "a,b")
	must(t, os.Symlink(objects, comma))
	escaped := strings.ReplaceAll(comma, ",", `\,`)
	other, empty := strings.Repeat("01", 32), t.TempDir()
	ns := userNamespace(t)
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, bytes.Repeat([]byte("text\n"), 999), 0o644))
	for _, args := range [][]string{
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS"},
		{"-o", "basedir=OBJECTS", "IMAGE", "DIR"},
		{"-t", "composefs", "IMAGE", "DIR", "-o", "basedir=OBJECTS"},
		{"IMAGE", "DIR", "-o", "basedir=" + empty + ":OBJECTS"},
		{"IMAGE", "DIR", "-o", "basedir=" + escaped},
		{"IMAGE", "DIR", "-o", "ro,basedir=OBJECTS"},
		{"IMAGE", "DIR", "-o", "rw,basedir=OBJECTS"},
		{"IMAGE", "DIR", "-o", "ro,rw,basedir=OBJECTS"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,upperdir=UPPER,workdir=WORK"},
		{"IMAGE", "DIR", "-o", "ro,basedir=OBJECTS,upperdir=UPPER,workdir=WORK"},
		{"IMAGE", "DIR", "-o", "rw,ro,rw,basedir=OBJECTS,upperdir=UPPER,workdir=WORK"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,idmap=" + ns},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,upperdir=UPPER,workdir=WORK,idmap=" + ns},

		{"IMAGE", "DIR"},
		{"IMAGE", "DIR", "-o", "ro"},
		{"IMAGE", "DIR", "-o", "basedir"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,nosuchoption"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,upperdir=UPPER"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,workdir=WORK"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,upperdir=/nowhere,workdir=WORK"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,idmap=/nowhere"},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,digest=" + other},
		{"IMAGE", "DIR", "-o", "basedir=OBJECTS,digest=xyz"},
		{"IMAGE", "DIR", "-o", "basedir=/nowhere"},
		{"-t", "ext4", "IMAGE", "DIR", "-o", "basedir=OBJECTS"},
		{"/nowhere", "DIR", "-o", "basedir=OBJECTS"},
		{text, "DIR", "-o", "basedir=OBJECTS"},
		{"IMAGE", "/nowhere", "-o", "basedir=OBJECTS"},
		{"IMAGE", "-o", "basedir=OBJECTS"},
		{"-o", "basedir=OBJECTS"},
	} {
		theirs := besides(t, f, args, func(args []string) int {
			code, _ := tool(t, peer, args...)
			return code
		})
		ours := besides(t, f, args, func(args []string) int {
			code, stdout, stderr := call("mount.composefs", args...)
			if code == 0 && stdout+stderr != "" {
				t.Errorf("%q: not silent: %s%s", args, stdout, stderr)
			}
			return code
		})
		if ours != theirs {
			t.Errorf("%q: %+v, mount.composefs in C %+v", args, ours, theirs)
		}
	}
}

// besides mounts with directories of its own and looks at what came of it.
func besides(t *testing.T, f *fixture, args []string, run func([]string) int) seen {
	t.Helper()
	upper, work := t.TempDir(), t.TempDir()
	names := strings.NewReplacer("IMAGE", f.image, "DIR", f.target, "OBJECTS", filepath.Join(f.dir, "objects"), "UPPER", upper, "WORK", work)
	var real []string
	for _, a := range args {
		real = append(real, names.Replace(a))
	}
	s := seen{code: run(real)}
	if s.code != 0 {
		nothingMounted(t, f.target)
		return s
	}
	b, _ := os.ReadFile(filepath.Join(f.target, "file"))
	s.content = bytes.Equal(b, content)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(f.target, "file"), &st))
	s.uid, s.gid = st.Uid, st.Gid
	if err := os.WriteFile(filepath.Join(f.target, "new"), nil, 0o600); err != nil {
		s.writable = errors.Unwrap(err)
	} else if _, err := os.Stat(filepath.Join(upper, "new")); err != nil {
		t.Errorf("%q: written elsewhere: %v", args, err)
	}
	must(t, mount.Unmount(f.target, mount.UnmountOptions{Force: true}))
	return s
}

// userNamespace makes one that maps 0 to 100000, and returns its path.
func userNamespace(t *testing.T) string {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$", "-test.count=1")
	cmd.Args[0] = waiterName
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
}
