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

	"github.com/flatroot/flatroot/tests/testenv"
)

func needFUSE(t *testing.T) {
	t.Helper()
	testenv.Need(t, "fuse")
	needMounts(t)
}

// TestServedMounts makes hybrid and FUSE mounts with a stand-in for the server,
// attached and detached, and finds them in the list.
func TestServedMounts(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	before := snapshot(t)
	for _, mode := range []Mode{ModeHybrid, ModeFUSE} {
		r := s.request(t, t.TempDir())
		r.Mode, r.NoDev = mode, true
		server := serveStandIn(t, &r)
		p := plan(t, r)
		must(t, p.Do(context.Background()))
		list, err := List()
		must(t, err)
		m := find(list, r.Target)
		if m == nil || m.Mode != mode || m.Digest != s.digest || m.Verification.String() != p.Verification.String() ||
			!m.ReadOnly || !m.NoDev || m.NoSuid {
			t.Errorf("%s: listed as %+v", mode, list)
		}
		if len(server.seen) != 1 || server.seen[0] != *p.Service {
			t.Errorf("%s: server was told %+v, want %+v", mode, server.seen, p.Service)
		}
		st, err := os.Stat(r.Target)
		if err != nil || st.Mode() != os.ModeDir|0o750 {
			t.Errorf("%s: root is %v, %v", mode, st, err)
		}
		must(t, Unmount(r.Target, UnmountOptions{}))
		server.running.Wait()

		d, err := p.Detach(context.Background())
		must(t, err)
		must(t, d.Close())
		server.running.Wait()
		r.Image.Close()
		closeAll(r.Objects)
	}
	before.same(t)
	noPrivateDirs(t)
}

// TestReadAhead: the kernel asks for 1 MiB at a time.
func TestReadAhead(t *testing.T) {
	needFUSE(t)
	r := newSample(t, tmpfs(t), false).request(t, t.TempDir())
	r.Mode = ModeFUSE
	serveStandIn(t, &r)
	mounted(t, r, plan(t, r))
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, r.Target, 0, 0, &st))
	bdi := readAheadFile(st)
	if b, err := os.ReadFile(bdi); err != nil || strings.TrimSpace(string(b)) != readAheadKB {
		t.Errorf("%s: %q, %v", bdi, b, err)
	}
	must(t, Unmount(r.Target, UnmountOptions{}))
}

// TestServerFails: nothing is left, and nobody waits, whatever the server does.
func TestServerFails(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	broken := errors.New("broken")
	var idle *os.File // a server's device that is kept and never read
	for name, start := range map[string]StartFunc{
		"refuses":      func(context.Context, Serving) error { return broken },
		"ends at once": func(context.Context, Serving) error { return nil },
		"answers nothing": func(_ context.Context, v Serving) error {
			fd, err := unix.FcntlInt(v.Device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			idle = os.NewFile(uintptr(fd), "idle")
			return err
		},
	} {
		for _, mode := range []Mode{ModeHybrid, ModeFUSE} {
			before := snapshot(t)
			r := s.request(t, t.TempDir())
			ctx, cancel := context.WithCancel(context.Background())
			r.Mode, r.Start = mode, func(ctx context.Context, v Serving) error {
				time.AfterFunc(answerTime/50, cancel) // from now on: a slow machine takes long to get here
				return start(ctx, v)
			}
			err := plan(t, r).Do(ctx)
			cancel()
			if err == nil || !strings.Contains(err.Error(), "FUSE server") || name == "refuses" && !errors.Is(err, broken) {
				t.Errorf("%s, %s: %v", name, mode, err)
			}
			if idle != nil {
				idle.Close()
				idle = nil
			}
			r.Image.Close()
			closeAll(r.Objects)
			before.same(t)
		}
	}
	noPrivateDirs(t)
}

// TestServedFailures makes each step of hybrid and FUSE plans fail.
func TestServedFailures(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	for _, mode := range []Mode{ModeHybrid, ModeFUSE} {
		r := s.request(t, t.TempDir())
		r.Mode, r.Transient, r.Check = mode, mode == ModeHybrid, true
		steps := len(plan(t, serveAnd(t, r)).Steps)
		for i := range steps - 1 { // the last is to attach, which Do does by the target it has
			before := snapshot(t)
			r := s.request(t, r.Target)
			r.Mode, r.Transient, r.Check = mode, mode == ModeHybrid, true
			server := serveStandIn(t, &r)
			p := plan(t, r)
			p.Steps[i] = broken(p.Steps[i])
			if err := p.Do(context.Background()); err == nil {
				t.Errorf("%s: broken step %d succeeds: %s", mode, i, p)
				Unmount(r.Target, UnmountOptions{})
			}
			server.running.Wait()
			r.Image.Close()
			closeAll(r.Objects)
			before.same(t)
		}
	}
	noPrivateDirs(t)
}

// TestTargetVanishes removes the target while the server starts.
func TestTargetVanishes(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	for _, mode := range []Mode{ModeHybrid, ModeFUSE} {
		r := s.request(t, filepath.Join(t.TempDir(), "target"))
		must(t, os.Mkdir(r.Target, 0o755))
		server := &standIn{}
		r.Mode = mode
		r.Start = func(ctx context.Context, v Serving) error {
			return errors.Join(os.Remove(r.Target), server.start(ctx, v))
		}
		p := plan(t, r)
		before := snapshot(t)
		if err := p.Do(context.Background()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "attach to") {
			t.Errorf("%s: %v", mode, err)
		}
		server.running.Wait()
		before.same(t)
	}
}

func serveAnd(t *testing.T, r Request) Request {
	serveStandIn(t, &r)
	return r
}

// broken is a step that the kernel refuses, or nobody knows.
func broken(s Step) Step {
	if s.Options == nil {
		return Step{Op: s.Op + "?"}
	}
	s.Options = append(s.Options[:len(s.Options):len(s.Options)], Option{"wrong", "1"})
	return s
}
