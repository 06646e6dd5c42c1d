package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/flatroot/flatroot/fsverity"
)

// verityOps are the kernel's two calls; tests have their own, since few machines
// that run tests have a file system with fs-verity.
type verityOps struct {
	enable  func(*os.File, fsverity.Algorithm) error
	measure func(*os.File) (fsverity.Digest, error)
}

func kernelVerity() verityOps { return verityOps{fsverity.Enable, fsverity.Measure} }

// enableWhenIdle waits a little for somebody else's descriptor: a child between
// fork and exec, started by another goroutine, has a copy of the one that the file
// was written by. 255 ms is far more than that takes.
func enableWhenIdle(kernel verityOps, f *os.File, a fsverity.Algorithm) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := kernel.enable(f, a)
		if !errors.Is(err, fsverity.ErrBusy) || pause > 128*time.Millisecond {
			return err
		}
		time.Sleep(pause)
	}
}

// wantVerity tells whether objects are to have fs-verity, as far as is known.
func (s *Store) wantVerity() bool {
	return s.mode == VerityRequire || s.mode == VerityAuto && !s.noVerity.Load()
}

// seal switches fs-verity on for a written file and compares the kernel's digest
// with ours. Only in an insecure store may the file system be unable to; then
// nothing is tried again.
func (s *Store) seal(t *tmp, want fsverity.Digest) error {
	if !s.wantVerity() {
		return nil
	}
	if err := t.reopen(); err != nil {
		return err
	}
	return s.sealFile(t.ro, want)
}

func (s *Store) sealFile(f *os.File, want fsverity.Digest) error {
	err := enableWhenIdle(s.kernel, f, want.Algorithm())
	switch {
	case errors.Is(err, fsverity.ErrNotSupported) && !s.Secure():
		s.noVerity.Store(true)
		return nil
	case err != nil && !errors.Is(err, fsverity.ErrEnabled):
		return err
	}
	return s.measure(f, want)
}

// measure compares the kernel's digest. A file without one passes in an insecure
// store; a wrong one never does.
func (s *Store) measure(f *os.File, want fsverity.Digest) error {
	if s.mode != VerityRequire && s.noVerity.Load() {
		return nil
	}
	got, err := s.kernel.measure(f)
	switch {
	case err == nil && got != want:
		return &MismatchError{Want: want, Got: got}
	case err == nil:
		return nil
	case s.Secure():
		return fmt.Errorf("the store demands fs-verity: %w", err)
	case errors.Is(err, fsverity.ErrNotSupported):
		s.noVerity.Store(true)
		return nil
	case errors.Is(err, fsverity.ErrNoVerity):
		return nil
	}
	return err
}

// Seal switches fs-verity on for an object that is there without it, where the store
// wants that. One that has another digest than its name is a *MismatchError.
func (s *Store) Seal(d fsverity.Digest) error {
	if err := errors.Join(s.mayWrite(), s.checkDigest(d)); err != nil {
		return s.objectError("seal", d, err)
	}
	if !s.wantVerity() {
		return nil
	}
	f, err := s.openObject(d)
	if err == nil {
		defer f.Close()
		err = s.sealFile(f, d)
	}
	if err != nil {
		return s.objectError("seal", d, err)
	}
	return nil
}
