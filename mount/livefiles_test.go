package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// inNewMounts has a thread make a mount namespace and run setup there, and then leave the
// namespace to a file. A file only keeps a younger namespace than the one it is in, and
// Linux 6.18 takes the age from a number that each processor has its own series of.
func inNewMounts(file string, setup func() error) error {
	err := unix.EINVAL
	for try := 0; try < 50 && err == unix.EINVAL; try++ {
		bound, other := tryNewMounts(file, setup)
		if other != nil {
			return other
		}
		err, _ = bound.(unix.Errno)
	}
	if err != 0 {
		return err
	}
	return nil
}

func tryNewMounts(file string, setup func() error) (bound, other error) {
	made, isBound, done := make(chan string), make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else is to have the thread
		home, err := os.Open("/proc/thread-self/ns/mnt")
		if err == nil {
			err = unix.Unshare(unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = setup()
		}
		made <- fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
		<-isBound
		// Should the thread stay, as the main one does, the namespace is not to.
		done <- errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNS), home.Close())
	}()
	bound = unix.Mount(<-made, file, "", unix.MS_BIND, "")
	close(isBound)
	return bound, <-done
}

// namespaceFile makes a file that may keep a mount namespace: the kernel wants it where
// nobody else gets a copy.
func namespaceFile(dir string) (string, error) {
	err := unix.Mount("t", dir, "tmpfs", 0, "")
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	}
	return dir + "/ns", errors.Join(err, os.WriteFile(dir+"/ns", nil, 0o644))
}

// TestMountedInFile: what is mounted in a namespace that is kept by a file alone is seen,
// also if that file is mounted in another such namespace.
func TestMountedInFile(t *testing.T) {
	testenv.Need(t, "root", "mount", "overlay")
	dir := tmpfs(t)
	for _, name := range []string{"outer", "inner", "lower", "m"} {
		must(t, os.Mkdir(dir+"/"+name, 0o755))
	}
	d := fsverity.Sum(fsverity.SHA256, []byte(dir))
	outer, err := namespaceFile(dir + "/outer")
	must(t, err)
	defer unix.Unmount(dir+"/outer", unix.MNT_DETACH)
	must(t, inNewMounts(outer, func() error {
		inner, err := namespaceFile(dir + "/inner")
		if err != nil {
			return err
		}
		return inNewMounts(inner, func() error {
			return unix.Mount("flatroot:"+d.String()+":native:once:unchecked", dir+"/m", "overlay", 0, "lowerdir="+dir+"/lower:/bin")
		})
	}))
	seen := func() bool {
		images, _, err := Mounted()
		must(t, err)
		return images[d]
	}
	for range 3 {
		time.Sleep(10 * time.Millisecond)
		if !seen() {
			t.Error("it isn't seen")
		}
	}
	must(t, unix.Unmount(dir+"/outer", unix.MNT_DETACH))
	// Threads that were there may take their time to end.
	for deadline := time.Now().Add(10 * time.Second); seen(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is seen when it is gone")
		}
	}
}

// TestMountedNotNamespace: what only has the path of a namespace's file isn't opened. Whoever has a mount namespace of his
// own decides what lies there, and a symlink leads out to devices of ours, which do something when they are opened.
func TestMountedNotNamespace(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/device", nil, 0o644))
	must(t, os.Symlink(dir+"/device", dir+"/ns"))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, dir+"/device", unix.IN_OPEN)
	must(t, err)
	s := newSearch("/proc")
	defer s.closeFiles()
	s.keep("mnt:[1]", dir+"/ns")
	event := make([]byte, 4096)
	if n, err := unix.Read(fd, event); err != unix.EAGAIN {
		t.Errorf("it was opened: %d bytes of events, %v", n, err)
	}
	if f, known := s.files["mnt:[1]"]; f != nil || !known {
		t.Errorf("%v, %v: it has to be known as one that can't be looked at", f, known)
	}
	f, err := os.Open(dir + "/device")
	must(t, err)
	f.Close()
	if n, err := unix.Read(fd, event); n <= 0 {
		t.Errorf("opening it makes no event: %v", err)
	}
}
