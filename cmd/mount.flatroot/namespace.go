package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	ns, err := openNamespace(c.namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	m, err := p.Detach(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	// Entering a namespace also leaves the working directory.
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if err := enter(ns); err != nil {
		return err
	}
	return mount.Attach(m, c.dir)
}

func openNamespace(path string) (*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	return ns, nil
}

// enterNamespace is enter by path.
func enterNamespace(path string) error {
	ns, err := openNamespace(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return enter(ns)
}

// enter takes this goroutine's thread alone to a mount namespace and never gives
// the thread back: the process ends soon, and with it the thread.
func enter(ns *os.File) error {
	runtime.LockOSThread()
	// A thread that shares root and working directory with others can't change
	// its mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace %s: %w", ns.Name(), err)
	}
	return nil
}
