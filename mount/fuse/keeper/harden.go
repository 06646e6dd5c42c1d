package keeper

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What the kernel may do to the processes when memory runs out: a value of
// oom_score_adj, from -1000, never, to 1000. A server that is killed is replaced,
// so it may go before the keeper does, but after everything ordinary.
const (
	keeperOOM = -1000
	serverOOM = -900
)

// settle closes what isn't in the state, gives the process its name, and lessens
// what others can do to it. It comes after what somebody waits for. Each part is a
// gift where the kernel grants it, and none is needed.
func settle(r role, oom int) {
	closeInherited()
	write := func(path, value string) {
		os.WriteFile(root+"/proc/self/"+path, []byte(value), 0)
	}
	write("comm", r.name) // else that of the path it was started by, "exe"
	write("oom_score_adj", strconv.Itoa(oom))
	unix.Umask(0o077)
	// No core files with the contents of files in them, and no debugger but root's.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// capabilities that the keeper or the server may need if they had them anyway.
var capabilities = []int{
	unix.CAP_DAC_READ_SEARCH, // read objects, whose mode says nothing about the image's
	unix.CAP_SYS_RESOURCE,    // lower oom_score_adj
}

// confine takes from the calling thread, and so from programs that it starts, all
// capabilities that a server has no use for. CAP_SYS_ADMIN is for passthrough:
// FUSE_DEV_IOC_BACKING_OPEN asks for it.
func confine(passthrough bool) {
	kept := uint64(0)
	for _, c := range capabilities {
		kept |= 1 << c
	}
	if passthrough {
		kept |= 1 << unix.CAP_SYS_ADMIN
	}
	for c := range 64 { // the kernel refuses numbers behind CAP_LAST_CAP
		if kept&(1<<c) == 0 {
			unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
	}
	unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
