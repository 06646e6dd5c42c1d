package fuse

import (
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount/fuse/wire"
)

func (w *worker) getxattr(h *wire.InHeader, body []byte) (int, error) {
	var g wire.GetxattrIn
	if !g.Decode(body) {
		return 0, unix.EINVAL
	}
	name, ok := wire.Name(body[wire.GetxattrInSize:])
	if !ok {
		return 0, unix.EINVAL
	}
	if w.s.noXattrs.Load() {
		return 0, unix.ENOSYS
	}
	if err := checkName(name, w.img.HasACL()); err != nil {
		return 0, err
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	stored := storedName(w.s.view, w.name, name)
	value, ok, err := w.node.XattrBytes(stored)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, unix.ENODATA
	case g.Size == 0:
		return w.xattrSize(len(value)), nil
	case len(value) > int(g.Size):
		return 0, unix.ERANGE
	}
	return copy(w.space(len(value)), value), nil
}

// xattrSize answers a request that asks for a size alone.
func (w *worker) xattrSize(n int) int {
	out := wire.GetxattrOut{Size: uint32(n)}
	out.Encode(w.space(wire.GetxattrOutSize))
	return wire.GetxattrOutSize
}

func (w *worker) listxattr(h *wire.InHeader, body []byte) (int, error) {
	var g wire.GetxattrIn
	if !g.Decode(body) {
		return 0, unix.EINVAL
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	b := w.space(int(min(g.Size, xattrListMax)))
	n := 0
	err := w.eachName(func(prefix string, rest []byte) {
		size := len(prefix) + len(rest) + 1
		if n+size <= len(b) {
			at := b[n:][:size]
			copy(at[copy(at, prefix):], rest)
			at[size-1] = 0
		}
		n += size
	})
	switch {
	case err != nil:
		return 0, err
	case g.Size == 0:
		return w.xattrSize(n), nil
	case n > len(b):
		return 0, unix.ERANGE
	}
	return n, nil
}

// xattrListMax is the longest list of names that the kernel asks for, in bytes.
const xattrListMax = 64 << 10 // XATTR_LIST_MAX of linux/limits.h

// eachName calls visit with the names of xattrs that the view shows of w.node, as prefix and rest.
func (w *worker) eachName(visit func(prefix string, rest []byte)) error {
	acl := w.img.HasACL()
	return w.node.EachXattr(func(prefix string, rest, _ []byte) bool {
		if listed(prefix, acl) {
			w.name = join(w.name, prefix, rest)
			if p, r, ok := shownName(w.s.view, w.name); ok {
				visit(p, r)
			}
		}
		return true
	})
}
