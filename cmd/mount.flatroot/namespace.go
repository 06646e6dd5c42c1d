package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// do carries the plan out, with -N in another mount namespace: the image and the
// store are this namespace's, only the directory is the other's.
func do(ctx context.Context, p *mount.Plan, c *command) error {
	if c.namespace == "" {
		return p.Do(ctx)
	}
	ns, err := os.Open(c.namespace)
	if err != nil {
		return fmt.Errorf("open mount namespace: %w", err)
	}
	defer ns.Close()
	m, err := p.Detach(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	return attachIn(ns, m, c.dir)
}

// attachIn enters ns with this goroutine's thread alone and never gives the
// thread back: the process ends soon, and with it the thread.
func attachIn(ns, m *os.File, dir string) error {
	runtime.LockOSThread()
	// A thread that shares root and working directory with others can't change
	// its mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace %s: %w", ns.Name(), err)
	}
	return mount.Attach(m, dir)
}
