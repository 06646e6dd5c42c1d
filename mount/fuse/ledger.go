package fuse

import (
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
)

// ledger is a memory file that outlives the server: which inodes have a backing file, under which ID. It is all that a
// server knows and its successor can't find out. Each backing file has a place, of two words: its inode's nid, and its ID,
// 0 in a free place. The ID is written last and erased first, so a server may die in between.
//
// How many open files an inode has is not in it, so what a dead server has opened stays open until the file system is
// unmounted; it is used again when the inode is opened again.
type ledger struct {
	words []atomic.Uint64 // of the map
	free  []int           // places
	b     []byte          // the map
}

const (
	wordsPerPlace = 2
	ledgerSize    = backingMax * wordsPerPlace * 8
)

// NewLedger makes the memory file for [Options].Ledger. It is for whoever starts servers of one session one after another.
func NewLedger() (*os.File, error) {
	fd, err := unix.MemfdCreate("flatroot-ledger", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ledger")
	err = unix.Ftruncate(fd, ledgerSize)
	if err == nil { // shorter, it would kill who has it mapped
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return f, nil
}

// open maps the ledger.
func (l *ledger) open(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	if st.Size() != ledgerSize {
		return fmt.Errorf("open ledger: it has %d bytes, want %d", st.Size(), ledgerSize)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, ledgerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map ledger: %w", err)
	}
	l.b = b
	l.words = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&b[0])), backingMax*wordsPerPlace) // a map is aligned to pages
	return nil
}

func (l *ledger) close() error {
	b := l.b
	if l.b, l.words, l.free = nil, nil, nil; b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// load calls each for all that is written, and learns which places are free.
func (l *ledger) load(each func(nid erofs.Nid, id int32, place int)) {
	l.free = l.free[:0]
	for place := len(l.words)/wordsPerPlace - 1; place >= 0; place-- { // so that the first places are taken first
		nid, id := l.words[place*wordsPerPlace].Load(), l.words[place*wordsPerPlace+1].Load()
		if id == 0 || id > math.MaxInt32 {
			l.free = append(l.free, place)
			continue
		}
		each(erofs.Nid(nid), int32(id), place)
	}
}

// write notes a backing file and returns its place, -1 if there is no ledger or no room.
func (l *ledger) write(nid erofs.Nid, id int32) (place int) {
	n := len(l.free) - 1
	if n < 0 {
		return -1
	}
	place, l.free = l.free[n], l.free[:n]
	l.words[place*wordsPerPlace].Store(uint64(nid))
	l.words[place*wordsPerPlace+1].Store(uint64(id))
	return place
}

func (l *ledger) erase(place int) {
	if place < 0 {
		return
	}
	l.words[place*wordsPerPlace+1].Store(0)
	l.free = append(l.free, place)
}
