package mount_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/tests/testenv"
)

// asServer as the value of AsProgramEnv makes the test binary a server: it would
// be held up by whoever waits for it in the same process (GOMAXPROCS may be 1).
const asServer = "server"

// serviceEnv has the service then, as JSON. Descriptor 3 is the device, 4 the
// image, 5 where to say how the start went; object directories follow.
const serviceEnv = "FLATROOT_TEST_SERVICE"

func TestMain(m *testing.M) {
	switch how := os.Getenv(mount.AsProgramEnv); how {
	case "":
		os.Exit(m.Run())
	case asServer:
		if err := actAsServer(); err != nil {
			os.Exit(1)
		}
	default:
		mount.ActAs(how, os.Args[1:])
	}
}

func actAsServer() error {
	var v mount.Serving
	if err := json.Unmarshal([]byte(os.Getenv(serviceEnv)), &v.Service); err != nil {
		return err
	}
	v.Device, v.Image = os.NewFile(3, "device"), os.NewFile(4, "image")
	said := os.NewFile(5, "said")
	for fd := uintptr(6); ; fd++ {
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
			break
		}
		v.Objects = append(v.Objects, os.NewFile(fd, "objects"))
	}
	server, err := fuse.NewServer(v, fuse.Options{})
	if err == nil {
		_, err = server.Init(v.Device)
	}
	if err != nil {
		fmt.Fprint(said, err)
		return err
	}
	said.Close()
	return server.Serve([]*os.File{v.Device})
}

// servers starts servers and waits for their end.
type servers struct{ running sync.WaitGroup }

func (s *servers) start(_ context.Context, v mount.Serving) error {
	service, err := json.Marshal(v.Service)
	if err != nil {
		return err
	}
	said, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), mount.AsProgramEnv+"="+asServer, serviceEnv+"="+string(service), mount.QuickExit)
	c.ExtraFiles = append([]*os.File{v.Device, v.Image, say}, v.Objects...)
	// A test that fails before it has unmounted ends its thread, which started
	// this process; nothing keeps the test's mount namespace then.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = errors.Join(c.Start(), say.Close())
	if err != nil {
		return err
	}
	s.running.Go(func() { c.Wait() })
	text, err := io.ReadAll(said)
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	return err
}

// serve gives r servers. They must have ended with the test.
func serve(t *testing.T, r *mount.Request) *servers {
	t.Helper()
	s := &servers{}
	r.Start = s.start
	t.Cleanup(func() {
		unix.Unmount(r.Target, unix.MNT_DETACH) // if the test hasn't
		s.running.Wait()
	})
	return s
}

func planOf(t *testing.T, r mount.Request) *mount.Plan {
	t.Helper()
	f, err := mount.Probe(r)
	mount.Must(t, err)
	p, err := mount.NewPlan(r, f)
	mount.Must(t, err)
	return p
}

func unmount(t *testing.T, r mount.Request, s *servers) {
	t.Helper()
	mount.Must(t, mount.Unmount(r.Target, mount.UnmountOptions{}))
	s.running.Wait()
}

// TestServedTree reads the same tree through hybrid and FUSE mounts as through
// native ones, from disk and from tmpfs, and leaves nothing behind.
func TestServedTree(t *testing.T) {
	mount.NeedFUSE(t)
	for place, dir := range map[string]string{"disk": t.TempDir(), "tmpfs": mount.Tmpfs(t)} {
		before := mount.Snapshot(t)
		for _, mode := range []mount.Mode{mount.ModeHybrid, mount.ModeFUSE} {
			for _, limit := range []int64{0, 1} { // sealed; block by block
				r, _ := mount.NewSample(t, filepath.Join(dir, string(mode), map[int64]string{0: "sealed", 1: "blocks"}[limit]), t.TempDir())
				r.Mode, r.SealLimit = mode, limit
				s := serve(t, &r)
				p := planOf(t, r)
				if err := p.Do(t.Context()); err != nil {
					t.Errorf("%s, %s: %v\n%s", place, mode, err, p)
					continue
				}
				mount.CheckSample(t, r.Target)
				unmount(t, r, s)
				mount.CloseFiles(r)
			}
		}
		before.Same(t)
	}
}

