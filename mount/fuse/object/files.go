package object

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// files keeps descriptors open by object path.
type files struct {
	open func(path []byte) (*descriptor, error)

	mu     sync.Mutex
	kept   lru[string, *descriptor]
	closed bool
}

func (c *files) init(max int, open func([]byte) (*descriptor, error)) {
	c.open = open
	c.kept.init(int64(max))
}

// get returns a descriptor that put must be called with, and whether it was kept
// from before.
func (c *files) get(path []byte) (d *descriptor, kept bool, err error) {
	if d, err := c.find(path); d != nil || err != nil {
		return d, true, err
	}
	d, err = c.open(path)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		c.drop() // others in this process, or on the machine, need many
		d, err = c.open(path)
	}
	if err != nil {
		return nil, false, err
	}
	c.keep(d)
	return d, false, nil
}

func (c *files) find(path []byte) (*descriptor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("read object %.80q: pool: %w", path, os.ErrClosed)
	}
	n, ok := c.kept.nodes[string(path)] // allocates nothing, unlike lru.get
	if !ok {
		return nil, nil
	}
	c.kept.touch(n)
	n.value.refs++
	return n.value, nil
}

// keep takes a new descriptor in, for its opener and for those to come. Of two
// that were opened at a time the later stays.
func (c *files) keep(d *descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.refs = 1
	if c.closed {
		return
	}
	if old, ok := c.kept.get(d.name); ok {
		c.forget(old)
	}
	d.refs, d.kept = 2, true
	c.kept.put(d.name, d, 1)
	for {
		old, ok := c.kept.pop(false)
		if !ok {
			return
		}
		c.unkeep(old)
	}
}

// put gives a descriptor back; one that is bad is not kept.
func (c *files) put(d *descriptor, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bad && d.kept {
		c.forget(d)
	}
	c.release(d)
}

// forget takes out one that is kept.
func (c *files) forget(d *descriptor) {
	c.kept.remove(d.name)
	c.unkeep(d)
}

func (c *files) unkeep(d *descriptor) {
	d.kept = false
	c.release(d)
}

func (c *files) release(d *descriptor) {
	if d.refs--; d.refs == 0 {
		d.close()
	}
}

// drop closes all that nobody reads from just now.
func (c *files) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		d, ok := c.kept.pop(true)
		if !ok {
			return
		}
		c.unkeep(d)
	}
}

func (c *files) close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.drop()
	return nil
}
