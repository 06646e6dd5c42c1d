package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoClone is what CloneObject's errors wrap where the file system of the store can't share the blocks of a file.
var ErrNoClone = errors.New("the file system can't clone this file")

var errCloneSize = errors.New("the clone has another length than what was hashed of it")

// CloneObject begins an object with all of the content that a file has at this moment. No byte is copied: the two share their
// blocks, and what becomes of the file later changes nothing here. The content is to be read from the file that is returned,
// which the caller closes, and to be written to the ObjectWriter from beginning to end, which only hashes it.
func (s *Store) CloneObject(f *os.File) (*ObjectWriter, *os.File, error) {
	w, err := s.NewObject()
	if err != nil {
		return nil, nil, err
	}
	content, err := w.clone(f)
	if err != nil {
		w.Abort()
		return nil, nil, err
	}
	return w, content, nil
}

func (w *ObjectWriter) clone(f *os.File) (*os.File, error) {
	err := retry(func() error { return unix.IoctlFileClone(w.t.fd, int(f.Fd())) })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoClone, err)
	}
	// From here on nobody can change it. Who reads it has a descriptor of his own, that doesn't keep fs-verity from it.
	if err := w.t.reopen(); err != nil {
		return nil, err
	}
	w.cloned = true
	fd, err := openat(unix.AT_FDCWD, procPath(w.t.current()), unix.O_RDONLY, 0)
	if err != nil {
		return nil, pathError("open clone", w.t.dir.path, err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// checkClone makes sure that a clone has the length of what was hashed of it.
func (w *ObjectWriter) checkClone() error {
	var st unix.Stat_t
	if err := unix.Fstat(w.t.current(), &st); err != nil {
		return err
	}
	if st.Size != w.size {
		return errCloneSize
	}
	return nil
}
