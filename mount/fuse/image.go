package fuse

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/object"
)

// mapping is a file in memory.
type mapping struct {
	b []byte
}

func (m *mapping) open(f *os.File, size int64) error {
	if size <= 0 || size > math.MaxInt {
		return fmt.Errorf("map %s of %d bytes: %w", f.Name(), size, erofs.ErrNotImage)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.Name(), err)
	}
	m.b = b
	return nil
}

func (m *mapping) close() error {
	b := m.b
	if m.b = nil; b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// errFault tells that a mapped file has no longer what it had: it was truncated, or the disk failed.
var errFault = errors.New("the image can't be read where it is mapped: is it truncated?")

// guard calls f, and returns errFault if that accesses a part of the map where the file ends now (SIGBUS). Other panics go on.
func (m *mapping) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer m.rescue(&err)
	return f()
}

// rescue, deferred, makes errFault of a fault in the map. The goroutine must have debug.SetPanicOnFault.
func (m *mapping) rescue(err *error) {
	switch r := recover(); {
	case r == nil:
	case m.faulted(r):
		*err = errFault
	default:
		panic(r)
	}
}

// faulted tells whether a panic is a memory fault in the map.
func (m *mapping) faulted(r any) bool {
	e, ok := r.(interface {
		runtime.Error
		Addr() uintptr // debug.SetPanicOnFault promises it where the address is known
	})
	if !ok || len(m.b) == 0 {
		return false
	}
	begin := reflect.ValueOf(m.b).Pointer()
	return e.Addr()-begin < pageCeil(uintptr(len(m.b)))
}

// pageCeil rounds n up to whole pages, which a map consists of.
func pageCeil(n uintptr) uintptr {
	page := uintptr(os.Getpagesize())
	return (n + page - 1) / page * page
}

// openBlocks opens an image of which each block is checked when it is used.
func openBlocks(from mount.Serving, size int64) (*erofs.Image, error) {
	blocks, err := object.NewBlocks(from.Image, size, from.Digest, 0)
	if err != nil {
		return nil, err
	}
	return erofs.Open(blocks, size)
}
