//go:build amd64

package inject

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tracer is one run. All that ptrace does has to come from one thread. The program is a process group of its own, which is
// all that is waited for, so that any number of runs may go on at once.
type tracer struct {
	fault   Fault
	options Options
	result  Result

	main     int
	started  bool         // the program itself runs now
	known    map[int]bool // threads whose first stop, which is no signal, has passed
	count    int          // of the calls that the fault's number counts
	again    int          // how often the struck call is still to fail
	mu       sync.Mutex
	alive    map[int]bool // processes, guarded by mu
	timedOut bool         // guarded by mu
}

func (t *tracer) run(argv []string) (*Result, error) {
	stdout, err := output()
	if err != nil {
		return nil, err
	}
	stderr, err := output()
	if err != nil {
		return nil, errors.Join(err, stdout.Close())
	}
	err = t.trace(argv, stdout, stderr)
	var err1, err2 error
	t.result.Stdout, err1 = contents(stdout)
	t.result.Stderr, err2 = contents(stderr)
	err = errors.Join(err, err1, err2)
	switch {
	case err != nil:
	case t.isTimedOut():
		err = fmt.Errorf("%w: killed after %v, it had said: %s", ErrTimeout, t.options.Limit, t.result.Stderr)
	case !t.started:
		err = fmt.Errorf("not started: %s", t.result.Stderr)
	}
	return &t.result, err
}

func (t *tracer) trace(argv []string, stdout, stderr *os.File) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := t.start(argv, stdout, stderr); err != nil {
		return err
	}
	timer := time.AfterFunc(t.options.Limit, func() {
		t.mu.Lock()
		t.timedOut = true
		t.mu.Unlock()
		t.killAll()
	})
	defer timer.Stop()
	return t.loop()
}

func (t *tracer) isTimedOut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.timedOut
}

// start starts the launcher and waits for its first stop.
func (t *tracer) start(argv []string, stdout, stderr *os.File) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	t.main, err = syscall.ForkExec(self, append([]string{self}, argv...), &syscall.ProcAttr{
		Dir:   t.options.Dir,
		Env:   append(append(os.Environ(), t.options.Env...), launchVariable+"=1"),
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return err
	}
	t.known, t.alive = map[int]bool{t.main: true}, map[int]bool{t.main: true}
	var status unix.WaitStatus
	if _, err := t.wait(&status); err != nil || !status.Stopped() {
		return fmt.Errorf("the launcher didn't stop: %v, status %#x", err, status)
	}
	const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACECLONE |
		unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC
	if err := unix.PtraceSetOptions(t.main, options); err != nil {
		t.killAll()
		return fmt.Errorf("set options: %w", err)
	}
	return unix.PtraceCont(t.main, 0)
}

// wait waits for any process or thread of the group.
func (t *tracer) wait(status *unix.WaitStatus) (int, error) {
	for {
		pid, err := unix.Wait4(-t.main, status, unix.WALL, nil)
		if err != unix.EINTR {
			return pid, err
		}
	}
}

// loop serves stops until the last process is gone.
func (t *tracer) loop() error {
	for {
		var status unix.WaitStatus
		pid, err := t.wait(&status)
		if err == unix.ECHILD {
			return nil
		}
		if err != nil {
			t.killAll()
			return fmt.Errorf("wait: %w", err)
		}
		if !status.Stopped() {
			t.ended(pid, status)
			continue
		}
		signal, err := t.stop(pid, status)
		if err == nil {
			err = unix.PtraceCont(pid, signal)
		}
		// A thread that was killed meanwhile is gone for ptrace.
		if err != nil && err != unix.ESRCH {
			t.killAll()
			return err
		}
	}
}

func (t *tracer) ended(pid int, status unix.WaitStatus) {
	t.mu.Lock()
	delete(t.alive, pid)
	t.mu.Unlock()
	delete(t.known, pid)
	if pid != t.main {
		return
	}
	t.result.Status = status.ExitStatus()
	if status.Signaled() {
		t.result.Status = 128 + int(status.Signal())
	}
}

