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
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/keeper"
	"github.com/flatroot/flatroot/store"
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
	if code, is := keeper.Main(os.Args); is {
		os.Exit(code)
	}
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main without the process: args[0] chooses the dialect.
func run(args []string, stdout, stderr io.Writer) int {
	d := dialectOf(args[0])
	var err error
	if d == umountDialect {
		err = umountMain(args[1:], stdout)
	} else {
		err = mountMain(args[1:], d, stdout, stderr)
	}
	if err == nil {
		return exitOK
	}
	talk(stderr, d, err.Error())
	if d == composefsDialect {
		return exitUsage
	}
	return exitCode(err)
}

// talk prints one line, whatever the kernel or a joined error put into it.
func talk(stderr io.Writer, d dialect, text string) {
	fmt.Fprintf(stderr, "%s: %s\n", d, strings.ReplaceAll(text, "\n", "; "))
}

func mountMain(args []string, d dialect, stdout, stderr io.Writer) error {
	c, err := parseArgs(args, d)
	if err != nil {
		return err
	}
	if c.help {
		_, err := io.WriteString(stdout, usage(d))
		return err
	}
	return runMount(context.Background(), c, stdout, func(text string) { talk(stderr, d, text) })
}

func exitCode(err error) int {
	var u *usageError
	var o *mount.OptionError
	switch {
	case errors.As(err, &u), errors.As(err, &o), errors.Is(err, fs.ErrPermission):
		return exitUsage
	case errors.Is(err, mount.ErrNoLoop), errors.Is(err, errNoProc), errors.Is(err, unix.ENOMEM),
		errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return exitSystem
	}
	return exitFailed
}

// errNoProc is a machine too bare for us: descriptors go to the kernel by their
// names below /proc.
var errNoProc = errors.New("/proc is not mounted: mount it first (mount -t proc proc /proc)")

func needProc() error {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return errNoProc
	}
	return nil
}

func runMount(ctx context.Context, c *command, stdout io.Writer, say func(string)) error {
	if err := needProc(); err != nil {
		return err
	}
	w, err := resolve(c, func(who string) {
		if who == "" {
			who = "another command"
		}
		say(fmt.Sprintf("waiting for %s to finish with the store", who))
	})
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := w.request(c)
	if err != nil {
		return err
	}
	defer r.CloseOptions()
	l := keeper.NewLauncher(keeper.Options{Log: c.options.Log, Foreground: c.foreground})
	r.Start = l.Start
	p, err := makePlan(r)
	if err != nil {
		return err
	}
	if c.verbose {
		for line := range strings.Lines(p.String()) {
			say(strings.TrimSuffix(line, "\n"))
		}
	}
	if c.fake {
		return c.printPlan(p, stdout)
	}
	undo := w.record(p.Digest(), say)
	if err := do(ctx, p, c); err != nil {
		undo()
		return err
	}
	w.Close() // its lock would keep a collection of garbage waiting
	c.report(p, say)
	if !c.foreground || p.Service == nil {
		return nil
	}
	err = l.Foreground(func() error { return mount.Unmount(c.dir, mount.UnmountOptions{Lazy: true}) })
	if err == nil && w.store != nil { // the session is over, so nobody uses it any more
		store.ForgetMount(w.store.Dir(), p.Digest(), mount.Mounted)
	}
	return err
}

// report says what was reached: when asked, and without being asked when it is
// less than the options suggest. mount.composefs is silent.
func (c *command) report(p *mount.Plan, say func(string)) {
	quiet := c.dialect == composefsDialect
	if c.options.ReadOnlyAnyway() && !quiet {
		say(c.spec + " is mounted read-only: there is no writable layer (upperdir= or transient)")
	}
	tried := c.options.Policy() == mount.Auto && !c.options.TryVerity
	weak := tried && !p.Verification.Full() && len(p.Verification.Why) > 0
	if c.verbose || weak && !quiet {
		say(fmt.Sprintf("%s on %s, mode %s: %s", c.spec, c.dir, p.Mode, p.Verification.Explain()))
	}
}

func makePlan(r mount.Request) (*mount.Plan, error) {
	f, err := mount.Probe(r)
	if err != nil {
		return nil, err
	}
	return mount.NewPlan(r, f)
}
