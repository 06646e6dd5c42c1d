package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// layers opens the directories of a writable layer below dir for the test's time.
func layers(t *testing.T, dir string, r *Request) {
	t.Helper()
	for name, to := range map[string]**os.File{"upper": &r.Upper, "work": &r.Work} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(path, 0o755))
		f, err := os.Open(path)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		*to = f
	}
}

// allForms gives the plan each way of telling layers that it has.
func allForms(t *testing.T, r Request, test func(p *Plan)) {
	t.Helper()
	for _, form := range plan(t, r).overlay().Forms {
		p := plan(t, r)
		p.overlay().Forms = []LayerForm{form}
		if err := p.Do(context.Background()); err != nil {
			t.Errorf("layers by %s: %v", form, err)
			continue
		}
		test(p)
		must(t, Unmount(r.Target, UnmountOptions{}))
	}
}

// TestUpper writes to a layer on disk and finds it there, also through the next mount.
func TestUpper(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	layers(t, t.TempDir(), &r)
	before := snapshot(t)
	mounts := 0
	allForms(t, r, func(p *Plan) {
		file := filepath.Join(r.Target, "sub/new")
		if _, err := os.Stat(file); (err == nil) != (mounts > 0) {
			t.Errorf("mount %d: what was written is there: %v", mounts, err == nil)
		}
		mounts++
		must(t, os.WriteFile(file, []byte("x"), 0o644))
		must(t, os.Chmod(filepath.Join(r.Target, "big"), 0o600)) // metadata alone is copied up
		b, err := os.ReadFile(filepath.Join(r.Target, "big"))
		if err != nil || len(b) != len(bigContent) {
			t.Errorf("big: %d bytes, %v", len(b), err)
		}
		if err := os.Rename(filepath.Join(r.Target, "sub"), filepath.Join(r.Target, "dir")); err != nil {
			t.Errorf("rename directory: %v", err)
		}
		must(t, os.Rename(filepath.Join(r.Target, "dir"), filepath.Join(r.Target, "sub")))
		list, err := List()
		must(t, err)
		if m := find(list, r.Target); m == nil || m.ReadOnly {
			t.Errorf("listed as %+v", m)
		}
	})
	if b, err := os.ReadFile(filepath.Join(r.Upper.Name(), "sub/new")); err != nil || string(b) != "x" {
		t.Errorf("upper directory has %q, %v", b, err)
	}
	before.same(t)
	noPrivateDirs(t)
}

