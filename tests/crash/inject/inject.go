//go:build amd64

// Package inject runs a program and strikes it at one of its changing system calls: kills it before the call, lets the call
// fail, or lets it do a part of what it was asked for.
//
// A changing call is one of the table in calls.go that touches something below one of the roots: writes, syncs, opening for
// writing, whatever makes, moves or removes names, attributes, locks, mounts. Calls are numbered from 1 over all threads and
// all processes that the program starts, in the order in which the kernel stops them. What only reads is not counted, nor is
// what goes to pipes, terminals or files elsewhere, so that the number of a call says nothing about the Go runtime's moods.
//
// The kernel does the stopping: a seccomp filter, which programs hand on to their children, has each call of the table
// reported to a tracer (ptrace) before it is carried out. Calls that are no calls go unseen: stores to a shared mapping, and
// io_uring, which is therefore refused with ENOSYS. Nor can a program be traced whose processes leave its process group.
//
// Invariants: every call is counted once, unless a signal interrupts it and the kernel starts it again; a program that is killed at call N has not carried out N, and all threads were
// given leave for the calls before it; a Run leaves no process behind, whatever happens to it or to the caller.
package inject

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what is done to a call.
type Kind int

// The kinds of faults.
const (
	None  Kind = iota // calls are counted, nothing else
	Kill              // SIGKILL to all processes, before the call
	Fail              // an error instead of the call
	Short             // the call does about half of what it was asked for
)

// Fault is what happens to a program, and at which of its calls.
type Fault struct {
	Kind Kind
	// N is the number of the call, from 1. For Short, only calls count that can be cut.
	N int
	// Errno is the error of Fail.
	Errno unix.Errno
	// Times is how often Fail hits the same call in a row if the program tries it again: once if it is 0.
	Times int
}

// String is the form that ParseFault reads, such as "kill:17", "ENOSPC:3", "EINTR*5:3" or "short:1".
func (f Fault) String() string {
	switch f.Kind {
	case Kill:
		return fmt.Sprintf("kill:%d", f.N)
	case Short:
		return fmt.Sprintf("short:%d", f.N)
	case Fail:
		name := unix.ErrnoName(f.Errno)
		if f.Times > 1 {
			name += fmt.Sprintf("*%d", f.Times)
		}
		return fmt.Sprintf("%s:%d", name, f.N)
	}
	return "none"
}

// ParseFault is the opposite of String.
func ParseFault(s string) (Fault, error) {
	var f Fault
	what, number, ok := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(number, "%d", &f.N); !ok || err != nil || f.N < 1 {
		return f, fmt.Errorf("fault %q: want WHAT:NUMBER, with a number from 1", s)
	}
	what, times, repeated := strings.Cut(what, "*")
	if repeated {
		if _, err := fmt.Sscanf(times, "%d", &f.Times); err != nil || f.Times < 1 {
			return f, fmt.Errorf("fault %q: want how often after the *", s)
		}
	}
	switch what {
	case "kill":
		f.Kind = Kill
	case "short":
		f.Kind = Short
	default:
		f.Kind, f.Errno = Fail, errnoOf(what)
		if f.Errno == 0 {
			return f, fmt.Errorf("fault %q: %q is none of kill, short and the names of errors", s, what)
		}
	}
	return f, nil
}

// errnoOf finds an error by its name; 0: there is none.
func errnoOf(name string) unix.Errno {
	for e := unix.Errno(1); e < maxErrno; e++ {
		if name != "" && unix.ErrnoName(e) == name { // some numbers have no name
			return e
		}
	}
	return 0
}

// maxErrno is more than any error of Linux has (EHWPOISON, 133).
const maxErrno = 134

// Options are those of Run. Only Roots is required.
type Options struct {
	// Roots are the directories whose contents, and they themselves, count. They need not exist yet, and must be absolute and
	// without symbolic links.
	Roots []string
	// Env is added to the environment.
	Env []string
	// Dir is the working directory; empty: ours.
	Dir string
	// NoTmpfile lets all attempts to make an unnamed file fail with EOPNOTSUPP, as on file systems that have none. They are not
	// counted.
	NoTmpfile bool
	// Limit ends a program that takes longer. Default: one minute.
	Limit time.Duration
}

const defaultLimit = time.Minute

// Result is what came of a run.
type Result struct {
	// Calls are the counted calls up to the program's end, the struck one among them.
	Calls []Call
	// Struck tells whether the run came to the call in question, and Hit which one that was.
	Struck bool
	Hit    Call
	// Status is the exit status, or 128 and the signal that ended the program.
	Status         int
	Stdout, Stderr string
}

// ErrTimeout: the program took longer than the limit.
var ErrTimeout = errors.New("took too long")

// Run runs a program, whose path is argv[0], and strikes it. A program that fails, or is killed as it was meant to be, is no
// error.
func Run(argv []string, f Fault, o Options) (*Result, error) {
	o.Limit = cmp.Or(o.Limit, defaultLimit)
	t := &tracer{fault: f, options: o}
	r, err := t.run(argv)
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", strings.Join(argv, " "), err)
	}
	return r, nil
}

// output is a file in memory that a program writes to: unlike a pipe it needs nobody to read it.
func output() (*os.File, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file for the output: %w", err)
	}
	return os.NewFile(uintptr(fd), "output"), nil
}

// contents gives what was written, and closes the file.
func contents(f *os.File) (string, error) {
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	b := make([]byte, fi.Size())
	_, err = f.ReadAt(b, 0)
	if len(b) == 0 {
		err = nil
	}
	return string(b), err
}
