package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// AsProgramEnv makes the test binary do what fusermount3 does, as far as our use
// of it goes, or another program that tests start.
const AsProgramEnv = "FLATROOT_TEST_AS_PROGRAM"

// QuickExit is for the environment of such programs: with the race detector they
// would sleep a second before they end.
const QuickExit = "GORACE=atexit_sleep_ms=0"

// ActAs does what a test started this binary for, if one did; TestMain calls it.
func ActAs(how string, args []string) {
	if err := actAsProgram(how, args); err != nil {
		fmt.Fprintf(os.Stderr, "fusermount3: %v\nand a second line\n", err)
		os.Exit(1)
	}
}

func actAsProgram(how string, args []string) error {
	switch {
	case how == "waiter": // not that program, but one that does nothing
		time.Sleep(time.Minute)
		return nil
	case how == "refuses":
		return errors.New("user has no write access to mountpoint")
	case how == "sends nothing":
		return nil
	case len(args) == 4 && args[0] == "-u" && args[1] == "-z" && args[2] == "--":
		return unix.Unmount(args[3], unix.MNT_DETACH)
	case len(args) == 3 && args[0] == "-u" && args[1] == "--":
		return unix.Unmount(args[2], 0)
	case len(args) == 4 && args[0] == "-o" && args[2] == "--":
		return mountAndSend(args[1], args[3])
	}
	return fmt.Errorf("called with %q", args)
}

func mountAndSend(options, target string) error {
	dev, err := openFUSE(0)
	if err != nil {
		return err
	}
	source, data := "", []string{fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd())}
	flags := map[string]uintptr{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}
	var bits uintptr
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case flags[o] != 0:
			bits |= flags[o]
		case name == "fsname":
			source = value
		case name == "subtype" && value == fuseSubtype:
		case name == "default_permissions", name == "max_read", name == "allow_other":
			data = append(data, o)
		default:
			return fmt.Errorf("unknown option %s", o)
		}
	}
	if err := unix.Mount(source, target, fuseType, bits, strings.Join(data, ",")); err != nil {
		return err
	}
	if os.Getenv("_FUSE_COMMFD") != "3" {
		return errors.New("no _FUSE_COMMFD")
	}
	return unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(dev.Fd())), nil, 0)
}

// fusermountPlanOf is the plan of somebody who may not mount, though we may.
func fusermountPlanOf(t *testing.T, r Request) *Plan {
	t.Helper()
	f, err := Probe(r)
	must(t, err)
	f.Privileged, f.Namespaced, f.Fusermount = false, false, "/proc/self/exe"
	p, err := NewPlan(r, f)
	must(t, err)
	return p
}

func TestFusermount(t *testing.T) {
	needFUSE(t)
	t.Setenv(AsProgramEnv, "well")
	s := newSample(t, tmpfs(t), false)
	before := snapshot(t)
	for _, allow := range []bool{false, true} {
		r := s.request(t, t.TempDir())
		r.NoExec, r.AllowOther = true, allow
		server := serveStandIn(t, &r)
		p := fusermountPlanOf(t, r)
		must(t, p.Do(context.Background()))
		list, err := List()
		must(t, err)
		m := find(list, r.Target)
		if m == nil || m.Mode != ModeFUSE || m.Digest != s.digest || !m.Verification.Full() || !m.ReadOnly || !m.NoSuid || !m.NoDev || !m.NoExec {
			t.Errorf("listed as %+v", m)
		}
		b, err := os.ReadFile(mountinfoPath)
		must(t, err)
		_, own, _ := strings.Cut(string(b), " "+r.Target+" ") // this mount's line, which is the last
		if got := strings.Contains(own, "allow_other"); got != allow {
			t.Errorf("allow_other: %v, want %v", got, allow)
		}
		must(t, fusermountUnmount("/proc/self/exe", r.Target, false))
		server.running.Wait()
		if _, err := p.Detach(context.Background()); err == nil || !strings.Contains(err.Error(), "detached") {
			t.Errorf("detach: %v", err)
		}
		r.Image.Close()
		closeAll(r.Objects)
	}
	before.same(t)
}

// TestFusermountFails: what it says is told, and nothing is left.
func TestFusermountFails(t *testing.T) {
	needFUSE(t)
	s := newSample(t, tmpfs(t), false)
	for how, text := range map[string]string{
		"refuses": "no write access to mountpoint; and a second line", "sends nothing": "receive device", "well": "start FUSE server: no",
	} {
		t.Setenv(AsProgramEnv, how)
		r := s.request(t, t.TempDir())
		r.Start = func(context.Context, Serving) error { return errors.New("no") }
		p := fusermountPlanOf(t, r)
		before := snapshot(t)
		if err := p.Do(context.Background()); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", how, err)
		}
		before.same(t)
	}
}

func TestFindFusermount(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fusermount3")
	must(t, os.WriteFile(path, nil, 0o755))
	t.Setenv("PATH", dir)
	if got := findFusermount(); got != path {
		t.Errorf("found %q", got)
	}
}
