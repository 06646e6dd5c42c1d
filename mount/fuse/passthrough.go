package fuse

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// openFile answers OPEN. Without passthrough it has the kernel ask no more.
func (w *worker) openFile(h *wire.InHeader, body []byte) (int, error) {
	var o wire.OpenIn
	if !o.Decode(body) {
		return 0, unix.EINVAL
	}
	switch {
	case o.Flags&unix.O_ACCMODE != unix.O_RDONLY || o.Flags&unix.O_TRUNC != 0:
		return 0, unix.EROFS
	case !w.s.passthrough:
		return 0, unix.ENOSYS
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	id, err := w.backing()
	if err != nil {
		return 0, err
	}
	out := wire.OpenOut{OpenFlags: wire.OpenKeepCache}
	if id != 0 {
		out = wire.OpenOut{Fh: uint64(id), OpenFlags: wire.OpenPassthrough, BackingID: id}
	}
	out.Encode(w.space(wire.OpenOutSize))
	return wire.OpenOutSize, nil
}

func (w *worker) release(h *wire.InHeader, body []byte) error {
	var r wire.ReleaseIn
	if !r.Decode(body) {
		return unix.EINVAL
	}
	id, known := w.s.opened.release(w.s.nid(h.NodeID))
	if !known {
		// Opened by a server before this one. The ID is of no use any more; those who have the file open keep it.
		id = int32(r.Fh)
	}
	if id != 0 {
		w.closeBacking(id)
	}
	return nil
}

// backing is the backing ID with which w.node is to be opened, 0 if it is read by READ.
func (w *worker) backing() (int32, error) {
	nid := w.node.Nid()
	return w.s.opened.open(nid, func() (int32, error) {
		ref, backed, err := w.object(&w.node)
		if err != nil || !backed || w.s.objects == nil {
			return 0, err
		}
		back := w.goOff(ref)
		f, err := w.s.objects.Open(ref)
		back()
		if err != nil {
			return 0, withDigest(err, ref)
		}
		defer f.Close() // the kernel has its own reference
		return w.openBacking(f), nil
	})
}

// openBacking registers an object with the kernel. It gives 0 where that refuses: the ioctl needs CAP_SYS_ADMIN, and a file
// system that lies on no other.
func (w *worker) openBacking(f *os.File) int32 {
	b := make([]byte, wire.BackingMapSize)
	m := wire.BackingMap{FD: int32(f.Fd())}
	m.Encode(b)
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.dev), wire.IoctlBackingOpen, uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		w.s.log.printf("passthrough of %s: %v; reading it instead", f.Name(), errno)
		return 0
	}
	return int32(id)
}

func (w *worker) closeBacking(id int32) {
	err := unix.IoctlSetPointerInt(w.dev, wire.IoctlBackingClose, int(id))
	if err != nil && err != unix.ENOENT { // ENOENT: closed with another open file that a server before this one made
		w.s.log.printf("close backing file %d: %v", id, err)
	}
}
