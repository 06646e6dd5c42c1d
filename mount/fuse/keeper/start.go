package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// Options say how a session is kept. The zero value is right for mount(8).
type Options struct {
	Log        string // file that messages are appended to; empty: the journal, or standard error with Foreground
	Foreground bool   // messages go to the starter's standard error
	Readers    int    // requests that are answered at the same time; 0: as many as processors, at most 4
	NoRestart  bool   // a server that dies is not replaced: the session ends with it
	Exe        string // program that becomes keeper and server, whose main calls Main; empty: this one
}

// Start returns the function by which a plan starts its FUSE server: a process
// that stays when the calling one ends. Errors are the server's own, and wrap its
// errno.
func Start(o Options) mount.StartFunc { return NewLauncher(o).Start }

// Launcher starts one keeper and lets the caller wait for its end, as a process in
// the foreground does.
type Launcher struct {
	o     Options
	pid   int           // of the keeper
	ended chan struct{} // closed when it is gone
	err   error         // set by then
}

// NewLauncher returns one that has started nothing yet.
func NewLauncher(o Options) *Launcher { return &Launcher{o: o} }

// PID is the keeper's process ID, 0 before Start.
func (l *Launcher) PID() int { return l.pid }

// Wait returns when the session is over: nil when it was unmounted.
func (l *Launcher) Wait() error {
	if l.ended == nil {
		return errors.New("wait for the FUSE server: none was started")
	}
	<-l.ended
	return l.err
}

// Start is a mount.StartFunc. A Launcher can be started once.
func (l *Launcher) Start(ctx context.Context, v mount.Serving) error {
	if l.ended != nil {
		return errors.New("this FUSE server was started before")
	}
	// Descriptors are made here and duplicated by the spawn, so all of ours end
	// with the function.
	status, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer status.Close()
	err = l.spawn(v, theirs)
	theirs.Close()
	if err != nil {
		return err
	}
	l.ended = make(chan struct{})
	stop := context.AfterFunc(ctx, func() { unix.Kill(l.pid, unix.SIGKILL) })
	err = readStatus(status)
	if !stop() {
		err = ctx.Err()
	}
	go l.reap() // not before: until then the process ID is the keeper's own
	if err != nil {
		<-l.ended // or it would be a zombie for a moment
	}
	return err
}

// reap waits for the keeper, which is a child of the starter for as long as there
// is one. It isn't an os.Process: for the first of these Go starts a process only to
// find out about the kernel.
func (l *Launcher) reap() {
	var st unix.WaitStatus
	_, err := unix.Wait4(l.pid, &st, 0, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(l.pid, &st, 0, nil)
	}
	switch {
	case err != nil:
		l.err = fmt.Errorf("wait for the FUSE server: %w", err)
	case st != 0:
		l.err = fmt.Errorf("the FUSE server's keeper ended: %s", describe(st))
	}
	close(l.ended)
}

// spawn starts the keeper.
func (l *Launcher) spawn(v mount.Serving, status *os.File) error {
	null, err := openNull()
	if err != nil {
		return err
	}
	defer unix.Close(null)
	s := &state{
		Service: v.Service, Readers: l.o.Readers, NoRestart: l.o.NoRestart, Initrd: inInitrd(),
	}
	p := new(parcel)
	p.addAll([]int{null, null, null})
	logFD, err := l.openLog()
	if err != nil {
		return err
	}
	switch {
	case logFD != 0:
		defer unix.Close(logFD)
		s.Log, s.LogKind = p.add(logFD), logFile
	case l.o.Foreground:
		p.fds[2], s.LogKind = 2, logStderr
	}
	s.Device, s.Image, s.Status = p.add(int(v.Device.Fd())), p.add(int(v.Image.Fd())), p.add(int(status.Fd()))
	for _, d := range v.Objects {
		s.Objects = append(s.Objects, p.add(int(d.Fd())))
	}
	l.pid, err = spawnConfined(l.exe(), s, p)
	runtime.KeepAlive(v)
	return err
}

func (l *Launcher) exe() string {
	if l.o.Exe != "" {
		return l.o.Exe
	}
	return self
}

// openLog opens the log file, if there shall be one: 0 stands for none. It is done
// here, where a path means what the caller means by it and an error is seen.
func (l *Launcher) openLog() (int, error) {
	if l.o.Log == "" {
		return 0, nil
	}
	fd, err := unix.Open(l.o.Log, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open log %s: %w", l.o.Log, err)
	}
	return fd, nil
}

// spawnConfined spawns a keeper from a thread that has given away what the keeper
// must not have. The thread ends with the goroutine, which stays locked to it.
func spawnConfined(exe string, s *state, p *parcel) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		confine(s.Service.Passthrough)
		pid, err = spawn(exe, keeperRole, s, p)
	}()
	<-done
	return pid, err
}

// inInitrd is systemd's own test.
func inInitrd() bool {
	return unix.Access("/etc/initrd-release", unix.F_OK) == nil
}

// started is what the keeper says through the status pipe, once: nothing is wrong,
// or what is.
type started struct {
	Failure *remoteError `json:"failure,omitempty"`
}

// maxStatus bounds what is read: one error, with a path or two in it.
const maxStatus = 64 << 10

// readStatus waits for what the keeper says.
func readStatus(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, maxStatus))
	if err != nil {
		return fmt.Errorf("status of the FUSE server: %w", err)
	}
	var s started
	switch err := json.Unmarshal(b, &s); {
	case len(b) == 0:
		return errors.New("the FUSE server's keeper died before it said anything; " +
			"does main of this program call keeper.Main first?")
	case err != nil:
		return fmt.Errorf("status of the FUSE server: %w", err)
	case s.Failure != nil:
		return s.Failure
	}
	return nil
}
