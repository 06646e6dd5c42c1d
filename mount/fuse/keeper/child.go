package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse"
)

// phase is how far a server has come.
type phase int

const (
	starting phase = iota // it has not said yet that it answers
	serving
	stopping // it was told to stop
)

// child is a server, as the keeper sees it.
type child struct {
	pid      int
	phase    phase
	since    time.Time // when it began to serve
	clones   []int     // it reads from; they hold what it has read and not answered
	control  *os.File
	messages *os.File // its standard error
	failure  *remoteError
	upgraded bool // of the program on the disk, which may be newer than the keeper

	controlFD, messagesFD int // of the files, for become
}

// event is what a goroutine tells the keeper's main one.
type event struct {
	child   *child
	report  *report  // what it said
	message *message // to be logged
	overdue bool     // it had the time to stop
	gone    bool     // it is dead, or as good as dead
}

// start starts a server from the program at exe that reads from clones. They are
// the server's, or closed.
func (k *keeper) start(exe string, clones []int) (*child, error) {
	c := &child{clones: clones}
	if err := c.spawn(exe, k.state); err != nil {
		closeDescriptors(clones)
		return nil, err
	}
	k.children = append(k.children, c)
	go c.watch(k.events)
	return c, nil
}

// takeClones takes the clones of a server that is dead, for its successor. They
// are made to block again, as fresh ones do: see fuse.Server.Serve.
func (c *child) takeClones() []int {
	clones := c.clones
	c.clones = nil
	for _, fd := range clones {
		unix.SetNonblock(fd, false)
	}
	return clones
}

// cloneAll makes n clones of the device, or as many as it can.
func cloneAll(device *os.File, n int) (clones []int, err error) {
	for range n {
		f, cerr := fuse.Clone(device)
		if cerr != nil {
			err = cerr
			break
		}
		fd, derr := duplicate(f)
		if derr != nil {
			err = derr
			break
		}
		clones = append(clones, fd)
	}
	if len(clones) == 0 {
		return nil, fmt.Errorf("clone the session: %w", err)
	}
	return clones, nil
}

// spawn starts the process. What it gets is described by the keeper's state.
func (c *child) spawn(exe string, s *state) error {
	null, err := openNull()
	if err != nil {
		return err
	}
	defer unix.Close(null)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(pair[1])
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(pair[0])
		return fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(pipe[1])
	p := new(parcel)
	p.addAll([]int{null, null, pipe[1]})
	t := &state{Service: s.Service, Session: s.Session, Initrd: s.Initrd}
	t.Image, t.Ledger, t.Objects = p.add(s.Image), p.add(s.Ledger), p.addAll(s.Objects)
	t.Clones, t.Control = p.addAll(c.clones), p.add(pair[1])
	if c.pid, err = spawn(exe, serverRole, t, p); err != nil {
		unix.Close(pair[0])
		unix.Close(pipe[0])
		return err
	}
	c.attend(pair[0], pipe[0])
	return nil
}

// attend takes the keeper's ends of socket and pipe. Both are non-blocking, so
// waiting for them takes no threads.
func (c *child) attend(control, messages int) {
	c.controlFD, c.messagesFD = control, messages
	c.control = os.NewFile(uintptr(control), "control")
	c.messages = os.NewFile(uintptr(messages), "messages")
}

// watch sends what the server says until it is gone and its last message sent. The
// end of the control socket is its end: nobody else has the other side.
func (c *child) watch(events chan<- event) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		readLines(c.messages, func(m message) { events <- event{child: c, message: &m} })
	}()
	b := make([]byte, maxReport)
	for {
		n, err := c.control.Read(b)
		if err != nil {
			break
		}
		r := new(report)
		if err := json.Unmarshal(b[:n], r); err != nil {
			break
		}
		events <- event{child: c, report: r}
	}
	c.kill()
	<-said
	events <- event{child: c, gone: true}
}

// tellStop lets the server finish what it has in hand and end.
func (c *child) tellStop() {
	c.phase = stopping
	if _, err := c.control.Write([]byte("stop")); err != nil {
		c.kill() // it is about to die anyway
	}
}

// kill is for a child that has not been reaped: its process ID is still its own.
func (c *child) kill() { unix.Kill(c.pid, unix.SIGKILL) }

// reap returns how the process ended. When it returns all threads and system calls
// of the process have come to their end too.
func (c *child) reap() unix.WaitStatus {
	var st unix.WaitStatus
	for {
		_, err := unix.Wait4(c.pid, &st, 0, nil)
		if err != unix.EINTR {
			return st
		}
	}
}

// close lets go of what the server has read and not answered: if it has not been
// sent again, its askers get errors.
func (c *child) close() {
	c.control.Close()
	c.messages.Close()
	closeDescriptors(c.clones)
}

// describe says in words how a process ended.
func describe(st unix.WaitStatus) string {
	switch {
	case st.Signaled():
		return "signal " + strconv.Itoa(int(st.Signal())) + " (" + st.Signal().String() + ")"
	case st.ExitStatus() == exitOver:
		return "no reason given"
	}
	return "exit status " + strconv.Itoa(st.ExitStatus())
}
