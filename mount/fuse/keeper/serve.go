package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
)

// report is what a server says through the control socket, once: it answers the
// session, or why it can't. From the other side one datagram comes, whatever its
// content, and tells the server to stop.
type report struct {
	Session *fuse.Session `json:"session,omitempty"`
	Failure *remoteError  `json:"failure,omitempty"`
}

// maxReport bounds a datagram: one error, with a path or two in it.
const maxReport = 64 << 10

// serve is the process that answers a session.
func serve(s *state) int {
	// The socket is one of a non-blocking pair, so a goroutine waits here and no thread.
	control := os.NewFile(uintptr(s.Control), "control")
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE) // sent to a group, meant for others
	stopped := make(chan struct{})
	go watchControl(control, stopped)
	devices := files(s.Clones)
	server, err := answering(s, devices)
	if err != nil {
		say(control, report{Failure: newRemoteError(err)})
		return exitFailed
	}
	if err := say(control, report{Session: s.Session}); err != nil {
		return exitFailed
	}
	settle(serverRole, serverOOM)
	go func() {
		<-stopped
		server.Stop()
	}()
	if err := server.Serve(devices); err != nil {
		logLine("serve: %v", err)
		return exitFailed
	}
	return exitOver
}

// watchControl waits for what the keeper says: stop, or, by its death, that all is
// over.
func watchControl(control *os.File, stopped chan<- struct{}) {
	b := make([]byte, 16)
	if _, err := control.Read(b); err != nil {
		os.Exit(exitFailed)
	}
	close(stopped)
	control.Read(b)
	os.Exit(exitFailed)
}

// answering returns a server of the session, after INIT: it answers that, or goes
// on with what another server has negotiated.
func answering(s *state, devices []*os.File) (*fuse.Server, error) {
	if len(devices) == 0 {
		return nil, errors.New("no device to serve")
	}
	v := s.serving()
	defer closeServing(v) // the server has what it needs of its own
	o := fuse.Options{Readers: len(devices), Log: logLine}
	if s.Ledger != 0 {
		o.Ledger = os.NewFile(uintptr(s.Ledger), "ledger")
		defer o.Ledger.Close()
	}
	server, err := fuse.NewServer(v, o)
	if err != nil {
		return nil, err
	}
	if s.Session != nil {
		return server, server.Resume(*s.Session)
	}
	session, err := server.Init(devices[0])
	s.Session = &session
	return server, err
}

func closeServing(v mount.Serving) {
	v.Image.Close()
	for _, d := range v.Objects {
		d.Close()
	}
}

// files makes files of clones. A clone is fresh, and so still blocking: os.NewFile
// leaves it alone then, and doesn't have Go's runtime wait for it too.
func files(fds []int) []*os.File {
	list := make([]*os.File, len(fds))
	for i, fd := range fds {
		list[i] = os.NewFile(uintptr(fd), "device")
	}
	return list
}

func say(control *os.File, r report) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = control.Write(b)
	return err
}

// logLine sends a message to the keeper, as a line of standard error. The pipe
// doesn't block: rather than to wait for a keeper that was stopped, messages get
// lost.
func logLine(format string, args ...any) {
	line := fmt.Appendf([]byte(prioWarning.prefix()), format, args...)
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	for i, c := range line {
		if c == '\n' {
			line[i] = ' '
		}
	}
	unix.Write(2, append(line, '\n'))
}