// TestServedForms gives overlayfs the FUSE mount in each way that it takes.
func TestServedForms(t *testing.T) {
	mount.NeedFUSE(t)
	r, _ := mount.NewSample(t, mount.Tmpfs(t), t.TempDir())
	r.Mode = mount.ModeHybrid
	s := serve(t, &r)
	for _, f := range mount.FormsOf(planOf(t, r)) {
		p := planOf(t, r)
		mount.OneForm(p, f)
		mount.Must(t, p.Do(t.Context()))
		mount.CheckSample(t, r.Target)
		unmount(t, r, s)
	}
}

// TestRequireWithoutVerity: where the kernel can't check, a server does, and
// hands out nothing that was changed.
func TestRequireWithoutVerity(t *testing.T) {
	mount.NeedFUSE(t)
	r, object := mount.NewSample(t, mount.Tmpfs(t), t.TempDir())
	r.Verity = mount.Require
	s := serve(t, &r)
	p := planOf(t, r)
	if p.Mode != mount.ModeFUSE || !p.Verification.Full() {
		t.Fatalf("plan:\n%s", p)
	}
	mount.Must(t, p.Do(t.Context()))
	mount.CheckSample(t, r.Target)
	unmount(t, r, s)

	content, err := os.ReadFile(object)
	mount.Must(t, err)
	content[len(content)-1] ^= 1
	mount.Must(t, os.WriteFile(object, content, 0o644))
	mount.Must(t, planOf(t, r).Do(t.Context()))
	if b, err := os.ReadFile(filepath.Join(r.Target, "big")); !errors.Is(err, unix.EIO) {
		t.Errorf("one bit flipped: %d bytes, %v", len(b), err)
	}
	unmount(t, r, s)
}

