package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/keeper"
	"github.com/flatroot/flatroot/tests/testenv"
)

// helperNames are those under which `make install` puts the program.
var helperNames = []string{"mount.flatroot", "mount.composefs", "umount.flatroot", "umount.fuse.flatroot"}

// waiterName has the test program wait until its standard input ends.
const waiterName = "waiter"

// TestMain makes the test program the helper when it is called as one.
func TestMain(m *testing.M) {
	if code, is := keeper.Main(os.Args); is {
		os.Exit(code) // a FUSE server of one of our mounts
	}
	if os.Args[0] == waiterName {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	for _, n := range helperNames {
		if filepath.Base(os.Args[0]) == n {
			main()
		}
	}
	os.Exit(m.Run())
}

// installHelpers puts the helper where mount(8) looks for it, for this test's
// mount namespace alone.
func installHelpers(t *testing.T) {
	t.Helper()
	needMounts(t)
	testenv.Need(t, "umount")
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	for _, n := range helperNames {
		must(t, os.Symlink(self, filepath.Join(dir, n)))
	}
	must(t, unix.Mount("overlay", "/sbin", "overlay", 0, "lowerdir="+dir+":/sbin"))
}

// tool runs mount or umount and returns exit code and what it printed.
func tool(t *testing.T, name string, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// TestMount8 goes through mount(8) and umount(8).
func TestMount8(t *testing.T) {
	installHelpers(t)
	f := newFixture(t)
	store, objects := "store="+f.dir, "basedir="+filepath.Join(f.dir, "objects")
	for _, args := range [][]string{
		{"-t", "flatroot", "os:1", "DIR", "-o", store},
		{"-o", store, "-t", "flatroot", "os:1", "DIR"},
		{"-t", "flatroot", "-o", "ro,nodev", "-o", store, f.digest.String(), "DIR"},
		{"-t", "flatroot.sub", "-s", "-n", "-v", "os:1", "DIR", "-o", "nosuchoption," + store},
		{"-N", "/proc/self/ns/mnt", "-t", "flatroot", "os:1", "DIR", "-o", store},
		{"-t", "flatroot", "-o", "defaults,noatime,_netdev,nofail,x-y.z,X-mount.mkdir,user,private," + store, "os:1", "DIR"},
		{"-t", "flatroot", f.image, "DIR", "-o", "digest=" + f.digest.String() + "," + objects},
		{"-t", "flatroot", "os:1", "DIR", "-o", store + ",mode=native"},
		{"-t", "flatroot", "os:1", "DIR", "-o", store + ",mode=hybrid,nodev"},
		{"-t", "flatroot", "os:1", "DIR", "-o", store + ",mode=fuse,verity"},
		{"-t", "composefs", f.image, "DIR", "-o", objects},
		{"-t", "composefs", "os:1", "DIR", "-o", store + ",tryverity"},
	} {
		args[indexOf(args, "DIR")] = f.target
		if code, out := tool(t, "mount", args...); code != 0 {
			t.Errorf("mount %q: exit %d: %s", args, code, out)
			continue
		}
		f.check(t, strings.Join(args, " "))
		if code, out := tool(t, "umount", f.target); code != 0 || out != "" {
			t.Errorf("umount: exit %d: %s", code, out)
		}
		nothingMounted(t, f.target)
	}
}

// TestMount8Fails: mount(8) hands on the helper's exit code and its line.
func TestMount8Fails(t *testing.T) {
	installHelpers(t)
	f := newFixture(t)
	store := "store=" + f.dir
	for _, row := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"-t", "flatroot", "os:9", f.target, "-o", store}, 32, "no image named os:9"},
		{[]string{"-t", "flatroot", "os:1", f.target, "-o", store + ",verty"}, 1, "did you mean verity?"},
		{[]string{"-t", "flatroot", "os:1", f.target, "-o", store + ",remount"}, 1, "unmount and mount again"},
		{[]string{"-t", "flatroot", "os:1", f.target + "/none", "-o", store}, 32, "bad mount point"},
		{[]string{"-t", "composefs", f.image, f.target}, 1, "option basedir is needed"},
	} {
		code, out := tool(t, "mount", row.args...)
		if code != row.code || !strings.Contains(out, row.text) || strings.Count(out, "\n") != 1 {
			t.Errorf("mount %q: exit %d, want %d with %q: %s", row.args, code, row.code, row.text, out)
		}
	}
	code, out := tool(t, "mount", "-fv", "-t", "flatroot", "os:1", f.target, "-o", store)
	if code != 0 || !strings.Contains(out, "mode ") {
		t.Errorf("mount -fv: exit %d: %s", code, out)
	}
	nothingMounted(t, f.target)
}

