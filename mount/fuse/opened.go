package fuse

import (
	"sync"

	"github.com/flatroot/flatroot/erofs"
)

// openTable knows which inodes are open, with passthrough. All open files of an inode must be of the same kind, with one
// backing file, or the kernel fails an open with EIO. It has an entry for each inode that is open somewhere, and at most
// backingMax of them have a backing file.
type openTable struct {
	mu      sync.Mutex
	inodes  map[erofs.Nid]*opened
	backing int    // how many have a backing file, or are about to
	ledger  ledger // the same for the next server
}

type opened struct {
	refs  int  // open files, and opens that go on; guarded by the table
	place int  // in the ledger; guarded by the table
	older bool // opened by a server before this one, nobody knows how often

	mu   sync.Mutex // held while the backing file is opened
	done bool       // it was
	id   int32      // the backing ID, 0: none, reads are sent to the server
}

// backingMax bounds the files that the kernel keeps open without counting them as any process's.
const backingMax = 16384

// open counts one more open file of an inode and returns its backing ID, which register makes for the first of them.
func (t *openTable) open(nid erofs.Nid, register func() (int32, error)) (id int32, err error) {
	o := t.enter(nid)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return o.id, nil
	}
	reserved := t.reserve()
	defer func() { // also after a fault in the image
		if reserved && o.id == 0 {
			t.unreserve()
		}
		if !o.done {
			t.release(nid)
		}
	}()
	if reserved {
		if o.id, err = register(); err != nil {
			return 0, err
		}
	}
	o.done = true
	t.write(nid, o)
	return o.id, nil
}

// write enters a backing file into the ledger, before the kernel has it: it can't be in use then without being there.
func (t *openTable) write(nid erofs.Nid, o *opened) {
	if o.id == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	o.place = t.ledger.write(nid, o.id)
}

// load takes over what other servers have opened.
func (t *openTable) load() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inodes = map[erofs.Nid]*opened{}
	t.ledger.load(func(nid erofs.Nid, id int32, place int) {
		t.inodes[nid] = &opened{done: true, id: id, place: place, older: true}
	})
	t.backing = len(t.inodes)
}

func (t *openTable) enter(nid erofs.Nid) *opened {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.inodes[nid]
	if o == nil {
		if t.inodes == nil {
			t.inodes = map[erofs.Nid]*opened{}
		}
		o = new(opened)
		t.inodes[nid] = o
	}
	o.refs++
	return o
}

func (t *openTable) reserve() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.backing >= backingMax {
		return false
	}
	t.backing++
	return true
}

func (t *openTable) unreserve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backing--
}

// release counts one open file less. After the last one it returns the backing ID, to be closed. An inode is not known if
// another server opened it.
func (t *openTable) release(nid erofs.Nid) (id int32, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.inodes[nid]
	if o == nil {
		return 0, false
	}
	if o.refs--; o.refs > 0 || o.older {
		return 0, true
	}
	delete(t.inodes, nid)
	if o.id != 0 {
		t.backing--
		t.ledger.erase(o.place)
	}
	return o.id, true
}
