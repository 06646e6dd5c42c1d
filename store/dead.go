package store

import (
	"errors"
	"path"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// deadDir, below flatroot/, keeps the last trace of streams and images that have lost
// their entries, by category, until what only they refer to is gone. Nothing that
// pulls or mounts looks there.
const deadDir = "dead"

func deadDirOf(k Kind) string { return path.Join(deadDir, string(k)) }

// Bury leaves a trace of a stream or image that was stored and is not going to have
// an entry, so that the next collection of garbage finds it, and what only it refers
// to.
func (s *Store) Bury(k Kind, d fsverity.Digest) error {
	return s.SetNote(deadDirOf(k), d.String(), toObjects+d.ObjectPath())
}

// deadLink is such a trace.
type deadLink struct {
	kind Kind
	name string
	id   fsverity.Digest
}

func (s *Store) deadLinks() ([]deadLink, error) {
	var list []deadLink
	for _, k := range []Kind{Streams, Images} {
		for name, err := range s.Notes(deadDirOf(k)) {
			if err != nil {
				return nil, err
			}
			text, err := s.Note(deadDirOf(k), name)
			if err != nil {
				return nil, err
			}
			id, err := parseEntry(text, s.meta.algorithm)
			if err != nil {
				return nil, &LinkError{Path: s.root.join(path.Join(privateDir, deadDirOf(k), name)), Err: err}
			}
			list = append(list, deadLink{k, name, id})
		}
	}
	return list, nil
}

// bury moves an entry to the dead, under the exclusive lock. One of the same name
// there may lead elsewhere, and stays.
func (s *Store) bury(k Kind, e EntryInfo) (deadLink, error) {
	l := deadLink{k, e.Name, e.Digest}
	from, err := s.kindDir(k, nil, false)
	if err != nil {
		return l, s.linkError(k, e.Name, err)
	}
	defer from.close()
	to, err := privateSub(s.root, deadDirOf(k), true)
	if err != nil {
		return l, s.linkError(k, e.Name, err)
	}
	defer to.close()
	for {
		err := retry(func() error { return unix.Renameat2(from.fd, e.Name, to.fd, l.name, unix.RENAME_NOREPLACE) })
		switch {
		case err == nil:
			return l, nil
		case err == unix.EINVAL || err == unix.ENOSYS: // a file system that can't
			err = s.buryByLink(k, e, to, l.name)
			return l, err
		case !errors.Is(err, unix.EEXIST):
			return l, s.linkError(k, e.Name, err)
		}
		l.name = e.Digest.String()[:16] + "-" + randomSuffix()
	}
}

// buryByLink makes the trace first and removes the entry then.
func (s *Store) buryByLink(k Kind, e EntryInfo, to dir, name string) error {
	if err := to.setLink(s.root, toObjects+e.Digest.ObjectPath(), name); err != nil {
		return s.linkError(k, e.Name, err)
	}
	return s.RemoveEntry(k, e.Name)
}

// Traces lists, as paths below the store, what is left of entries that are gone and of
// processes that were killed while they wrote: what the next collection of garbage
// goes by.
func (s *Store) Traces() ([]string, error) {
	var paths []string
	for _, k := range []Kind{Streams, Images} {
		for name, err := range s.Notes(deadDirOf(k)) {
			if err != nil {
				return nil, err
			}
			paths = append(paths, path.Join(privateDir, deadDirOf(k), name))
		}
	}
	marks, err := s.uncleanMarks()
	for _, name := range marks {
		paths = append(paths, path.Join(privateDir, uncleanDir, name))
	}
	return paths, err
}
