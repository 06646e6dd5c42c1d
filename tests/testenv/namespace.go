package testenv

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideVariable is set in the environment of a test program that has a mount namespace of its own.
const insideVariable = "FLATROOT_TEST_INSIDE"

// InOwnMounts is for TestMain: it runs the test program once more, in a mount namespace of its own where no other test can
// take a copy of what is mounted; a FUSE server doesn't end before the last copy is gone. The exit code is the caller's then.
// It isn't done in the program that was run, and where there is no right to have a namespace: there tests that mount can't
// run either, and say so.
func InOwnMounts() (code int, done bool) {
	if os.Getenv(insideVariable) != "" {
		return 0, false
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), insideVariable+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags, not Cloneflags: the standard library makes the copy private, too.
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // which the signal at its parent's death goes by
	defer runtime.UnlockOSThread()
	err := c.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), true
	}
	return 0, err == nil
}