// killAll kills all processes; their threads go with them.
func (t *tracer) killAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid := range t.alive {
		_ = unix.Kill(pid, unix.SIGKILL) // that it has ended just now is as good
	}
}

// stop serves one and returns the signal that the thread is to get.
func (t *tracer) stop(pid int, status unix.WaitStatus) (signal int, err error) {
	event := int(status>>16) & 0xff
	switch event {
	case unix.PTRACE_EVENT_SECCOMP:
		return 0, t.call(pid)
	case unix.PTRACE_EVENT_EXEC:
		t.started = true
		return 0, nil
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK:
		child, err := unix.PtraceGetEventMsg(pid)
		if err == nil {
			t.mu.Lock()
			t.alive[int(child)] = true
			t.mu.Unlock()
		}
		return 0, err
	case unix.PTRACE_EVENT_CLONE:
		return 0, nil
	}
	s := status.StopSignal()
	if !t.known[pid] && s == unix.SIGSTOP {
		t.known[pid] = true
		return 0, nil
	}
	return int(s), nil
}

// call looks at a call that is about to be made.
func (t *tracer) call(pid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	s := stopped{tid: pid, args: [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}}
	number := uint32(regs.Orig_rax)
	c, counts := t.describe(s, number)
	if !counts {
		return nil
	}
	if t.options.NoTmpfile && c.Detail == "O_TMPFILE" {
		return fail(pid, &regs, unix.EOPNOTSUPP)
	}
	length := calls[number].length
	c.canCut = length > 0 && s.args[length] > 1
	c.Number = len(t.result.Calls) + 1
	t.result.Calls = append(t.result.Calls, c)
	return t.strike(pid, &regs, c, length)
}

// describe tells what a call touches, and whether it is one that counts.
func (t *tracer) describe(s stopped, number uint32) (Call, bool) {
	shape, ok := calls[number]
	if !ok || !t.started {
		return Call{}, false
	}
	c := Call{Name: shape.name}
	if shape.counts != nil {
		args := s.args
		if number == unix.SYS_OPENAT2 {
			args[2] = s.openFlags(args[2])
		}
		changes, detail := shape.counts(args)
		if !changes {
			return c, false
		}
		c.Detail = detail
	}
	if len(shape.places) == 0 {
		return c, true
	}
	for _, p := range shape.places {
		if c.Path = s.resolve(p); below(c.Path, t.options.Roots) {
			return c, true
		}
	}
	return c, false
}

// strike does to a call what is to be done to it, if it is the one.
func (t *tracer) strike(pid int, regs *unix.PtraceRegs, c Call, length int) error {
	if t.again > 0 && c.sameAs(t.result.Hit) {
		t.again--
		return fail(pid, regs, t.fault.Errno)
	}
	if t.fault.Kind == Short && !c.canCut {
		return nil
	}
	t.count++
	if t.fault.Kind == None || t.count != t.fault.N {
		return nil
	}
	t.result.Struck, t.result.Hit = true, c
	switch t.fault.Kind {
	case Kill:
		t.killAll()
		return nil
	case Short:
		return shorten(pid, regs, length)
	}
	t.again = max(t.fault.Times, 1) - 1
	return fail(pid, regs, t.fault.Errno)
}

// fail lets the kernel skip the call and return an error.
func fail(pid int, regs *unix.PtraceRegs, errno unix.Errno) error {
	regs.Orig_rax = ^uint64(0)
	regs.Rax = -uint64(errno)
	return unix.PtraceSetRegs(pid, regs)
}

// shorten halves an argument.
func shorten(pid int, regs *unix.PtraceRegs, length int) error {
	r := [...]*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9}[length]
	*r /= 2
	return unix.PtraceSetRegs(pid, regs)
}
