package keeper

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a process is for: argv[0], which ps and systemd see, and argv[1].
type role struct {
	name string
	word string
}

var (
	keeperRole = role{"flatroot-keeper", "--keep-session"}
	serverRole = role{"flatroot-server", "--serve-session"}
)

// argv0 is the name, behind an @ if the process begins in an initramfs: systemd
// spares such ones of root when it goes from there to the real root, and when it
// goes back at shutdown (systemd, "Storage Daemons for the Root File System").
func (r role) argv0(initrd bool) string {
	if initrd {
		return "@" + r.name
	}
	return r.name
}

// is tells whether the process with the arguments args was spawned for this role.
func (r role) is(args []string) bool {
	return len(args) >= 3 && strings.TrimPrefix(args[0], "@") == r.name && args[1] == r.word
}

// argv is the whole command line. The digest at its end is for people who look at
// a list of processes.
func (r role) argv(s *state, stateFD int) []string {
	v := []string{r.argv0(s.Initrd), r.word, strconv.Itoa(stateFD)}
	if d := s.Service.Digest; !d.IsZero() {
		v = append(v, d.String())
	}
	return v
}

// environ is the environment of a process: the keeper has next to nothing to do
// and needs no processors, each of which costs memory. Everything else by which
// the Go runtime can be steered is left out, and so is what others mean by theirs.
func (r role) environ() []string {
	if r == keeperRole {
		return []string{"GOMAXPROCS=1"}
	}
	return []string{}
}

// spawn starts the program at the path exe with the descriptors of p, in a session
// (setsid) and process group of its own, out of reach of any terminal.
func spawn(exe string, r role, s *state, p *parcel) (pid int, err error) {
	m, err := s.memory()
	if err != nil {
		return 0, err
	}
	defer unix.Close(m)
	n := p.add(m)
	pid, err = syscall.ForkExec(exe, r.argv(s, n), &syscall.ProcAttr{
		Dir:   "/",
		Env:   r.environ(),
		Files: p.fds,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", exe, err)
	}
	return pid, nil
}

// openNull opens /dev/null, for the standard descriptors.
func openNull() (int, error) {
	fd, err := unix.Open(root+"/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/null: %w", err)
	}
	return fd, nil
}
