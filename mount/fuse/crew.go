package fuse

import (
	"sync"

	"golang.org/x/sys/unix"
)

// crew is the readers of a server. A request should meet a reader that waits for it, and only one: a second one that waits
// would get every other request, each on another processor, at half as much processor time again. So readers rest, until one
// of those that wait goes off to read a long object, or finds more requests than it can answer.
type crew struct {
	rested int // eventfd, a semaphore that readers rest on; -1: there is none

	mu      sync.Mutex
	waiting int // readers that wait for a request, or answer one that takes no time
	resting int
	over    bool
}

// backlog is how many requests a reader takes without having had to wait before it calls another.
const backlog = 8

func (c *crew) open() (err error) {
	c.rested, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE)
	return err
}

func (c *crew) close() error {
	fd := c.rested
	if c.rested = -1; fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// join counts one more reader that waits.
func (c *crew) join() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting++
}

// leave counts one less, and has another take its place.
func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting--; c.waiting <= 0 {
		c.wake()
	}
}

// call has one more reader wait.
func (c *crew) call() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

func (c *crew) wake() {
	if c.resting > 0 {
		c.resting--
		c.waiting++
		unix.Write(c.rested, eventOne)
	}
}

// rest rests if another reader waits, and tells whether it did.
func (c *crew) rest() bool {
	if !c.mayRest() {
		return false
	}
	var b [8]byte
	for {
		if _, err := unix.Read(c.rested, b[:]); err != unix.EINTR {
			return true
		}
	}
}

func (c *crew) mayRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting <= 1 || c.over {
		return false
	}
	c.waiting--
	c.resting++
	return true
}

// dismiss wakes all up, for good.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for c.resting > 0 {
		c.wake()
	}
}
