package keeper

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// upgrade starts a server from the program that is now where the keeper's came
// from. The one that runs goes on until the new one is ready, and for good if that
// never happens. Servers with passthrough can't run side by side, since they write
// in one ledger; there the one that runs stops first.
func (k *keeper) upgrade() {
	if k.given != nil {
		return
	}
	k.asked = !k.any(serving) || len(k.children) > 1
	if k.asked { // a server is being replaced; when that is over
		return
	}
	if k.state.Service.Passthrough {
		k.stop(k.children[0])
		return
	}
	clones, err := cloneAll(k.device, k.state.Readers)
	if err == nil {
		err = k.startNew(clones)
	}
	if err != nil {
		k.log.print(prioError, fmt.Sprintf("upgrade: %v; the server that runs goes on", err))
	}
}

// follow starts the successor of a server that was stopped. If the new program
// doesn't work, one of the old is.
func (k *keeper) follow(stopped *child) {
	clones, err := cloneAll(k.device, k.state.Readers)
	if err == nil {
		err = k.startNew(clones)
	}
	if err != nil {
		k.log.print(prioError, fmt.Sprintf("upgrade: %v; going on with the old program", err))
		k.again(stopped)
	}
}

// startNew starts a server from the program on the disk.
func (k *keeper) startNew(clones []int) error {
	if k.state.Exe == "" {
		closeDescriptors(clones)
		return errors.New("the path of the program is not known")
	}
	c, err := k.start(root+k.state.Exe, clones)
	if err == nil {
		c.upgraded = true
	}
	return err
}

// completeUpgrade comes when the new server answers and the old one is gone. It
// has shown that the new program works and can read the state of this one, so the
// keeper becomes that too; it would otherwise replace a server that dies later by
// one of the old program.
func (k *keeper) completeUpgrade() {
	if k.given != nil || len(k.children) != 1 || !k.children[0].upgraded || k.children[0].phase != serving {
		return
	}
	c := k.children[0]
	c.upgraded = false
	k.log.print(prioNotice, fmt.Sprintf("upgrade: server %d has taken over", c.pid))
	if err := k.become(root+k.state.Exe, c); err != nil {
		k.log.print(prioError, fmt.Sprintf("upgrade: keeper stays as it is: %v", err))
	}
}

// become replaces this program in place: same process, same parent of the server,
// same descriptors by the same numbers. It returns only if that fails.
func (k *keeper) become(exe string, c *child) error {
	s := *k.state
	s.Servers = []adopted{{PID: c.pid, Control: c.controlFD, Messages: c.messagesFD, Clones: c.clones}}
	m, err := s.memory()
	if err != nil {
		return err
	}
	defer unix.Close(m)
	all := append(s.descriptors(), m)
	defer keepBack(all)
	if err := passOn(all); err != nil {
		return err
	}
	// Ignored, it doesn't kill the next program before that attends to it. Go has no
	// other way: it begins with the signals unblocked that end it.
	signal.Ignore(unix.SIGHUP)
	defer k.attendSignals()
	err = syscall.Exec(exe, keeperRole.argv(&s, m), keeperRole.environ())
	return fmt.Errorf("run %s: %w", exe, err)
}

// catchUp follows become, in the new program: a SIGHUP may have been ignored
// meanwhile, after one more upgrade on the disk.
func (k *keeper) catchUp() {
	var running, installed unix.Stat_t
	if unix.Stat(self, &running) != nil || unix.Stat(root+k.state.Exe, &installed) != nil {
		return
	}
	if running.Dev != installed.Dev || running.Ino != installed.Ino {
		k.upgrade()
	}
}
