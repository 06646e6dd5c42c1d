package fuse_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/fusetest"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// userNamespace is one in which the user 1000000 and those that follow are 0 and so on.
func userNamespace(t testing.TB) *os.File {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000000, Size: 1000}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// A mount can be idmapped where the kernel can do that with FUSE.
func TestIDMapped(t *testing.T) {
	fusetest.NeedMounts(t)
	r := newRepo(t, "/ 0 40755 2 0 0 0 0.0 - - -\n/f 2 100644 1 5 6 0 0.0 - hi -\n")
	s := fusetest.Mount(t, r.serving(t, mount.ViewPlain), fuse.Options{})
	fd, err := unix.OpenTree(unix.AT_FDCWD, s.Dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	m := os.NewFile(uintptr(fd), "mount")
	defer m.Close()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNamespace(t).Fd())}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr)
	if s.Fuse.Flags&wire.AllowIDMap == 0 {
		if err == nil {
			t.Error("an idmapped mount without FUSE_ALLOW_IDMAP")
		}
		return
	}
	must(t, err)
	dir := t.TempDir()
	must(t, mount.Attach(m, dir))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	var st unix.Stat_t
	must(t, unix.Lstat(dir+"/f", &st))
	if st.Uid != 1000005 || st.Gid != 1000006 {
		t.Errorf("owner %d:%d, want 1000005:1000006", st.Uid, st.Gid)
	}
	if b, err := fusetest.ReadFile(dir + "/f"); err != nil || string(b) != "hi" {
		t.Errorf("%q, %v", b, err)
	}
}
