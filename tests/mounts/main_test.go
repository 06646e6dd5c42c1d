// Package mounts proves the modes of mounting against the kernel's own file systems: whatever a native mount of EROFS and
// overlayfs shows, allows or refuses, each other mode has to show, allow or refuse as well. Where it can't, the difference
// is listed by name with its reason; nothing else may differ.
//
// The words: a mode is a line of the table in mode_test.go, a way of mounting with its options. The walker turns a mounted
// tree into records, which are lines of a dump. A call is one thing that a process may try on a mounted tree, with its
// outcome as text. The native mount is the oracle for both.
//
// The tests mount with the program mount.flatroot as users have it, in namespaces of their own: one of mounts, and one of
// processes whose end ends every server, so that nothing stays behind whatever goes wrong.
package mounts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// stageVariable says which of the processes of TestMain this is: none is go test's child, which makes the namespaces; then
// there are the first process in them and the tests.
const (
	stageVariable = "FLATROOT_MOUNTS_STAGE"
	stageInit     = "init"
	stageTests    = "tests"
)

// actVariable makes the test program do something else than test: see acts.
const actVariable = "FLATROOT_MOUNTS_ACT"

// The main thread stays the main goroutine's: it is what others see of this process, and tests give up rights in theirs.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if act := os.Getenv(actVariable); act != "" {
		os.Exit(runAct(act))
	}
	stage := os.Getenv(stageVariable)
	os.Unsetenv(stageVariable)
	switch {
	case stage == stageInit:
		os.Exit(beInit())
	case stage == stageTests:
		os.Exit(runTests(m))
	case mayUnshare():
		os.Exit(unshare())
	}
	os.Exit(m.Run()) // each test skips, and says why
}

// mayUnshare tells whether there is anything to run here that needs the namespaces.
func mayUnshare() bool {
	for _, c := range []string{"root", "mount"} {
		if ok, _ := testenv.Condition(c); !ok {
			return false
		}
	}
	return true
}

// stage starts this program again with the same arguments.
func stage(name string, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVariable+"="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	return cmd, cmd.Start()
}

// unshare runs the tests in new namespaces and returns the exit code. The kernel kills all that is in the namespace of
// processes when the first of them ends, and that one ends with us.
func unshare() int {
	cmd, err := stage(stageInit, &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS,
		Pdeathsig:    unix.SIGKILL, // when this thread ends, the main one
	})
	if err == nil {
		err = cmd.Wait()
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case asError(err, &e) && e.ExitCode() >= 0:
		return e.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "run tests in namespaces:", err)
	return 2
}

// beInit is the first process of the namespace: it runs the tests, and takes in the orphans that they make.
func beInit() int {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return exitCode(fmt.Errorf("mount /proc: %w", err))
	}
	if err := openFUSE(); err != nil {
		return exitCode(fmt.Errorf("open /dev/fuse to users: %w", err))
	}
	cmd, err := stage(stageTests, nil)
	if err != nil {
		return exitCode(err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return exitCode(fmt.Errorf("wait for the tests: %w", err))
		case pid != cmd.Process.Pid:
		case status.Signaled():
			return exitCode(fmt.Errorf("tests ended by signal %v", status.Signal()))
		default:
			return status.ExitStatus()
		}
	}
}

// openFUSE puts a device that any user may open, as distributions have it, in the place of one that only root may.
func openFUSE() error {
	const path = "/dev/fuse"
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() == 0o666 {
		return nil // or missing, which the tests find out
	}
	dir, err := os.MkdirTemp("", "mounts-dev")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	node := filepath.Join(dir, "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229))); err != nil { // Documentation/admin-guide/devices.txt
		return err
	}
	if err := os.Chmod(node, 0o666); err != nil {
		return err
	}
	return unix.Mount(node, path, "", unix.MS_BIND, "")
}

// helper is the path of mount.flatroot.
var helper string

// runTests has the program to test built, if nobody has put it into PATH for us as tests/vm/test.sh does.
func runTests(m *testing.M) int {
	if os.Getenv("FLATROOT_TEST") == "vm" {
		path, err := exec.LookPath("mount.flatroot")
		if err != nil {
			return exitCode(err)
		}
		helper = path
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "mounts")
	if err != nil {
		return exitCode(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // users start it too
		return exitCode(err)
	}
	helper = filepath.Join(dir, "mount.flatroot")
	build := exec.Command("go", "build", "-o", helper, "../../cmd/mount.flatroot")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return exitCode(fmt.Errorf("build mount.flatroot: %w: %s", err, text))
	}
	return m.Run()
}
