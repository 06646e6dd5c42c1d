package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// storeObject puts the content of f, whose digest is d, into a plain object directory as C mkcomposefs fills one: at
// xx/REST, readable by all, with fs-verity where the file system has it. What is there already is left alone.
func storeObject(store string, f *os.File, d fsverity.Digest) (err error) {
	path := filepath.Join(store, d.ObjectPath())
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(store, ".tmp*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	err = errors.Join(fillObject(tmp, f), tmp.Close())
	if err != nil {
		return fmt.Errorf("copy %s into %s: %w", f.Name(), store, err)
	}
	if err := sealObject(tmp.Name(), d); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// fillObject makes tmp a durable copy of f: by sharing its blocks if the file system can do that.
func fillObject(tmp, f *os.File) error {
	if unix.IoctlFileClone(int(tmp.Fd()), int(f.Fd())) != nil {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(tmp, f); err != nil {
			return err
		}
	}
	if err := tmp.Chmod(0o644); err != nil { // whatever the umask
		return err
	}
	return tmp.Sync()
}

// sealObject checks that the copy is what was hashed before it, by the kernel if it can, so that a file that is written to
// meanwhile never ends up under a digest that isn't its own.
func sealObject(path string, d fsverity.Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var got fsverity.Digest
	if fsverity.Enable(f, d.Algorithm()) == nil {
		got, err = fsverity.Measure(f)
	} else {
		got, err = hashFile(f, d.Algorithm())
	}
	if err == nil && got != d {
		err = fmt.Errorf("it was changed while it was read: digest %v, now %v", d, got)
	}
	return err
}

// hashFile computes the digest of a file from where it stands.
func hashFile(f *os.File, a fsverity.Algorithm) (fsverity.Digest, error) {
	h := fsverity.NewHasher(a)
	err := copyTo(h, f)
	return h.Sum(), err
}

// copyTo copies a file through a buffer that several blocks fit in, for the hasher's sake.
func copyTo(w io.Writer, f *os.File) error {
	_, err := io.CopyBuffer(w, justReader{f}, make([]byte, 128<<10))
	return err
}

// justReader hides File.WriteTo, which would not use the buffer.
type justReader struct{ io.Reader }
