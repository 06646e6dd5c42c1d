package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse"
)

// stateVersion changes when a program that knows only another one can't go on
// with a session. Such a program refuses to be upgraded to.
const stateVersion = 1

// state is what a keeper or a server is told by the process that starts it, or by
// the program that it was before. Descriptors are numbers in the new process; 0,
// which is always /dev/null, stands for none.
type state struct {
	Version   int           `json:"version"`
	Service   mount.Service `json:"service"`
	Session   *fuse.Session `json:"session,omitempty"` // nil: INIT has not been answered
	Readers   int           `json:"readers"`
	NoRestart bool          `json:"no_restart,omitempty"`
	Initrd    bool          `json:"initrd,omitempty"`   // see argv0
	LogKind   logKind       `json:"log_kind,omitempty"` // keeper
	Exe       string        `json:"exe,omitempty"`      // keeper: path of the program, for upgrades

	Image   int       `json:"image"`
	Objects []int     `json:"objects,omitempty"`
	Ledger  int       `json:"ledger,omitempty"`  // with passthrough, see fuse.NewLedger
	Device  int       `json:"device,omitempty"`  // keeper: the session
	Status  int       `json:"status,omitempty"`  // keeper: to the starter
	Log     int       `json:"log,omitempty"`     // keeper: the log file
	Servers []adopted `json:"servers,omitempty"` // keeper, after an upgrade
	Clones  []int     `json:"clones,omitempty"`  // server: of the session's device, one a reader
	Control int       `json:"control,omitempty"` // server: to the keeper
}

// adopted is a server that was started by the program that the keeper was before.
type adopted struct {
	PID      int   `json:"pid"`
	Control  int   `json:"control"`
	Messages int   `json:"messages"`
	Clones   []int `json:"clones"`
}

// descriptors lists those that the process has by the state.
func (s *state) descriptors() []int {
	all := append([]int{s.Image, s.Ledger, s.Device, s.Status, s.Log, s.Control}, s.Objects...)
	all = append(all, s.Clones...)
	for _, a := range s.Servers {
		all = append(append(all, a.Control, a.Messages), a.Clones...)
	}
	used := all[:0]
	for _, fd := range all {
		if fd != 0 {
			used = append(used, fd)
		}
	}
	return used
}

// serving is the service and its files, which stay open for as long as the result
// is in use.
func (s *state) serving() mount.Serving {
	v := mount.Serving{Service: s.Service, Image: os.NewFile(uintptr(s.Image), "image")}
	for _, fd := range s.Objects {
		v.Objects = append(v.Objects, os.NewFile(uintptr(fd), "objects"))
	}
	return v
}

// maxState bounds what is read: a state has some hundred bytes, and ten for each
// object directory.
const maxState = 1 << 20

// memory writes the state to an anonymous file, which the next process gets. It
// is no argument since arguments are seen by all users, and have limits.
func (s *state) memory() (fd int, err error) {
	s.Version = stateVersion
	b, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	fd, err = unix.MemfdCreate("flatroot-state", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("memory file: %w", err)
	}
	if _, err := unix.Pwrite(fd, b, 0); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("write memory file: %w", err)
	}
	return fd, nil
}

// readState reads what memory wrote and closes fd.
func readState(fd int) (*state, error) {
	f := os.NewFile(uintptr(fd), "state")
	if f == nil {
		return nil, unix.EBADF
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxState))
	if err != nil {
		return nil, err
	}
	return parseState(b)
}

func parseState(b []byte) (*state, error) {
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("version %d of the state is not known, only %d", s.Version, stateVersion)
	}
	for _, fd := range s.descriptors() {
		if fd <= 2 {
			return nil, fmt.Errorf("descriptor %d can't be in a state", fd)
		}
	}
	if s.Image == 0 {
		return nil, errors.New("state has no image")
	}
	return s, nil
}