// TestFstab has mount(8) read lines of fstab.
func TestFstab(t *testing.T) {
	installHelpers(t)
	f := newFixture(t)
	second, third := t.TempDir(), t.TempDir()
	table := filepath.Join(t.TempDir(), "fstab")
	must(t, os.WriteFile(table, fmt.Appendf(nil, `# comment
os:1 %[1]s flatroot ro,nofail,x-systemd.requires=local-fs.target,store=%[4]s 0 0
dump %[2]s flatroot rw,nosuid,user,exec,_netdev,comment=x,store=%[4]s 0 0
os:9 %[3]s flatroot noauto,store=%[4]s 0 0
`, f.target, second, third, f.dir), 0o600))
	if code, out := tool(t, "mount", "-a", "-T", table); code != 0 {
		t.Fatalf("mount -a: exit %d: %s", code, out)
	}
	f.check(t, "first line")
	list, err := mount.List()
	must(t, err)
	list = slices.DeleteFunc(list, func(m mount.Mount) bool { return m.Target != f.target && m.Target != second }) // other tests'
	if len(list) != 2 || list[1].Target != second || !list[1].NoSuid || !list[1].NoDev || list[1].NoExec {
		t.Errorf("mounted: %+v", list)
	}
	if code, out := tool(t, "mount", "-T", table, third); code != 32 || !strings.Contains(out, "no image named os:9") {
		t.Errorf("third line: exit %d: %s", code, out)
	}
	if code, out := tool(t, "umount", "-l", f.target, second); code != 0 {
		t.Errorf("umount: exit %d: %s", code, out)
	}
	nothingMounted(t, f.target)
}

// TestUmountHelper calls the helper as umount(8) would.
func TestUmountHelper(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	t.Chdir(filepath.Dir(f.target))
	for _, args := range [][]string{
		{"umount.flatroot", f.target},
		{"umount.flatroot", filepath.Base(f.target), "-N", "/proc/thread-self/ns/mnt"},
		{"/sbin/umount.fuse.flatroot", f.target, "-n", "-v", "-t", "fuse.flatroot"},
		{"umount.flatroot", "-lf", f.target},
		{"umount.flatroot", f.target, "-N", "/proc/thread-self/ns/mnt"},
	} {
		code, _, stderr := call("mount.flatroot", "os:1", filepath.Base(f.target), "-N", "/proc/thread-self/ns/mnt", "-o", "ro,tryverity,store="+f.dir)
		if code != 0 {
			t.Fatal(stderr)
		}
		if err := unix.Chdir(filepath.Dir(f.target)); err != nil { // this thread's is the root now
			t.Fatal(err)
		}
		if code, stdout, stderr := call(args[0], args[1:]...); code != 0 || stdout+stderr != "" {
			t.Errorf("%q: exit %d: %s%s", args, code, stdout, stderr)
		}
		must(t, unix.Chdir(filepath.Dir(f.target)))
		nothingMounted(t, f.target)
	}
	code, _, stderr := call("umount.flatroot", f.target)
	if code != exitFailed || !strings.Contains(stderr, "umount.flatroot: unmount "+f.target+": not mounted\n") {
		t.Errorf("not mounted: exit %d: %s", code, stderr)
	}
	if code, stdout, _ := call("umount.flatroot", "--help"); code != 0 || !strings.HasPrefix(stdout, "usage: umount.flatroot DIR") {
		t.Errorf("help: exit %d: %s", code, stdout)
	}
}
