// Package fusetest mounts images through package fuse for tests, with the server in the test's own process.
//
// A process that has a FUSE mount and its server must be careful with the mount: a goroutine that waits for an answer
// outside a system call that the Go runtime knows of can hold the server up for ever. So files on it are not opened with
// package os, which would wait in epoll_ctl(2), but with package unix (see ReadFile), or by other programs.
package fusetest

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
	"github.com/flatroot/flatroot/mount/fuse/wire"
	"github.com/flatroot/flatroot/tests/testenv"
)

// NeedMounts gives the test a mount namespace of its own, which ends with the test's thread: nothing that it mounts can be
// seen or stay behind.
func NeedMounts(t testing.TB) {
	t.Helper()
	testenv.Need(t, "root", "mount", "fuse", "erofs", "overlay", "loop")
	runtime.LockOSThread() // never unlocked: the runtime ends the thread
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Session is a mount with a server.
type Session struct {
	Dir     string     // where it is mounted
	Devices []*os.File // of the session
	Server  *fuse.Server
	Fuse    fuse.Session

	mount  *os.File // keeps the session alive while nothing is mounted
	served chan error
}

// OpenDevice opens /dev/fuse, for a new session.
func OpenDevice(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	dev := os.NewFile(uintptr(fd), "/dev/fuse")
	t.Cleanup(func() { dev.Close() })
	return dev
}

// NewMount makes a detached mount of the session of dev, read-only for everybody.
func NewMount(t testing.TB, dev *os.File) *os.File {
	t.Helper()
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	for _, o := range [][2]string{
		{"source", "fusetest"}, {"subtype", "flatroot"}, {"fd", strconv.Itoa(int(dev.Fd()))}, {"rootmode", "40000"},
		{"user_id", "0"}, {"group_id", "0"},
	} {
		must(t, unix.FsconfigSetString(fs, o[0], o[1]))
	}
	for _, flag := range []string{"ro", "default_permissions", "allow_other"} {
		must(t, unix.FsconfigSetFlag(fs, flag))
	}
	must(t, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	must(t, err)
	m := os.NewFile(uintptr(fd), "fuse mount")
	t.Cleanup(func() { m.Close() })
	return m
}

// Mount mounts what s describes, but for s.Device, which it makes, and serves it until the test ends.
func Mount(t testing.TB, s mount.Serving, o fuse.Options) *Session {
	t.Helper()
	if o.Log == nil {
		o.Log = t.Logf
	}
	dev := OpenDevice(t)
	ss := &Session{Dir: t.TempDir(), Devices: []*os.File{dev}, mount: NewMount(t, dev)}
	srv, err := fuse.NewServer(s, o)
	must(t, err)
	ss.Server = srv
	ss.Fuse, err = srv.Init(dev)
	must(t, err)
	if clone, err := fuse.Clone(dev); err == nil {
		t.Cleanup(func() { clone.Close() })
		ss.Devices = append(ss.Devices, clone)
	}
	ss.Serve()
	must(t, mount.Attach(ss.mount, ss.Dir))
	t.Cleanup(func() { ss.end(t) })
	return ss
}

// Serve has the server answer requests until Wait.
func (s *Session) Serve() {
	s.served = make(chan error, 1)
	srv := s.Server
	go func() { s.served <- srv.Serve(s.Devices) }()
}

// Wait returns what Serve returned, when the session was unmounted or the server stopped.
func (s *Session) Wait() error { return <-s.served }

// Unmount takes the mount away. With nobody using it that ends the session.
func (s *Session) Unmount() {
	unix.Unmount(s.Dir, unix.MNT_DETACH)
	s.mount.Close()
}

func (s *Session) end(t testing.TB) {
	s.Unmount()
	if err := s.Wait(); err != nil {
		t.Errorf("server: %v", err)
	}
	if err := s.Server.Close(); err != nil {
		t.Errorf("close server: %v", err)
	}
}

// Counts counts requests by their operation. It is for fuse.Options.Count.
type Counts struct {
	mu sync.Mutex
	n  map[wire.Opcode]int
}

// Add counts one.
func (c *Counts) Add(o wire.Opcode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[wire.Opcode]int{}
	}
	c.n[o]++
}

// Take returns what was counted since the last Take, but for what has no reply, which comes whenever the kernel likes.
func (c *Counts) Take() map[wire.Opcode]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = nil
	for o := range n {
		if !o.Replied() {
			delete(n, o)
		}
	}
	return n
}

// ReadFile is os.ReadFile for files on a mount whose server is in this process.
func ReadFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var all []byte
	buf := make([]byte, 128<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return all, err
		}
		all = append(all, buf[:n]...)
	}
}
