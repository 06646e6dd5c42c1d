package store

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// Kind is a category of entries and refs: the name of their directory.
type Kind string

const (
	Images  Kind = "images"
	Streams Kind = "streams"
)

const (
	refsDir   = "refs"
	toObjects = "../objects/"
)

var errNoLink = errors.New("it is no symbolic link")

// kindDir opens a category's directory or one below it; ENOENT if it is not there.
func (s *Store) kindDir(k Kind, below []string, create bool) (dir, error) {
	if k != Images && k != Streams {
		return dir{fd: -1}, fmt.Errorf("unknown kind %q", k)
	}
	return s.root.walk(append([]string{string(k)}, below...), create)
}

func checkEntryName(name string) error {
	if name == refsDir {
		return fmt.Errorf("%w %q: that is the directory of refs", errName, name)
	}
	return checkName(name)
}

func (s *Store) linkError(k Kind, name string, err error) error {
	return &LinkError{Path: s.root.join(string(k) + "/" + name), Err: err}
}

// Link makes the entry name for the object d, which should be durable (see Sync).
// An entry that is there already stays, since others rely on it, and Link returns
// what it names. Only images are put right, whose name says what they must name.
func (s *Store) Link(k Kind, name string, d fsverity.Digest) (fsverity.Digest, error) {
	at, err := s.entryDir(k, name, d)
	if err != nil {
		return fsverity.Digest{}, s.linkError(k, name, err)
	}
	defer at.close()
	text := toObjects + d.ObjectPath()
	err = at.symlink(text, name)
	if err == nil {
		return d, nil
	}
	if err != unix.EEXIST {
		return fsverity.Digest{}, s.linkError(k, name, err)
	}
	have, err := s.readEntry(at, name)
	if k == Images && have != d {
		have, err = d, at.setLink(s.root, text, name)
	}
	if err != nil {
		return fsverity.Digest{}, s.linkError(k, name, err)
	}
	return have, nil
}

// Relink makes the entry name d, whatever it named before. For a stream that other
// streams name by its ID, they have to be made anew too.
func (s *Store) Relink(k Kind, name string, d fsverity.Digest) error {
	at, err := s.entryDir(k, name, d)
	if err == nil {
		defer at.close()
		err = s.relink(at, k, name, d)
	}
	if err != nil {
		return s.linkError(k, name, err)
	}
	return nil
}

// relink buries what the entry led to before.
func (s *Store) relink(at dir, k Kind, name string, d fsverity.Digest) error {
	if old, err := s.readEntry(at, name); err == nil && old != d {
		if err := s.Bury(k, old); err != nil {
			return err
		}
	}
	return at.setLink(s.root, toObjects+d.ObjectPath(), name)
}

func (s *Store) entryDir(k Kind, name string, d fsverity.Digest) (dir, error) {
	if err := errors.Join(s.mayWrite(), checkEntryName(name), s.checkDigest(d)); err != nil {
		return dir{}, err
	}
	if k == Images && name != d.String() {
		return dir{}, fmt.Errorf("%w: an image's is its digest, %v", errName, d)
	}
	return s.kindDir(k, nil, true)
}

// Entry returns the digest of the object that an entry names; ErrNotFound.
func (s *Store) Entry(k Kind, name string) (fsverity.Digest, error) {
	d, err := s.entry(k, name)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	if err != nil {
		return d, s.linkError(k, name, err)
	}
	return d, nil
}

func (s *Store) entry(k Kind, name string) (fsverity.Digest, error) {
	if err := checkEntryName(name); err != nil {
		return fsverity.Digest{}, err
	}
	at, err := s.kindDir(k, nil, false)
	if err != nil {
		return fsverity.Digest{}, err
	}
	defer at.close()
	return s.readEntry(at, name)
}

func (s *Store) readEntry(at dir, name string) (fsverity.Digest, error) {
	text, err := at.readlink(name)
	if err == unix.EINVAL {
		err = errNoLink
	}
	if err != nil {
		return fsverity.Digest{}, err
	}
	return parseEntry(text, s.meta.algorithm)
}

// parseEntry looks at what other tools look at: the first two components may be
// anything that goes up, the last two are the object.
func parseEntry(text string, a fsverity.Algorithm) (fsverity.Digest, error) {
	tail := 2*a.Size() + 1
	if !strings.HasPrefix(text, "../") || len(text) <= tail || text[len(text)-tail-1] != '/' {
		return fsverity.Digest{}, fmt.Errorf("link to %.200q, which is no %v object", text, a)
	}
	d, err := fsverity.ParseObjectPath([]byte(text[len(text)-tail:]))
	if err != nil {
		return d, fmt.Errorf("link to %.200q: %w", text, err)
	}
	return d, nil
}

// RemoveEntry removes an entry. The refs to it have to go first: one that leads
// nowhere stops other tools.
func (s *Store) RemoveEntry(k Kind, name string) error {
	err := errors.Join(s.mayWrite(), checkEntryName(name))
	if err == nil {
		err = s.removeLink(k, nil, name)
	}
	if err != nil {
		return s.linkError(k, name, err)
	}
	return nil
}

// removeLink removes a symlink and nothing else.
func (s *Store) removeLink(k Kind, below []string, name string) error {
	at, err := s.kindDir(k, below, false)
	if err == nil {
		defer at.close()
		if _, err = at.readlink(name); err == nil {
			return at.unlink(name)
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNotFound
	case err == unix.EINVAL:
		return errNoLink
	}
	return err
}

// EntryInfo is one entry.
type EntryInfo struct {
	Name   string
	Digest fsverity.Digest // of the object
}

// Entries yields the entries of a category, by name. What is no good entry comes
// with its name and an error, and does not end it. Those that others make or remove
// meanwhile may come or not.
func (s *Store) Entries(k Kind) iter.Seq2[EntryInfo, error] {
	return func(yield func(EntryInfo, error) bool) {
		at, names, err := s.list(k, nil)
		if err != nil {
			yield(EntryInfo{}, fmt.Errorf("entries of %s: %w", k, err))
			return
		}
		defer at.close()
		for _, name := range names {
			if name == refsDir {
				continue
			}
			err := checkName(name)
			e := EntryInfo{Name: name}
			if err == nil {
				e.Digest, err = s.readEntry(at, name)
				if err == unix.ENOENT {
					continue // somebody has removed it since the directory was listed
				}
			}
			if err != nil {
				err = s.linkError(k, name, err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// list opens a directory and gives its names; one that is not there has none. The
// caller closes it, unless there is an error.
func (s *Store) list(k Kind, below []string) (dir, []string, error) {
	at, err := s.kindDir(k, below, false)
	if errors.Is(err, unix.ENOENT) {
		return dir{fd: -1}, nil, nil
	}
	if err != nil {
		return at, nil, err
	}
	names, err := at.names()
	if err != nil {
		at.close()
	}
	return at, names, err
}
