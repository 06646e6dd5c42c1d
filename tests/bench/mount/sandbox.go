package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandboxed marks the inner process. Its value says nothing.
const sandboxed = "FLATROOT_BENCH_SANDBOX"

func inSandbox() bool { return os.Getenv(sandboxed) != "" }

// sandbox runs this program again as the first process of a PID namespace, in a mount namespace of its own. When it ends,
// killed or not, the kernel kills all that it started and unmounts all that was mounted. The directories are removed from
// out here, where none of those mounts was ever seen: removing can't go through one.
func sandbox(s *settings) error {
	// Pdeathsig is about the thread that started the child.
	runtime.LockOSThread()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	remove, err := s.directories()
	defer func() {
		for _, dir := range remove {
			os.RemoveAll(dir)
		}
	}()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"-work", s.work, "-images", s.images}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), sandboxed+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Setpgid:    true, // ^C is for us, who kill it
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case sig := <-stop:
		cmd.Process.Kill()
		<-done
		return fmt.Errorf("stopped by signal: %v", sig)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New("stopped early: see above")
	}
	return err
}

// directories makes those that the command line does not name, and returns them.
func (s *settings) directories() (made []string, err error) {
	for _, d := range []struct {
		dir *string
		in  string
	}{{&s.work, "/dev/shm"}, {&s.images, "/var/tmp"}} {
		if *d.dir != "" {
			continue
		}
		if *d.dir, err = os.MkdirTemp(d.in, "flatroot-bench-mount-"); err != nil {
			return made, err
		}
		made = append(made, *d.dir)
	}
	return made, nil
}

// enter finishes the inner process's namespaces: no mount leaves them, and /proc shows their processes.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
