package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// TestProbeUnprivileged: without capabilities the kernel can't be asked, and the
// plan says what is missing.
func TestProbeUnprivileged(t *testing.T) {
	runtime.LockOSThread() // never unlocked: capabilities are the thread's
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData // 64 capabilities, in two words
	must(t, unix.Capset(&header, &none[0]))
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	f, err := Probe(r)
	must(t, err)
	if f.Privileged || f.Image.Size == 0 {
		t.Errorf("probed %+v", f)
	}
	if _, err := NewPlan(r, f); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("plan: %v", err)
	}
}

func TestProbeKernel(t *testing.T) {
	needMounts(t)
	before := snapshot(t)
	f, err := Probe(Request{})
	must(t, err)
	if !f.Privileged || f.Namespaced || !f.Erofs || !f.Overlay || !f.Loop || !f.Memfd || f.FUSE {
		t.Errorf("probed %+v", f)
	}
	before.same(t)
}

func TestProbeFUSE(t *testing.T) {
	needFUSE(t)
	before := snapshot(t)
	f, err := Probe(Request{Start: noServer})
	must(t, err)
	if !f.FUSE || !f.FUSEDevice || f.FUSELack != "" {
		t.Errorf("probed %+v", f)
	}
	before.same(t)
}

func TestProbeBadImage(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"is empty": "", "is short": "x", "is text": strings.Repeat("hello\n", 1000), "is zeros": strings.Repeat("\x00", 8192),
	} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o644))
		image, err := OpenImage(path)
		must(t, err)
		if _, err := Probe(Request{Image: image}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		image.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for _, path := range []string{dir, fifo, "/dev/null", filepath.Join(dir, "none")} {
		if f, err := OpenImage(path); err == nil {
			f.Close()
			t.Errorf("%s is opened as an image", path)
		}
	}
	for _, path := range []string{fifo, "/dev/null", filepath.Join(dir, "none")} {
		if d, err := OpenObjects(dir, path); err == nil {
			closeAll(d)
			t.Errorf("%s is opened as a directory", path)
		}
	}
}

// enable switches fs-verity on for a file of the sample.
func enable(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, fsverity.Enable(f, fsverity.SHA256))
}

// TestRequire has the kernel check everything.
func TestRequire(t *testing.T) {
	testenv.Need(t, "verity")
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	enable(t, s.image)
	enable(t, s.object)
	for _, v := range []Policy{Auto, Require, Objects} {
		r := s.request(t, t.TempDir())
		r.Verity = v
		p := plan(t, r)
		if !p.Verification.Full() || p.Verification.Image != ImageKernel {
			t.Fatalf("policy %q: %v", v, p.Verification)
		}
		must(t, p.Do(context.Background()))
		checkSample(t, r.Target)
		must(t, Unmount(r.Target, UnmountOptions{}))
	}
	// An object without fs-verity, though with the right content, must not be read.
	must(t, os.Remove(s.object))
	must(t, os.WriteFile(s.object, bigContent, 0o644))
	r := s.request(t, t.TempDir())
	r.Verity = Require
	mounted(t, r, plan(t, r))
	if _, err := os.ReadFile(filepath.Join(r.Target, "big")); !errors.Is(err, unix.EIO) {
		t.Errorf("object without fs-verity: %v, want EIO", err)
	}
}

// TestRequireRefused: without fs-verity on image or file system there is no plan.
func TestRequireRefused(t *testing.T) {
	needMounts(t)
	s := newSample(t, tmpfs(t), false)
	for _, v := range []Policy{Require, Objects} {
		r := s.request(t, t.TempDir())
		r.Verity = v
		f, err := Probe(r)
		must(t, err)
		if _, err := NewPlan(r, f); !errors.Is(err, ErrRefused) {
			t.Errorf("policy %q: %v", v, err)
		}
	}
}

// TestProbeSample: objects are looked at where another mode can check what the
// kernel can't.
func TestProbeSample(t *testing.T) {
	s := newSample(t, t.TempDir(), false)
	for _, c := range []struct {
		r    Request
		want int
	}{
		{Request{}, 1}, {Request{Verity: Require}, 0}, {Request{Verity: Require, Start: noServer}, 1},
		{Request{Verity: Require, Start: noServer, Mode: ModeNative}, 0},
	} {
		r := s.request(t, "")
		r.Verity, r.Start, r.Mode = c.r.Verity, c.r.Start, c.r.Mode
		f, err := Probe(r)
		must(t, err)
		if f.Sample.Found != c.want {
			t.Errorf("policy %q, mode %q, servers %v: %d objects were looked at", r.Verity, r.Mode, r.Start != nil, f.Sample.Found)
		}
	}
}
