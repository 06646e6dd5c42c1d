package mount

import (
	"fmt"
	"maps"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// keep opens the file of a mount namespace, "mnt:[INODE]", while its path leads there: to
// look at that later, should no task be in it.
func (s *search) keep(namespace, path string) {
	if s.files[namespace] != nil {
		return
	}
	s.files[namespace] = nil // as long as it can't be looked at
	// Only a name yet: something else may lie on it, such as a symlink to a device of
	// ours, which to open has consequences.
	p, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return
	}
	defer p.Close()
	if isNamespace(p, namespace) {
		if f, err := os.Open(procPath(p)); err == nil {
			s.files[namespace] = f
		}
	}
}

func isNamespace(f *os.File, name string) bool {
	var in unix.Statfs_t
	var st unix.Stat_t
	err1, err2 := unix.Fstatfs(int(f.Fd()), &in), unix.Fstat(int(f.Fd()), &st)
	return err1 == nil && err2 == nil && in.Type == unix.NSFS_MAGIC && name == fmt.Sprintf("mnt:[%d]", st.Ino)
}

// visitFiles looks at the mount namespaces that files keep and no task is in, also at
// those whose files are mounted there.
func (s *search) visitFiles() {
	for again := true; again; {
		again = false
		for name, file := range maps.Clone(s.files) {
			if s.spaces[name] {
				continue
			}
			s.spaces[name], again = true, true
			if file == nil || s.visit(file) != nil {
				s.unsure = true
			}
		}
	}
}

func (s *search) closeFiles() {
	for _, f := range s.files {
		f.Close()
	}
}

// visit lists the mounts of a namespace, from a thread that goes there. It takes the
// rights to do so.
func (s *search) visit(namespace *os.File) error {
	// There is no telling what /proc is over there.
	proc, err := os.Open(s.proc)
	if err != nil {
		return err
	}
	defer proc.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else is to have the thread
		done <- s.visitAlone(namespace, int(proc.Fd()))
	}()
	return <-done
}

// visitAlone spoils the calling thread.
func (s *search) visitAlone(namespace *os.File, proc int) error {
	home, err := unix.Openat(proc, "thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(home)
	// A thread that shares its root with others can't go.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	// The thread may be one that stays, and the namespace is not to, because of that.
	defer unix.Setns(home, unix.CLONE_NEWNS)
	fd, err := unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	list := os.NewFile(uintptr(fd), "mountinfo")
	defer list.Close()
	_, err = s.read(list, "")
	return err
}
