package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse"
)

// maxReaders is where more threads only take more processor time; measured on
// walks and sequential reads.
const maxReaders = 4

// stopTime is how long a server that was told to stop may take over the requests
// that it has in hand. They may wait for a disk or the network.
const stopTime = 30 * time.Second

// keeper owns a session. Its fields belong to the goroutine of run.
type keeper struct {
	state    *state
	device   *os.File // the session; blocking, and never handed out
	log      *logger
	events   chan event
	signals  chan os.Signal
	children []*child
	restarts restarts
	asked    bool  // for an upgrade, that couldn't begin yet
	given    error // why the session was given up
}

// keep is the process that keeps a session.
func keep(s *state) int {
	k := newKeeper(s)
	k.attendSignals()
	if len(s.Servers) > 0 {
		k.adopt()
	} else if err := k.begin(); err != nil {
		k.tell(err)
		return exitFailed
	}
	settle(keeperRole, keeperOOM)
	return k.run()
}

func newKeeper(s *state) *keeper {
	if s.Readers <= 0 {
		s.Readers = min(runtime.NumCPU(), maxReaders)
	}
	if s.Exe == "" {
		s.Exe, _ = os.Readlink(self) // if that fails there are no upgrades
	}
	return &keeper{
		state:   s,
		device:  os.NewFile(uintptr(s.Device), "session"),
		log:     newLogger(s),
		events:  make(chan event),
		signals: make(chan os.Signal, 1),
	}
}

// attendSignals ignores what service managers and terminals send to all.
func (k *keeper) attendSignals() {
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)
	signal.Notify(k.signals, unix.SIGHUP)
}

// begin starts the first server.
func (k *keeper) begin() error {
	if err := k.makeLedger(); err != nil {
		return err
	}
	clones, err := cloneAll(k.device, k.state.Readers)
	if err == nil {
		_, err = k.start(self, clones)
	}
	return err
}

// makeLedger makes what servers of a session with passthrough hand on.
func (k *keeper) makeLedger() error {
	if !k.state.Service.Passthrough || k.state.Ledger != 0 {
		return nil
	}
	f, err := fuse.NewLedger()
	if err == nil {
		k.state.Ledger, err = duplicate(f)
	}
	return err
}

// adopt goes on with servers that the program before has started.
func (k *keeper) adopt() {
	for _, a := range k.state.Servers {
		c := &child{pid: a.PID, phase: serving, since: time.Now(), clones: a.Clones}
		c.attend(a.Control, a.Messages)
		k.children = append(k.children, c)
		go c.watch(k.events)
	}
	k.state.Servers = nil
	k.catchUp()
}

// tell answers the starter, once.
func (k *keeper) tell(err error) {
	if k.state.Status == 0 {
		return
	}
	var s started
	if err != nil {
		s.Failure = newRemoteError(err)
	}
	b, err := json.Marshal(s)
	if err == nil {
		unix.Write(k.state.Status, b) // nobody may be there any more
	}
	unix.Close(k.state.Status)
	k.state.Status = 0
}

// run keeps the session until it is over.
func (k *keeper) run() int {
	for len(k.children) > 0 {
		select {
		case e := <-k.events:
			k.handle(e)
			if k.asked {
				k.upgrade()
			}
		case <-k.signals:
			k.upgrade()
		}
	}
	if k.given == nil {
		return exitOver
	}
	if k.state.Status == 0 { // else the starter says it
		k.log.print(prioError, k.given.Error())
	}
	k.tell(k.given)
	return exitFailed // which closes the session: everyone who waits gets an error
}

func (k *keeper) handle(e event) {
	switch {
	case e.message != nil:
		k.log.print(e.message.priority, e.message.text)
	case e.report != nil && e.report.Failure != nil:
		e.child.failure = e.report.Failure
	case e.report != nil && e.report.Session != nil:
		k.ready(e.child, e.report.Session)
	case e.overdue:
		k.overdue(e.child)
	case e.gone:
		k.gone(e.child)
	}
}

// ready takes a server into service, and all others out of it. For a moment both
// answer: no request is bound to one of them before it was read.
func (k *keeper) ready(c *child, s *fuse.Session) {
	if k.given != nil || c.phase != starting {
		return
	}
	c.phase, c.since = serving, time.Now()
	if k.state.Session == nil {
		k.state.Session = s
	}
	k.tell(nil)
	for _, old := range k.children {
		if old != c && old.phase == serving {
			k.stop(old)
		}
	}
	k.completeUpgrade()
}

