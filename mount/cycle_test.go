package mount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// state is what a mount could leave behind.
type state struct {
	fds    int
	mounts int
	loops  int // of memory files and files below the test's directories
}

func snapshot(t *testing.T) state {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	b, err := os.ReadFile(mountinfoPath)
	must(t, err)
	return state{len(fds), strings.Count(string(b), "\n"), loops(t)}
}

func loops(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f) // gone again: not ours to count
		if err == nil && (strings.HasPrefix(string(b), "/memfd:flatroot-image") || strings.HasPrefix(string(b), os.TempDir())) {
			n++
		}
	}
	return n
}

// same fails if there is more than there was. The kernel ends file systems and
// loop devices a moment after the last close, and tests of other packages may
// have theirs, so it is given time.
func (s state) same(t *testing.T) {
	t.Helper()
	var now state
	for range 100 {
		now = snapshot(t)
		if now.fds <= s.fds && now.mounts <= s.mounts && now.loops <= s.loops {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("before %+v, now %+v", s, now)
}

// TestCycles mounts and unmounts 100 times, in all forms, with loop devices.
func TestCycles(t *testing.T) {
	needMounts(t)
	onDisk, onTmpfs := newSample(t, t.TempDir(), false), newSample(t, tmpfs(t), false)
	target := t.TempDir()
	requests := []Request{onDisk.request(t, target), onTmpfs.request(t, target), onTmpfs.request(t, target)}
	requests[2].ExpectDigest = fsverity.Digest{} // the file itself, through a loop device
	before := snapshot(t)
	for i := range 100 {
		r := requests[i%len(requests)]
		p := plan(t, r)
		forms := p.overlay().Forms
		p.overlay().Forms = forms[i%len(forms):]
		must(t, p.Do(context.Background()))
		if _, err := os.Stat(filepath.Join(target, "inline")); err != nil {
			t.Fatal(err)
		}
		must(t, Unmount(target, UnmountOptions{}))
	}
	before.same(t)
	noPrivateDirs(t)
}

// TestServedCycles is the same for mounts with a server, which must end each time.
func TestServedCycles(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	requests := []Request{s.request(t, t.TempDir()), s.request(t, t.TempDir()), s.request(t, t.TempDir())}
	requests[0].Mode, requests[1].Mode = ModeFUSE, ModeHybrid
	requests[2].Mode, requests[2].Transient = ModeHybrid, true
	before := snapshot(t)
	for i := range 60 {
		r := requests[i%len(requests)]
		server := serveStandIn(t, &r)
		p := plan(t, r)
		if r.Mode == ModeHybrid {
			forms := p.overlay().Forms
			p.overlay().Forms = forms[i%len(forms):]
		}
		must(t, p.Do(context.Background()))
		if _, err := os.ReadDir(r.Target); err != nil {
			t.Fatal(err)
		}
		must(t, Unmount(r.Target, UnmountOptions{}))
		server.running.Wait()
	}
	before.same(t)
	noPrivateDirs(t)
}

func TestUnmount(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	target := t.TempDir()
	if err := Unmount(target, UnmountOptions{}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("nothing mounted: %v", err)
	}
	if err := Unmount(filepath.Join(target, "none"), UnmountOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
	r := s.request(t, target)
	mounted(t, r, plan(t, r))
	must(t, unix.Mount("tmpfs", target, "tmpfs", 0, ""))
	if err := Unmount(target, UnmountOptions{}); !errors.Is(err, ErrNotOurs) {
		t.Errorf("tmpfs on top: %v", err)
	}
	must(t, Unmount(target, UnmountOptions{Force: true}))

	busy, err := os.Open(filepath.Join(target, "inline"))
	must(t, err)
	if err := Unmount(target, UnmountOptions{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("busy: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(target, link))
	must(t, Unmount(link, UnmountOptions{Lazy: true}))
	busy.Close()
	if err := Unmount(target, UnmountOptions{}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("unmounted: %v", err)
	}
}
