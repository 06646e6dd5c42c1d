package fuse

import (
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// handle returns the reply to a request, which is valid until the next one; nil if it gets none.
func (w *worker) handle(req []byte) []byte {
	var h wire.InHeader
	if !h.Decode(req) {
		return nil // can't be: the kernel's requests all have a header
	}
	if w.s.o.Count != nil {
		w.s.o.Count(h.Opcode)
	}
	if !h.Opcode.Replied() {
		return nil
	}
	n, err := w.guarded(&h, req[wire.InHeaderSize:])
	out := wire.OutHeader{Unique: h.Unique}
	if err != nil {
		n, out.Error = 0, -int32(w.errno(&h, err))
	}
	out.Len = uint32(wire.OutHeaderSize + n)
	out.Encode(w.out)
	return w.out[:out.Len]
}

// errno is what the kernel gets of an error. What is no errno by itself is a fault of the image or an object.
func (w *worker) errno(h *wire.InHeader, err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	w.s.log.printf("%v of inode %d: %v", h.Opcode, w.s.nid(h.NodeID), err)
	return unix.EIO
}

// guarded is answer for mapped images that may become shorter.
func (w *worker) guarded(h *wire.InHeader, body []byte) (n int, err error) {
	defer w.s.mapped.rescue(&err)
	return w.answer(h, body)
}

// answer puts the answer behind the header of w.out and returns its size in bytes. An error that the requester is meant to
// see is a bare unix.Errno.
func (w *worker) answer(h *wire.InHeader, body []byte) (int, error) {
	switch h.Opcode {
	case wire.OpLookup:
		return w.lookup(h, body)
	case wire.OpGetattr:
		return w.getattr(h)
	case wire.OpReaddirplus, wire.OpReaddir:
		return w.readdir(h, body)
	case wire.OpReadlink:
		return w.readlink(h)
	case wire.OpRead:
		return w.read(h, body)
	case wire.OpGetxattr:
		return w.getxattr(h, body)
	case wire.OpListxattr:
		return w.listxattr(h, body)
	case wire.OpOpen:
		return w.openFile(h, body)
	case wire.OpRelease:
		return 0, w.release(h, body)
	case wire.OpStatfs:
		return w.statfs()
	case wire.OpDestroy:
		return 0, nil
	}
	return 0, refusal(h.Opcode)
}

// refusal is the error of operations that the file system has not.
func refusal(o wire.Opcode) unix.Errno {
	switch o {
	case wire.OpSetattr, wire.OpSymlink, wire.OpMknod, wire.OpMkdir, wire.OpUnlink, wire.OpRmdir, wire.OpRename, wire.OpRename2,
		wire.OpLink, wire.OpWrite, wire.OpSetxattr, wire.OpRemovexattr, wire.OpCreate, wire.OpTmpfile, wire.OpFallocate,
		wire.OpCopyRange, wire.OpCopyRange64:
		return unix.EROFS
	case wire.OpIoctl:
		return unix.ENOTTY
	}
	// The kernel remembers ENOSYS for most others, OPENDIR, FLUSH and ACCESS among them, and does without.
	return unix.ENOSYS
}

// space is room for an answer of n bytes, at most maxReply.
func (w *worker) space(n int) []byte {
	if need := wire.OutHeaderSize + n; need > len(w.out) {
		w.out = make([]byte, need)
	}
	return w.out[wire.OutHeaderSize:][:n]
}
