package powercut

import "sync"

// Kinds of events.
const (
	eventWrite byte = iota
	eventZero       // a write of zeros that has no data
	eventFlush      // all writes before it are durable
	eventMark       // the workload announced something
)

// event is what a disk was told to do, or a mark.
type event struct {
	Kind byte
	Off  int64
	Len  int64
	Data []byte // of a write
	Mark int    // of a mark: its number, from 1
}

// apply does to a disk what the event says.
func (e event) apply(b *blocks) {
	switch e.Kind {
	case eventWrite:
		b.write(e.Data, e.Off)
	case eventZero:
		b.zero(e.Off, e.Len)
	}
}

// changes tells whether it is a write.
func (e event) changes() bool { return e.Kind == eventWrite || e.Kind == eventZero }

// disk is a file of the server.
type disk struct {
	mu     sync.Mutex
	blocks *blocks
	base   *blocks // what it held when the recording began; nil: nothing is recorded
	events []event
	marks  int
}

func newDisk(b *blocks) *disk { return &disk{blocks: b} }

func (d *disk) read(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blocks.read(p, off)
}

// do carries an event out, and keeps it if there is a recording. The order of the lock is the disk's order.
func (d *disk) do(e event) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.Off < 0 || e.Len < 0 || e.Off > d.blocks.size || e.Len > d.blocks.size-e.Off {
		return false
	}
	e.apply(d.blocks)
	if d.base != nil {
		d.events = append(d.events, e)
	}
	return true
}

// record begins a recording.
func (d *disk) record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.events, d.marks = d.blocks.clone(), nil, 0
}

// mark says that something was announced.
func (d *disk) mark() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks++
	d.events = append(d.events, event{Kind: eventMark, Mark: d.marks})
}

// recorded ends the recording.
func (d *disk) recorded() *recording {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &recording{base: d.base, events: d.events}
	d.base, d.events = nil, nil
	return r
}