// writeThrough changes the tree on r.Target and reads it back.
func writeThrough(t *testing.T, r mount.Request) {
	t.Helper()
	mount.CheckContent(t, r.Target)
	big := filepath.Join(r.Target, "big")
	before, err := os.ReadFile(big)
	mount.Must(t, err)
	f, err := os.OpenFile(big, os.O_WRONLY|os.O_APPEND, 0)
	mount.Must(t, err)
	_, err = f.WriteString("more")
	mount.Must(t, errors.Join(err, f.Close()))
	if after, err := os.ReadFile(big); err != nil || !bytes.Equal(after, append(before, "more"...)) {
		t.Errorf("appended: %d bytes, %v", len(after), err)
	}
	mount.Must(t, os.WriteFile(filepath.Join(r.Target, "sub/new"), []byte("x"), 0o644))
	mount.Must(t, os.Remove(filepath.Join(r.Target, "inline")))
	if _, err := os.Stat(filepath.Join(r.Target, "inline")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

// TestServedWritable puts writable layers on hybrid mounts.
func TestServedWritable(t *testing.T) {
	mount.NeedFUSE(t)
	for name, change := range writableLayers(t) {
		r, _ := mount.NewSample(t, t.TempDir(), t.TempDir())
		r.Mode = mount.ModeHybrid
		change(&r)
		s := serve(t, &r)
		before := mount.Snapshot(t)
		if err := planOf(t, r).Do(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		writeThrough(t, r)
		unmount(t, r, s)
		before.Same(t)
	}
}

func writableLayers(t *testing.T) map[string]func(*mount.Request) {
	return map[string]func(*mount.Request){
		"transient": func(r *mount.Request) { r.Transient = true },
		"upper":     func(r *mount.Request) { mount.Layers(t, mount.Tmpfs(t), r) },
	}
}

// TestServedInNamespace does all of it in a user namespace.
func TestServedInNamespace(t *testing.T) {
	if !mount.InUserNamespace(t) {
		return
	}
	dir := mount.Tmpfs(t)
	r, _ := mount.NewSample(t, dir, t.TempDir())
	s := serve(t, &r)
	f, err := mount.Probe(r)
	mount.Must(t, err)
	modes := []mount.Mode{mount.ModeAuto, mount.ModeFUSE}
	if f.UserOverlay {
		modes = append(modes, mount.ModeHybrid)
	}
	for _, r.Mode = range modes {
		mount.Must(t, planOf(t, r).Do(t.Context()))
		mount.CheckSample(t, r.Target)
		unmount(t, r, s)
	}
	if !f.UserOverlay {
		return
	}
	for _, change := range writableLayers(t) {
		w := r
		change(&w)
		mount.Must(t, planOf(t, w).Do(t.Context()))
		writeThrough(t, w)
		unmount(t, w, s)
	}
}

// TestServedOwners maps the owners of all files, in hybrid and FUSE mounts.
func TestServedOwners(t *testing.T) {
	mount.NeedFUSE(t)
	r, _ := mount.NewSample(t, mount.Tmpfs(t), t.TempDir())
	r.IDMap = mount.UserNamespace(t, 100000)
	s := serve(t, &r)
	for _, r.Mode = range []mount.Mode{mount.ModeHybrid, mount.ModeFUSE} {
		mount.Must(t, planOf(t, r).Do(t.Context()))
		mount.CheckSample(t, r.Target)
		for _, name := range []string{".", "big", "inline", "link", "sub", "sub/tool"} {
			var st unix.Stat_t
			mount.Must(t, unix.Lstat(filepath.Join(r.Target, name), &st))
			if st.Uid != 100000 || st.Gid != 100000 {
				t.Errorf("%s: %s belongs to %d:%d", r.Mode, name, st.Uid, st.Gid)
			}
		}
		unmount(t, r, s)
	}
}

// TestServedMissing: what isn't there is told before the mount.
func TestServedMissing(t *testing.T) {
	mount.NeedFUSE(t)
	r, object := mount.NewSample(t, mount.Tmpfs(t), t.TempDir())
	r.Check = true
	s := serve(t, &r)
	for _, r.Mode = range []mount.Mode{mount.ModeHybrid, mount.ModeFUSE} {
		mount.Must(t, planOf(t, r).Do(t.Context()))
		unmount(t, r, s)
	}
	mount.Must(t, os.Remove(object))
	for _, r.Mode = range []mount.Mode{mount.ModeHybrid, mount.ModeFUSE} {
		before := mount.Snapshot(t)
		var m *mount.MissingError
		if err := planOf(t, r).Do(t.Context()); !errors.As(err, &m) || m.Missing[0].File != "/big" {
			t.Errorf("%s: %v", r.Mode, err)
		}
		before.Same(t)
	}
}

// TestPassthrough has the kernel read what the server opened.
func TestPassthrough(t *testing.T) {
	mount.NeedFUSE(t)
	r, _ := mount.NewSample(t, t.TempDir(), t.TempDir())
	r.Mode, r.Passthrough = mount.ModeFUSE, true
	s := serve(t, &r)
	f, err := mount.Probe(r)
	mount.Must(t, err)
	p, err := mount.NewPlan(r, f)
	if !f.FUSEPassthrough {
		if !errors.Is(err, mount.ErrRefused) {
			t.Errorf("on a kernel without: %v", err)
		}
		return
	}
	mount.Must(t, err)
	mount.Must(t, p.Do(t.Context()))
	mount.CheckSample(t, r.Target)
	unmount(t, r, s)
}

// TestHybridRequire: the image's file has no fs-verity, so that a native mount
// can't be had, but the kernel checks the objects.
func TestHybridRequire(t *testing.T) {
	testenv.Need(t, "verity")
	mount.NeedFUSE(t)
	r, object := mount.NewSample(t, t.TempDir(), t.TempDir())
	mount.Enable(t, object)
	checkHybridRequire(t, r, object)
}

func checkHybridRequire(t *testing.T, r mount.Request, object string) {
	t.Helper()
	r.Verity = mount.Require
	s := serve(t, &r)
	p := planOf(t, r)
	if p.Mode != mount.ModeHybrid || p.Verification.Objects != mount.ObjectsKernel || !p.Verification.Full() {
		t.Fatalf("plan:\n%s", p)
	}
	mount.Must(t, p.Do(t.Context()))
	mount.CheckSample(t, r.Target)
	content, err := os.ReadFile(object)
	mount.Must(t, err)
	unmount(t, r, s)

	mount.Must(t, os.Remove(object))
	mount.Must(t, os.WriteFile(object, content, 0o644))
	mount.Must(t, p.Do(t.Context()))
	if b, err := os.ReadFile(filepath.Join(r.Target, "big")); !errors.Is(err, unix.EIO) {
		t.Errorf("object without fs-verity: %d bytes, %v", len(b), err)
	}
	unmount(t, r, s)
}

// TestNamespaceRequire is the same in a user namespace, where the kernel has that.
func TestNamespaceRequire(t *testing.T) {
	testenv.Need(t, "verity")
	if !mount.InUserNamespace(t) {
		return
	}
	r, object := mount.NewSample(t, t.TempDir(), t.TempDir())
	mount.Enable(t, object)
	if f, err := mount.Probe(mount.Request{Start: new(servers).start}); err != nil || !f.UserOverlayVerity {
		t.Logf("this kernel's overlayfs has no verity=require with userxattr: %v", err)
		return
	}
	checkHybridRequire(t, r, object)
}