// stop has a server finish what it has in hand and end.
func (k *keeper) stop(c *child) {
	c.tellStop()
	time.AfterFunc(stopTime, func() { k.events <- event{child: c, overdue: true} })
}

// overdue ends a server that doesn't stop. What it has in hand is for another.
func (k *keeper) overdue(c *child) {
	if slices.Contains(k.children, c) {
		k.log.print(prioWarning, fmt.Sprintf("server %d didn't stop in %v and is killed", c.pid, stopTime))
		c.kill()
	}
}

// gone follows the end of a server.
func (k *keeper) gone(c *child) {
	st := c.reap()
	k.children = slices.DeleteFunc(k.children, func(o *child) bool { return o == c })
	k.judge(c, st)
	c.close()
	if c.phase == stopping {
		k.completeUpgrade()
	}
}

// judge is gone's decision. Whatever c had in hand is sent again by it, or lost.
func (k *keeper) judge(c *child, st unix.WaitStatus) {
	switch {
	case k.given != nil:
	case !k.connected():
		k.killAll() // there is nothing left to answer
		if k.state.Session == nil {
			k.giveUp(c.ended(st)) // before the starter knew that it was mounted
		}
	case k.state.Session == nil:
		k.giveUp(c.ended(st))
	case c.phase == stopping && st.Exited() && st.ExitStatus() == exitOver: // it left nothing behind
		if len(k.children) == 0 {
			k.follow(c)
		}
	case c.phase == starting && k.any(serving):
		k.log.print(prioError, "upgrade: "+c.ended(st).Error()+"; the server that runs goes on")
	default:
		k.replace(c, st)
	}
}

// ended is the end of a server as an error.
func (c *child) ended(st unix.WaitStatus) error {
	if c.failure != nil {
		return c.failure
	}
	return fmt.Errorf("the FUSE server ended: %s", describe(st))
}

func (k *keeper) any(p phase) bool {
	return slices.ContainsFunc(k.children, func(c *child) bool { return c.phase == p })
}

// replace has another server do what a dead one had in hand, and all that follows.
func (k *keeper) replace(c *child, st unix.WaitStatus) {
	err := c.ended(st)
	if k.state.NoRestart {
		k.giveUp(fmt.Errorf("session ends: %w", err))
		return
	}
	if rerr := fuse.Resend(k.device); rerr != nil && k.connected() {
		k.giveUp(cannotResend(err, rerr))
		return
	}
	k.log.print(prioError, err.Error()+"; another takes over")
	if k.any(serving) || k.any(starting) {
		return
	}
	k.restart(c, err)
}

// cannotResend says that requests which the dead server had in hand are lost.
func cannotResend(died, err error) error {
	if errors.Is(err, unix.EINVAL) { // no such notification
		return fmt.Errorf("session ends: %w; this kernel can't send requests again (Linux 6.9 can)", died)
	}
	return fmt.Errorf("session ends: %w; requests can't be sent again: %w", died, err)
}

// restart starts the next server after c, when the time has come.
func (k *keeper) restart(c *child, cause error) {
	lived := time.Duration(0)
	if !c.since.IsZero() {
		lived = time.Since(c.since)
	}
	wait, again := k.restarts.died(lived)
	if !again {
		k.giveUp(fmt.Errorf("session ends: %d servers died as soon as they ran, the last: %w", maxShort+1, cause))
		return
	}
	if k.sleepConnected(wait) {
		k.again(c)
	}
}

// again starts the running program once more, in the place of a dead server.
func (k *keeper) again(dead *child) {
	if _, err := k.start(self, dead.takeClones()); err != nil {
		k.giveUp(fmt.Errorf("session ends: %w", err))
	}
}

// giveUp ends the session, by ending all that holds it open.
func (k *keeper) giveUp(why error) {
	k.given = why
	k.killAll()
}

func (k *keeper) killAll() {
	for _, c := range k.children {
		c.kill()
	}
}

// connected tells whether the session still is: it isn't once it was unmounted or
// aborted.
func (k *keeper) connected() bool { return k.sleepConnected(0) }

// sleepConnected sleeps for d, or until the session is over, and tells whether it
// is not. It is for times without a server, which would notice.
func (k *keeper) sleepConnected(d time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(k.state.Device)}} // POLLERR is always asked for
	end := time.Now().Add(d)
	for {
		n, err := unix.Poll(p, int(max(time.Until(end), 0).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 0
	}
}
