package store

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// privateDir holds what other tools don't know of; losing it loses no content.
	privateDir = "flatroot"
	// privatePrefix begins the temporary names of files there.
	privatePrefix = ".tmp-"
	// maxPrivateFile bounds what ReadFile reads into memory, in bytes.
	maxPrivateFile = 16 << 20
)

// privateSub opens flatroot/name, with name a path of checked components.
func privateSub(root dir, name string, create bool) (dir, error) {
	names, err := splitPath(name)
	if err != nil {
		return dir{fd: -1}, err
	}
	return root.walk(append([]string{privateDir}, names...), create)
}

// notFound turns ENOENT into ErrNotFound and says which path it is about.
func notFound(what string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	if err != nil {
		return &LinkError{Path: what, Err: err}
	}
	return nil
}

func readNote(root dir, where, name string) (string, error) {
	text, err := func() (string, error) {
		if err := checkName(name); err != nil {
			return "", err
		}
		at, err := privateSub(root, where, false)
		if err != nil {
			return "", err
		}
		defer at.close()
		text, err := at.readlink(name)
		if err == unix.EINVAL {
			err = errNoLink
		}
		return text, err
	}()
	return text, notFound(path.Join(root.path, privateDir, where, name), err)
}

func writeNote(root dir, where, name, text string) error {
	err := checkName(name)
	if text == "" || len(text) > maxLink || strings.IndexByte(text, 0) >= 0 {
		err = fmt.Errorf("text of %d bytes: a symlink holds 1 to %d without NUL", len(text), maxLink)
	}
	if err == nil {
		var at dir
		if at, err = privateSub(root, where, true); err == nil {
			defer at.close()
			err = at.setLink(root, text, name)
		}
	}
	return notFound(path.Join(root.path, privateDir, where, name), err)
}

// Note returns the text of flatroot/where/name, a symlink that leads nowhere;
// ErrNotFound. Notes are short facts: one call writes or reads them as a whole.
func (s *Store) Note(where, name string) (string, error) {
	return readNote(s.root, where, name)
}

// SetNote writes a note, in place of an older one of this name. The text has 1 to
// 4095 bytes.
func (s *Store) SetNote(where, name, text string) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	return writeNote(s.root, where, name, text)
}

// RemoveNote removes a note or a file in flatroot/where, or in flatroot/ itself if where is empty; ErrNotFound.
func (s *Store) RemoveNote(where, name string) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	err := checkName(name)
	if err == nil {
		var at dir
		if at, _, err = s.privateFile(path.Join(where, name), false); err == nil {
			defer at.close()
			err = at.unlink(name)
		}
	}
	return s.privateError(path.Join(where, name), err)
}

// Notes yields the names of the notes and files in flatroot/where, in byte order.
func (s *Store) Notes(where string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		at, err := privateSub(s.root, where, false)
		if errors.Is(err, unix.ENOENT) {
			return
		}
		var names []string
		if err == nil {
			defer at.close()
			names, err = at.names()
		}
		if err != nil {
			yield("", notFound(path.Join(s.root.path, privateDir, where), err))
			return
		}
		for _, name := range names {
			if !strings.HasPrefix(name, privatePrefix) && !yield(name, nil) {
				return
			}
		}
	}
}

// privateFile opens the directory of flatroot/name, which is below flatroot/ as
// "origins/sha256:….json" is.
func (s *Store) privateFile(name string, create bool) (dir, string, error) {
	if strings.HasPrefix(name, privateDir+"/") {
		return dir{fd: -1}, "", fmt.Errorf("%w %.80q: it is meant to be below %s/", errName, name, privateDir)
	}
	where, base := path.Split(name)
	if err := checkName(base); err != nil {
		return dir{fd: -1}, "", err
	}
	if where == "" {
		at, err := s.root.sub(privateDir, create)
		return at, base, err
	}
	at, err := privateSub(s.root, strings.TrimSuffix(where, "/"), create)
	return at, base, err
}

func (s *Store) privateError(name string, err error) error {
	return notFound(s.root.join(privateDir+"/"+name), err)
}

// WriteFile writes flatroot/name in one step, and makes its directories: after a
// crash it has the new content or what it had before, never a part.
func (s *Store) WriteFile(name string, data []byte) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	return s.privateError(name, s.writeFile(name, data))
}

func (s *Store) writeFile(name string, data []byte) error {
	at, base, err := s.privateFile(name, true)
	if err != nil {
		return err
	}
	defer at.close()
	t, err := at.newTmp(privatePrefix, &s.files)
	if err != nil {
		return err
	}
	defer t.discard()
	if err := t.writeAt(data, 0); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Fdatasync(t.fd) }); err != nil {
		return pathError("sync", at.join(base), err)
	}
	return t.replace(privatePrefix, at, base)
}

// ReadFile reads flatroot/name, at most 16 MiB; ErrNotFound.
func (s *Store) ReadFile(name string) ([]byte, error) {
	f, err := s.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPrivateFile+1))
	if err == nil && len(b) > maxPrivateFile {
		err = fmt.Errorf("more than %d bytes", maxPrivateFile)
	}
	return b, s.privateError(name, err)
}

// OpenFile opens flatroot/name with flags of package os, such as os.O_RDWR and
// os.O_CREATE for a download that a later process goes on with; ErrNotFound.
func (s *Store) OpenFile(name string, flag int) (*os.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) != 0 {
		if err := s.mayWrite(); err != nil {
			return nil, err
		}
	}
	at, base, err := s.privateFile(name, flag&os.O_CREATE != 0)
	if err != nil {
		return nil, s.privateError(name, err)
	}
	defer at.close()
	fd, err := openat(at.fd, base, flag|unix.O_NOFOLLOW, fileMode)
	if err == nil && flag&os.O_CREATE != 0 {
		err = unix.Fchmod(fd, fileMode)
	}
	if err != nil {
		return nil, s.privateError(name, err)
	}
	return os.NewFile(uintptr(fd), at.join(base)), nil
}
