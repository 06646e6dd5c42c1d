package store

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveLeftovers removes the temporary names that killed processes have left, of
// this tool and of others, and returns their number. It takes the exclusive lock,
// under which nobody can be using one.
func (s *Store) RemoveLeftovers() (int, error) {
	if err := s.mayWrite(); err != nil {
		return 0, err
	}
	if !s.exclusive.Load() {
		return 0, ErrNotExclusive
	}
	n, err := s.root.removePrefixed(linkPrefix, initPrefix)
	m, err2 := s.objects.removePrefixed(objectPrefix)
	k, err3 := s.removePrivate()
	return n + m + k, errors.Join(err, err2, err3)
}

func (d dir) removePrefixed(prefixes ...string) (int, error) {
	names, err := d.names()
	count := 0
	for _, name := range names {
		for _, p := range prefixes {
			if err != nil || !strings.HasPrefix(name, p) {
				continue
			}
			if err = d.unlink(name); err == nil {
				count++
			}
		}
	}
	return count, err
}

func (s *Store) removePrivate() (int, error) {
	at, err := s.root.sub(privateDir, false)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer at.close()
	return removeBelow(at, maxDepth)
}

// removeBelow goes down at most depth directories: we make no deeper ones.
func removeBelow(at dir, depth int) (int, error) {
	count, err := at.removePrefixed(privatePrefix)
	if err != nil || depth == 0 {
		return count, err
	}
	names, err := at.names()
	for _, name := range names {
		if st, err := at.lstat(name); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := at.sub(name, false)
		if err != nil {
			return count, err
		}
		n, err := removeBelow(sub, depth-1)
		sub.close()
		if count += n; err != nil {
			return count, err
		}
	}
	return count, err
}
