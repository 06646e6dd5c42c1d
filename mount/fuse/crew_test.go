package fuse

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newCrew(t *testing.T) *crew {
	t.Helper()
	c := new(crew)
	must(t, c.open())
	t.Cleanup(func() { must(t, c.close()) })
	return c
}

// resting waits until so many readers rest.
func resting(t *testing.T, c *crew, n int) {
	t.Helper()
	for range 1000 {
		c.mu.Lock()
		now := c.resting
		c.mu.Unlock()
		if now == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d readers don't rest", n)
}

// One reader always waits, whoever goes and comes.
func TestCrew(t *testing.T) {
	c := newCrew(t)
	c.join()
	if c.rest() {
		t.Error("the only reader rested")
	}
	var woken sync.WaitGroup
	for k := range 3 {
		c.join()
		woken.Go(func() { c.rest() })
		resting(t, c, k+1)
	}
	c.leave() // to read an object
	resting(t, c, 2)
	c.call()
	resting(t, c, 1)
	c.join()
	c.leave() // two are waiting: nobody has to come
	resting(t, c, 1)
	c.dismiss()
	woken.Wait()
	if c.rest() {
		t.Error("rested after it was over")
	}
}

// Readers that come, rest and read objects at random never all rest.
func TestCrewNeverAllRest(t *testing.T) {
	c := newCrew(t)
	var readers sync.WaitGroup
	for k := range 4 {
		readers.Go(func() {
			c.join()
			for n := range 2000 {
				switch (n + k) % 3 {
				case 0:
					c.leave()
					c.join()
				case 1:
					c.call()
				default:
					c.rest()
				}
			}
			c.leave() // and is never seen again, as one that reads an object for ever
		})
	}
	done := make(chan bool)
	go func() {
		readers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		c.mu.Lock()
		defer c.mu.Unlock()
		t.Fatalf("stuck: %d wait, %d rest", c.waiting, c.resting)
	}
	if c.waiting != 0 || c.resting != 0 {
		t.Errorf("%d wait, %d rest", c.waiting, c.resting)
	}
}

func TestCrewClosed(t *testing.T) {
	c := newCrew(t)
	c.join()
	c.join()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	if c.rest() {
		t.Error("rested")
	}
	if err := (&crew{rested: -1}).close(); err != nil {
		t.Error(err)
	}
	if _, err := unix.FcntlInt(uintptr(c.rested), unix.F_GETFD, 0); err != nil {
		t.Error(err)
	}
}
