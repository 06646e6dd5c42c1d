package fuse

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/mount/fuse/object"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

func (w *worker) read(h *wire.InHeader, body []byte) (int, error) {
	var r wire.ReadIn
	if !r.Decode(body) {
		return 0, unix.EINVAL
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	a := w.node.Attr()
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, unix.EINVAL
	}
	if r.Offset >= a.Size {
		return 0, nil
	}
	b := w.space(int(min(uint64(r.Size), a.Size-r.Offset, maxReply)))
	if err := w.readData(b, int64(r.Offset)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// readData fills b with data of w.node, all of it before the end. Less would make the kernel take the file for shorter.
func (w *worker) readData(b []byte, off int64) error {
	ref, backed, err := w.object(&w.node)
	if err != nil {
		return err
	}
	if !backed {
		_, err = w.node.ReadAt(b, off)
		return err
	}
	if w.s.objects == nil {
		return errNoObjects
	}
	back := w.goOff(ref)
	n, err := w.s.objects.ReadAt(ref, b, off)
	back()
	if n == len(b) && (err == nil || err == io.EOF) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("object %.80q: %d bytes of %d: %w", ref.Path, n, len(b), io.ErrUnexpectedEOF)
	}
	return withDigest(err, ref)
}

// errNoObjects is for readers that go past overlayfs.
var errNoObjects = fmt.Errorf("the data is in an object, which only overlayfs reads in this view: %w", erofs.ErrBacked)

// withDigest completes the message about an object, which names its path.
func withDigest(err error, ref object.Ref) error {
	if ref.Digest.IsZero() {
		return fmt.Errorf("%w (the image has no digest)", err)
	}
	return fmt.Errorf("%w (digest %v)", err, ref.Digest)
}

// longSize is the size in bytes of objects that another reader is called for. To hash so much takes a millisecond; to call
// somebody for each small file would take longer than to read it. Where many small ones are slow, from a disk, requests
// queue up, which calls others too.
const longSize = 1 << 20

// goOff has another reader wait for requests while this one works with an object that may take long, until back is called.
func (w *worker) goOff(ref object.Ref) (back func()) {
	if ref.Size <= longSize {
		return func() {}
	}
	w.s.crew.leave()
	return w.s.crew.join
}

// object is where the data of a backed file is. The path is a copy: others work with it who can't be interrupted by a fault.
func (w *worker) object(i *erofs.Inode) (ref object.Ref, backed bool, err error) {
	b, backed, err := i.Backing()
	if err != nil || !backed {
		return ref, false, err
	}
	w.path = append(w.path[:0], b.Path...)
	return object.Ref{Digest: b.Digest, Path: w.path, Size: int64(i.Attr().Size)}, true, nil
}
