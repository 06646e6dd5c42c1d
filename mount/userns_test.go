package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// inNamespaceEnv tells the test binary that it was started in a user namespace.
const inNamespaceEnv = "FLATROOT_TEST_IN_NAMESPACE"

// inUserNamespace runs the rest of the test in a user and mount namespace, as
// root there: it returns true in the process that is in them, and false in the
// one that waited for it.
func inUserNamespace(t *testing.T) bool {
	t.Helper()
	testenv.Need(t, "root", "mount", "overlay", "fuse")
	if os.Getenv(inNamespaceEnv) != "" {
		needMounts(t)
		return true
	}
	c := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), inNamespaceEnv+"=1", QuickExit)
	// Root outside, for /dev/fuse, but with the rights of the namespace alone.
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1000}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL,
	}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the user namespace: %v\n%s", err, out)
	}
	return false
}

func TestProbeInUserNamespace(t *testing.T) {
	if !inUserNamespace(t) {
		return
	}
	before := snapshot(t)
	r := Request{Start: noServer}
	f, err := Probe(r)
	must(t, err)
	before.same(t)
	if f.Privileged || !f.Namespaced || !f.FUSE {
		t.Errorf("probed %+v", f)
	}
	for _, g := range Ladder(r, f) {
		want := g.Name == "fuse" || g.Name == "hybrid-userns" && f.UserOverlay
		if g.OK != want {
			t.Errorf("%s: %v, %v", g.Name, g.OK, g.Reason)
		}
	}
	if _, err := NewPlan(Request{Mode: ModeNative}, f); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("native: %v", err)
	}
}

// TestServedInUserNamespace makes hybrid and FUSE mounts, with all that can be on
// top of them.
func TestServedInUserNamespace(t *testing.T) {
	if !inUserNamespace(t) {
		return
	}
	s := newSample(t, tmpfs(t), false)
	for _, c := range []struct {
		name   string
		change func(*Request)
		write  bool
	}{
		{"fuse", func(r *Request) { r.Mode = ModeFUSE }, false},
		{"hybrid", func(r *Request) { r.Mode = ModeHybrid }, false},
		{"hybrid, transient", func(r *Request) { r.Mode, r.Transient = ModeHybrid, true }, true},
		{"hybrid, upper", func(r *Request) { r.Mode = ModeHybrid; layers(t, tmpfs(t), r) }, true},
	} {
		r := s.request(t, t.TempDir())
		c.change(&r)
		server := serveStandIn(t, &r)
		f, err := Probe(r)
		must(t, err)
		if r.Mode == ModeHybrid && !f.UserOverlay {
			continue // TestProbeInUserNamespace has seen that this is so
		}
		p, err := NewPlan(r, f)
		must(t, err)
		before := snapshot(t)
		must(t, p.Do(context.Background()))
		if err := os.WriteFile(filepath.Join(r.Target, "new"), nil, 0o644); (err == nil) != c.write {
			t.Errorf("%s: write: %v", c.name, err)
		}
		st, err := os.Stat(r.Target)
		must(t, err)
		if st.Mode().Perm() != 0o750 && r.Upper == nil {
			t.Errorf("%s: root is %v", c.name, st.Mode())
		}
		must(t, Unmount(r.Target, UnmountOptions{}))
		server.running.Wait()
		before.same(t)
	}
	noPrivateDirs(t)
}

// TestServedIDMap maps owners of mounts that a server answers for.
func TestServedIDMap(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	ns := userNamespace(t, 100000)
	for _, mode := range []Mode{ModeHybrid, ModeFUSE} {
		r := s.request(t, t.TempDir())
		r.Mode, r.IDMap = mode, ns
		server := serveStandIn(t, &r)
		f, err := Probe(r)
		must(t, err)
		p, err := NewPlan(r, f)
		if !f.FUSEIDMap {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v on a kernel without", mode, err)
			}
			continue
		}
		must(t, err)
		must(t, p.Do(context.Background()))
		var st unix.Stat_t
		must(t, unix.Stat(r.Target, &st))
		if st.Uid != 100007 || st.Gid != 100008 {
			t.Errorf("%s: root belongs to %d:%d", mode, st.Uid, st.Gid)
		}
		must(t, Unmount(r.Target, UnmountOptions{}))
		server.running.Wait()
	}
}
