package keeper

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// root leads to the root directory as it is now. For most processes / does, but a
// keeper from the initramfs still has that one as its root after the switch to the
// real one, which is mounted over it; ".." of a root is the root itself, and a walk
// through it enters what is mounted there.
const root = "/.."

// self is the running program, whatever has become of its file.
const self = root + "/proc/self/exe"

// closeInherited closes each descriptor above 2 that came along unasked. Whatever
// this process has opened is marked close-on-exec, and what it was given too (see
// enter), so what isn't was left open by some process before the starter.
func closeInherited() {
	entries, _ := os.ReadDir(root + "/proc/self/fd")
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// passOn lets the next program have the descriptors.
func passOn(fds []int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// keepBack undoes passOn: other programs get the descriptors only if they are told.
func keepBack(fds []int) {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}

// parcel collects the descriptors for a process to be spawned.
type parcel struct {
	fds []uintptr // by their number there
}

// add returns the number that fd has in the new process, 0 for 0.
func (p *parcel) add(fd int) int {
	if fd == 0 {
		return 0
	}
	p.fds = append(p.fds, uintptr(fd))
	return len(p.fds) - 1
}

func (p *parcel) addAll(fds []int) []int {
	numbers := make([]int, len(fds))
	for i, fd := range fds {
		numbers[i] = p.add(fd)
	}
	return numbers
}

// duplicate takes the descriptor out of f, which it closes. A bare one is never
// watched by Go's runtime, which would wake up at each request of a session.
func duplicate(f *os.File) (int, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return fd, nil
}

func closeDescriptors(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
