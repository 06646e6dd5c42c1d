package keeper

import (
	"fmt"
	"os"
	"strconv"
)

// Exit codes of keeper and server.
const (
	exitOver   = 0 // the session is over; of a server also: it was told to stop
	exitFailed = 1
	exitUsage  = 2
)

// Main has to be the first thing that main does, with os.Args: if this process is
// a keeper or a server, it is that until its end, and code is what to exit with.
// Otherwise is is false and nothing has been done.
func Main(args []string) (code int, is bool) {
	switch {
	case keeperRole.is(args):
		return enter(args[2], keeperRole, keep), true
	case serverRole.is(args):
		return enter(args[2], serverRole, serve), true
	}
	return 0, false
}

// enter reads the state that the process was started with and runs it.
func enter(stateFD string, r role, run func(*state) int) int {
	fd, err := strconv.Atoi(stateFD)
	if err != nil || fd <= 2 {
		fmt.Fprintf(os.Stderr, "%s: is not to be started by hand\n", r.name)
		return exitUsage
	}
	s, err := readState(fd)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: state: %v\n", r.name, err)
		return exitUsage
	}
	keepBack(s.descriptors())
	return run(s)
}
