// Command mount.flatroot mounts a composefs image for mount(8), which calls it
// for "mount -t flatroot SPEC DIR -o OPTIONS" and for lines in fstab. It is kept
// small and static for the initramfs, and knows nothing of registries.
//
// SPEC is a path if it begins with "/" or ".", an image's digest if it is 64 or
// 128 hex digits, else the name of an image in the store. Called as
// mount.composefs it is that tool: SPEC is a path and basedir is needed, unless
// store is given.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// Exit codes of mount(8), which helpers share. As mount.composefs every failure
// is 1, as that tool has it.
const (
	exitOK     = 0
	exitUsage  = 1  // wrong usage, or no permission
	exitSystem = 2  // out of memory, descriptors or loop devices
	exitFailed = 32 // the mount failed
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main without the process: args[0] chooses the dialect.
func run(args []string, stdout, stderr io.Writer) int {
	d := flatrootDialect
	if filepath.Base(args[0]) == composefsDialect.String() {
		d = composefsDialect
	}
	c, err := parseArgs(args[1:], d)
	if err == nil && c.help {
		fmt.Fprintf(stdout, usageText, d)
		return exitOK
	}
	if err == nil {
		err = runMount(context.Background(), c, stderr)
	}
	if err == nil {
		return exitOK
	}
	// One line, whatever the kernel or a joined error put into it.
	fmt.Fprintf(stderr, "%s: %s\n", d, strings.ReplaceAll(err.Error(), "\n", "; "))
	if d == composefsDialect {
		return exitUsage
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var u *usageError
	switch {
	case errors.As(err, &u), errors.Is(err, fs.ErrPermission):
		return exitUsage
	case errors.Is(err, mount.ErrNoLoop), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return exitSystem
	}
	return exitFailed
}

func runMount(ctx context.Context, c *command, stderr io.Writer) error {
	say := func(text string) { fmt.Fprintf(stderr, "%s: %s\n", c.dialect, text) }
	w, err := resolve(c, func() { say("waiting for the store, which another command has locked") })
	if err != nil {
		return err
	}
	defer w.Close()
	p, err := makePlan(w.request(c))
	if err != nil {
		return err
	}
	if c.verbose {
		for line := range strings.Lines(p.String()) {
			say(strings.TrimSuffix(line, "\n"))
		}
	}
	if c.fake {
		return nil
	}
	if err := do(ctx, p, c); err != nil {
		return err
	}
	if c.verbose {
		say(c.spec + " on " + c.dir + ": " + p.Verification.Explain())
	}
	return nil
}

func makePlan(r mount.Request) (*mount.Plan, error) {
	f, err := mount.Probe(r)
	if err != nil {
		return nil, err
	}
	return mount.NewPlan(r, f)
}