// TestUpperElsewhere: overlayfs wants both directories on one mount.
func TestUpperElsewhere(t *testing.T) {
	needMounts(t)
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	dir := t.TempDir()
	layers(t, dir, &r)
	must(t, unix.Mount("tmpfs", r.Work.Name(), "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(r.Work.Name(), unix.MNT_DETACH) })
	other, err := os.Open(r.Work.Name())
	must(t, err)
	defer other.Close()
	r.Work = other
	f, err := Probe(r)
	must(t, err)
	if _, err := NewPlan(r, f); !errors.Is(err, ErrRefused) {
		t.Errorf("work directory on another file system: %v", err)
	}
}

// TestReadOnlyUpper shows what the layer has, and takes nothing.
func TestReadOnlyUpper(t *testing.T) {
	needMounts(t)
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	layers(t, t.TempDir(), &r)
	must(t, os.WriteFile(filepath.Join(r.Upper.Name(), "changed"), nil, 0o644))
	r.ReadOnly = true
	mounted(t, r, plan(t, r))
	if _, err := os.Stat(filepath.Join(r.Target, "changed")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(r.Target, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
}

// TestTransient writes to memory, which the next mount knows nothing of.
func TestTransient(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	r.Transient = true
	before := snapshot(t)
	allForms(t, r, func(*Plan) {
		st, err := os.Stat(r.Target)
		if err != nil || st.Mode() != fs.ModeDir|0o755 || st.ModTime().Unix() != 0 {
			t.Errorf("root is %v of %v, %v", st.Mode(), st.ModTime(), err)
		}
		if names, err := os.ReadDir(r.Target); err != nil || len(names) != 4 {
			t.Errorf("root has %d entries, %v", len(names), err)
		}
		must(t, os.WriteFile(filepath.Join(r.Target, "new"), []byte("x"), 0o644))
		must(t, os.Remove(filepath.Join(r.Target, "inline")))
	})
	before.same(t)
	noPrivateDirs(t)
}

// TestTransientRoot: the root's owner, mode, time and xattrs show through the
// writable layer.
func TestTransientRoot(t *testing.T) {
	needMounts(t)
	lower, upper := tmpfs(t), tmpfs(t)
	must(t, os.Chown(lower, 7, 8))
	must(t, unix.Chmod(lower, 0o1750))
	for name, value := range map[string]string{"security.flatroot": "a", "trusted.overlay.opaque": "y", "trusted.flatroot": "b"} {
		must(t, unix.Lsetxattr(lower, name, []byte(value), 0))
	}
	when := unix.Timespec{Sec: 7, Nsec: 9}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, lower, []unix.Timespec{when, when}, 0))
	from, err := os.OpenFile(lower, unix.O_PATH, 0)
	must(t, err)
	defer from.Close()
	to, err := os.Open(upper)
	must(t, err)
	defer to.Close()
	must(t, copyRoot(to, from))
	var st unix.Stat_t
	must(t, unix.Stat(upper, &st))
	if st.Uid != 7 || st.Gid != 8 || st.Mode != unix.S_IFDIR|0o1750 || st.Mtim != when {
		t.Errorf("root has %+v", st)
	}
	buf := make([]byte, 256)
	n, err := unix.Llistxattr(upper, buf)
	must(t, err)
	for _, name := range []string{"security.flatroot", "trusted.flatroot"} {
		if !strings.Contains(string(buf[:n]), name) {
			t.Errorf("xattrs %q lack %s", buf[:n], name)
		}
	}
	if strings.Contains(string(buf[:n]), "overlay") {
		t.Errorf("xattrs %q have overlayfs's own", buf[:n])
	}
}

// userNamespace is one that shows the host's ids 0 to 999 as those from base on,
// held open for the test's time by a process that waits in it.
func userNamespace(t *testing.T, base int) *os.File {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), AsProgramEnv+"=waiter", QuickExit)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 1000}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "ns/user"))
	must(t, err)
	must(t, c.Process.Kill())
	c.Wait()
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestIDMap shows owners through a user namespace.
func TestIDMap(t *testing.T) {
	needMounts(t)
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	r.IDMap = userNamespace(t, 100000)
	before := snapshot(t)
	allForms(t, r, func(p *Plan) {
		for _, name := range []string{"big", "inline", "sub", "."} {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(r.Target, name), &st))
			if st.Uid != 100000 || st.Gid != 100000 {
				t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
			}
		}
		checkSample(t, r.Target)
	})
	before.same(t)

	r.Transient = true
	mounted(t, r, plan(t, r))
	var st unix.Stat_t
	must(t, unix.Lstat(r.Target, &st))
	if st.Uid != 100000 || st.Gid != 100000 {
		t.Errorf("root below a transient layer belongs to %d:%d", st.Uid, st.Gid)
	}
	must(t, Unmount(r.Target, UnmountOptions{}))

	own, err := os.Open("/proc/self/ns/user")
	must(t, err)
	defer own.Close()
	for name, f := range map[string]*os.File{"own namespace": own, "no namespace": r.Image} {
		r.IDMap = f
		before := snapshot(t)
		if err := plan(t, r).Do(context.Background()); err == nil || !strings.Contains(err.Error(), "map owners through") {
			t.Errorf("%s: %v", name, err)
		}
		before.same(t)
	}
}
