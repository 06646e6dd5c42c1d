package store

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

var errDone = errors.New("the object is finished")

// ObjectWriter writes one object whose digest is known only at the end. It is for
// one goroutine. Without a successful Commit nothing is left of it.
type ObjectWriter struct {
	s    *Store
	t    *tmp
	h    *fsverity.Hasher
	size int64
	hole bool // the file ends with one
	err  error

	cloned bool // the file has its content already, and is not to be written
}

// NewObject begins an object; Commit or Abort ends it.
func (s *Store) NewObject() (*ObjectWriter, error) {
	if err := s.mayWrite(); err != nil {
		return nil, err
	}
	t, err := s.objects.newTmp(objectPrefix, &s.files)
	if err != nil {
		return nil, fmt.Errorf("new object: %w", err)
	}
	h := s.hashers.Get().(*fsverity.Hasher)
	h.Reset()
	return &ObjectWriter{s: s, t: t, h: h}, nil
}

// Write adds p to the content. An error is final.
func (w *ObjectWriter) Write(p []byte) (int, error) {
	if err := w.grow(int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	if w.cloned {
		return w.h.Write(p)
	}
	at := w.size - int64(len(p))
	if w.err = w.t.writeAt(p, at); w.err != nil {
		return 0, w.err
	}
	w.hole = false
	return w.h.Write(p)
}

// WriteHole adds n zero bytes that take no room on disk.
func (w *ObjectWriter) WriteHole(n int64) error {
	if err := w.grow(n); err != nil || n == 0 {
		return err
	}
	w.h.WriteZeros(n)
	w.hole = !w.cloned
	return nil
}

func (w *ObjectWriter) grow(n int64) error {
	if w.err == nil && (n < 0 || n > math.MaxInt64-w.size) {
		w.err = fmt.Errorf("object of %d bytes can't grow by %d", w.size, n)
	}
	if w.err == nil {
		w.size += n
	}
	return w.err
}

// Size is the number of bytes so far.
func (w *ObjectWriter) Size() int64 { return w.size }

// Sum is the digest of what was written so far; writing may go on.
func (w *ObjectWriter) Sum() fsverity.Digest {
	if w.h == nil {
		return fsverity.Digest{}
	}
	return w.h.Sum()
}

// Commit gives the object its name and returns its digest and whether it is new.
func (w *ObjectWriter) Commit() (fsverity.Digest, bool, error) {
	defer w.Abort()
	if w.err != nil {
		return fsverity.Digest{}, false, fmt.Errorf("write object: %w", w.err)
	}
	d := w.h.Sum()
	isNew, err := w.commit(d)
	if err != nil {
		return fsverity.Digest{}, false, w.s.objectError("write", d, err)
	}
	return d, isNew, nil
}

func (w *ObjectWriter) commit(d fsverity.Digest) (bool, error) {
	path := d.ObjectPath()
	have, err := w.s.examine(d, path, w.size)
	if err != nil || have == objectWhole {
		return false, err
	}
	if w.cloned {
		if err := w.checkClone(); err != nil {
			return false, err
		}
	}
	if w.hole {
		if err := retry(func() error { return unix.Ftruncate(w.t.fd, w.size) }); err != nil {
			return false, err
		}
	}
	return w.s.publish(w.t, d, path, w.size, have)
}

// Abort drops the object. After Commit it does nothing.
func (w *ObjectWriter) Abort() {
	if w.t == nil {
		return
	}
	_ = w.t.discard() // nothing depends on a file that nobody can find
	w.s.hashers.Put(w.h)
	w.t, w.h = nil, nil
	if w.err == nil {
		w.err = errDone
	}
}

// Scratch makes a temporary file on the store's file system that vanishes when it
// is closed.
func (s *Store) Scratch() (*os.File, error) {
	if err := s.mayWrite(); err != nil {
		return nil, err
	}
	t, err := s.objects.newTmp(objectPrefix, &s.files)
	if err != nil {
		return nil, fmt.Errorf("scratch file: %w", err)
	}
	if t.name != "" {
		if err := t.dir.unlink(t.name); err != nil {
			t.discard()
			return nil, fmt.Errorf("scratch file: %w", err)
		}
	}
	return os.NewFile(uintptr(t.fd), s.objects.path+" (scratch file)"), nil
}
