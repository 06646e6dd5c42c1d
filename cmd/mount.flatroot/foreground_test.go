package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/tests/testenv"
)

// service is the helper in the foreground, with us as its service manager.
type service struct {
	cmd    *exec.Cmd
	notify *net.UnixConn
	stderr bytes.Buffer
}

func startService(t *testing.T, args ...string) *service {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	self, err := os.Executable()
	must(t, err)
	s := &service{cmd: exec.Command(self), notify: conn}
	s.cmd.Args = append([]string{"mount.flatroot", "--foreground"}, args...)
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	s.cmd.Stderr = &s.stderr
	must(t, s.cmd.Start())
	return s
}

// said waits for what the service manager is told.
func (s *service) said(t *testing.T, want string) {
	t.Helper()
	must(t, s.notify.SetReadDeadline(time.Now().Add(20*time.Second)))
	b := make([]byte, 256)
	n, err := s.notify.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("the service manager hears %q, %v, want %q", b[:n], err, want)
	}
}

// TestForeground: the helper stays, says when the mount is there, and goes when
// it is unmounted or told to.
func TestForeground(t *testing.T) {
	needMounts(t)
	testenv.Need(t, "fuse")
	f := newFixture(t)
	for _, mode := range []string{"fuse", "hybrid"} {
		for _, end := range []string{"unmounted", "told"} {
			s := startService(t, "os:1", f.target, "-o", "ro,tryverity,mode="+mode+",store="+f.dir)
			s.said(t, "READY=1")
			f.check(t, mode)
			if end == "told" {
				must(t, s.cmd.Process.Signal(unix.SIGTERM))
				s.said(t, "STOPPING=1")
			} else {
				must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
			}
			if err := s.cmd.Wait(); err != nil || s.stderr.Len() > 0 {
				t.Errorf("%s, %s: %v: %s", mode, end, err, s.stderr.String())
			}
			nothingMounted(t, f.target)
		}
	}
}

// TestForegroundNative: there is nothing to stay for.
func TestForegroundNative(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "--foreground", "-o", "ro,tryverity,mode=native,store="+f.dir)
	if code != 0 {
		t.Fatal(stderr)
	}
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
}

// TestLog: the server's messages are where they were asked for.
func TestLog(t *testing.T) {
	needMounts(t)
	testenv.Need(t, "fuse")
	f := newFixture(t)
	log, empty := filepath.Join(t.TempDir(), "log"), t.TempDir()
	code, _, stderr := call("mount.flatroot", f.image, f.target, "-o", "ro,tryverity,mode=fuse,log="+log+",basedir="+empty)
	if code != 0 {
		t.Fatal(stderr)
	}
	if _, err := os.ReadFile(filepath.Join(f.target, "file")); err == nil {
		t.Error("a missing object is read")
	}
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if b, err := os.ReadFile(log); err == nil && bytes.Contains(b, []byte("flatroot: ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("nothing is logged of a missing object")
}
