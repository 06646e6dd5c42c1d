package store

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveLeftovers removes the temporary names and the partial blobs that killed
// processes have left, of this tool and of others, and returns their number. It takes the exclusive lock,
// under which nobody can be using one.
func (s *Store) RemoveLeftovers() (int, error) {
	if err := s.mayWrite(); err != nil {
		return 0, err
	}
	if !s.exclusive.Load() {
		return 0, ErrNotExclusive
	}
	count := 0
	err := s.eachTemporary(func(at dir, _, name string) error {
		err := at.unlink(name)
		if err == nil {
			count++
		}
		return err
	})
	return count, err
}

// Unfinished lists the names that killed processes have left, or that others are
// using now: paths below the store, of all that RemoveLeftovers would remove.
func (s *Store) Unfinished() ([]string, error) {
	var paths []string
	err := s.eachTemporary(func(_ dir, where, name string) error {
		paths = append(paths, where+name)
		return nil
	})
	return paths, err
}

// visitName is given a directory, its path below the store with a slash at its end, and a name in it.
type visitName func(at dir, where, name string) error

// eachTemporary visits all temporary names and partial blobs. An error does not keep it from other directories.
func (s *Store) eachTemporary(visit visitName) error {
	err := s.root.eachPrefixed("", visit, linkPrefix, initPrefix)
	if s.objectsFile != nil {
		err = errors.Join(err, s.objects.eachPrefixed("objects/", visit, objectPrefix))
	}
	at, subErr := s.root.sub(privateDir, false)
	if errors.Is(subErr, unix.ENOENT) {
		return err
	}
	if subErr != nil {
		return errors.Join(err, subErr)
	}
	defer at.close()
	return errors.Join(err, eachTemporaryBelow(at, privateDir+"/", visit, maxDepth))
}

// eachTemporaryBelow goes down at most depth directories: we make no deeper ones.
func eachTemporaryBelow(at dir, where string, visit visitName, depth int) error {
	prefix := privatePrefix
	if where == privateDir+"/"+partialDir+"/" {
		prefix = "" // all that is there
	}
	err := at.eachPrefixed(where, visit, prefix)
	if err != nil || depth == 0 {
		return err
	}
	names, err := at.names()
	for _, name := range names {
		if st, err := at.lstat(name); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := at.sub(name, false)
		if err != nil {
			return err
		}
		err = eachTemporaryBelow(sub, where+name+"/", visit, depth-1)
		sub.close()
		if err != nil {
			return err
		}
	}
	return err
}

// eachPrefixed visits the names in d that begin with one of the prefixes.
func (d dir) eachPrefixed(where string, visit visitName, prefixes ...string) error {
	names, err := d.names()
	for _, name := range names {
		for _, p := range prefixes {
			if err == nil && strings.HasPrefix(name, p) {
				err = visit(d, where, name)
			}
		}
	}
	return err
}
