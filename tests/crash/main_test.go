//go:build amd64

// Package crash proves that no crash and no failing call loses anything: it strikes the program flatroot at its changing
// system calls, one after another, and looks at what is left.
//
// The words: a scenario is a command and the store that it finds. A point is a scenario and a fault: a kill before the N-th
// call, an error instead of it, or a part of it. A name's state is what it leads to, or that there is no such name; what an
// undisturbed run makes of a state is the state after.
//
// Whatever the point, this has to hold:
//
//   - fsck finds no problem, and neither does the check of package kit.
//   - Every name is in its state before or in its state after, and all that it leads to is whole.
//   - A command that reports success has brought about all of the state after. One that fails says what it was about.
//   - The same command succeeds then, with the same result.
//   - gc leaves, of all that is in the store, the same as after a run that was not disturbed.
//
// A scenario has no fixed number of calls, since its threads don't always run in the same order; what comes before the N-th
// may differ, too. So N grows until three runs have ended before it.
package crash

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/crash/kit"
	"github.com/flatroot/flatroot/tests/testenv"
)

var (
	onePoint = flag.String("point", "", "strike at this `FAULT` only, such as kill:17, ENOSPC:3 or short:1")
	keep     = flag.Bool("keep", false, "keep the directories of points that failed")
)

// The program that is tested, where its images come from, and where everything lies: on a file system in memory, if that
// can be had.
var flatroot, layout, scratch string

func TestMain(m *testing.M) {
	if code, done := testenv.InOwnMounts(); done {
		os.Exit(code)
	}
	flag.Parse()
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare tests:", err)
		os.Exit(2)
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if ok, err := testenv.Condition("ptrace"); !ok {
		return m.Run(), err // each test skips, and says why
	}
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if scratch, err = filepath.EvalSymlinks(dir); err != nil {
		return 0, err
	}
	if !*keep && unix.Mount("tmpfs", scratch, "tmpfs", 0, "mode=700") == nil {
		defer unix.Unmount(scratch, unix.MNT_DETACH)
	}
	if flatroot, err = kit.Build(scratch, "flatroot"); err != nil {
		return 0, err
	}
	layout = filepath.Join(scratch, "layout")
	if err := kit.WriteLayout(layout, "crash"); err != nil {
		return 0, err
	}
	stop, err := serveImages()
	if err != nil {
		return 0, err
	}
	defer stop()
	return m.Run(), nil
}
