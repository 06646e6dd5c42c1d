package mounts

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// TestFusermount mounts as a user without any rights and without namespaces.
func TestFusermount(t *testing.T) {
	testenv.Peer(t, "fusermount3")
	needMounts(t)
	before := look(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir+"/..", 0o755))
	img := writeSmall(t, dir, "user")
	m, tr := readImage(t, img)
	for _, mode := range rootlessModes() {
		if !mode.served {
			continue
		}
		cmd := exec.Command("/proc/self/exe", mode.command(img, alicesDirectory(t)).Args...)
		cmd.Env = append(os.Environ(), actVariable+"=walk")
		asAlice(cmd)
		got, err := recordsOf(cmd)
		must(t, err)
		if diff := compareRecords("reader", readerRecords(m, tr, img.objects, mode.differ), mode.name, got); diff != "" {
			t.Error(diff)
		}
	}
	before.same(t, "mounts by fusermount3")
}

func asAlice(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: 100}}
}

func alicesDirectory(t *testing.T) string {
	t.Helper()
	target := t.TempDir()
	must(t, os.Chown(target, alice, 100))
	return target
}

// TestFusermountOthers looks at a user's mount as others: they are kept out, root too, unless allow_other was asked for.
func TestFusermountOthers(t *testing.T) {
	testenv.Peer(t, "fusermount3")
	needMounts(t)
	before := look(t)
	allowOther(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir+"/..", 0o755))
	img := writeSmall(t, dir, "user")
	for option, want := range map[string]error{"ro": unix.EACCES, "allow_other": nil} {
		target := alicesDirectory(t)
		cmd := mode{options: "mode=fuse,verity=off"}.command(img, target, option)
		asAlice(cmd)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, u := range users {
			expected := want
			if u.uid == alice {
				expected = nil
			}
			var err error
			must(t, u.as(func() { err = isSmall(target, "user") }))
			if !errors.Is(err, expected) {
				t.Errorf("%s, %s: %v, want %v", option, u.name, err, expected)
			}
		}
		if err := isSmall(target, "user"); !errors.Is(err, want) {
			t.Errorf("%s, root: %v, want %v", option, err, want)
		}
		must(t, unix.Unmount(target, 0))
	}
	before.mounts++ // allowOther's
	before.same(t, "mounts by fusermount3")
}

// allowOther has fusermount3 allow the option of that name, for the time of the test.
func allowOther(t *testing.T) {
	t.Helper()
	const path = "/etc/fuse.conf"
	b, err := os.ReadFile(path)
	must(t, err)
	file := t.TempDir() + "/fuse.conf"
	must(t, os.WriteFile(file, []byte(strings.TrimRight(string(b), "\n")+"\nuser_allow_other\n"), 0o644))
	must(t, unix.Mount(file, path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
}
