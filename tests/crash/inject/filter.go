//go:build amd64

package inject

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchVariable is set in the environment of a copy of the test program that is to become the program to trace.
const launchVariable = "FLATROOT_INJECT_LAUNCH"

// A seccomp filter survives exec, but the standard library can't set one between fork and exec. So what is started is this
// program once more, which sets it and then becomes the other.
func init() {
	if os.Getenv(launchVariable) == "" {
		return
	}
	os.Unsetenv(launchVariable)
	err := launch(os.Args[1:])
	fmt.Fprintf(os.Stderr, "start %s under a filter: %v\n", os.Args[1], err)
	os.Exit(exitNotStarted)
}

// exitNotStarted is what a shell has for programs that it can't start.
const exitNotStarted = 126

func launch(argv []string) error {
	runtime.LockOSThread()
	if err := setFilter(); err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, os.Environ())
}

// setFilter sets it for this thread. Root may do so as it is; others have to give up set-user-ID programs.
func setFilter() error {
	filter := program()
	p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	set := func() error {
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0)
	}
	if err := set(); err != unix.EACCES {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return set()
}

// Offsets in struct seccomp_data, of linux/seccomp.h.
const (
	dataNumber = 0
	dataArch   = 4
)

// program is the filter: calls of the table are traced, those of io_uring refused, all others allowed.
func program() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	result := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	traced := numbers()
	left := uint8(len(traced) + 1) // comparisons between the one of io_uring and the results, and the first result
	f := []unix.SockFilter{
		load(dataArch),
		equal(unix.AUDIT_ARCH_X86_64, 1, 0),
		result(unix.SECCOMP_RET_KILL_PROCESS), // calls of 32 bits have other numbers
		load(dataNumber),
		equal(unix.SYS_IO_URING_SETUP, left+1, 0),
	}
	for i, n := range traced {
		f = append(f, equal(n, uint8(len(traced)-i), 0))
	}
	return append(f,
		result(unix.SECCOMP_RET_ALLOW),
		result(unix.SECCOMP_RET_TRACE),
		result(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)),
	)
}
