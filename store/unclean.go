package store

import (
	"errors"
	"os"
	"sync"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// uncleanDir, below flatroot/, has a file for each process that has put objects which
// nothing names yet. It is locked while the process lives. One that is left says that
// objects may lie about which no entry leads to, so that only a look at all of them
// finds them.
const uncleanDir = "unclean"

// mark is a store's file there, once it has put an object.
type mark struct {
	mu   sync.Mutex
	name string // "": none
	file *os.File
}

// putting is called before a new object gets its name.
func (s *Store) putting() error {
	s.mark.mu.Lock()
	defer s.mark.mu.Unlock()
	if s.mark.name != "" {
		return nil
	}
	return s.makeMark()
}

// makeMark locks the file before it has a name that others look at: they would take it
// for that of a process which is gone.
func (s *Store) makeMark() error {
	name := randomSuffix()
	f, err := s.OpenFile(uncleanDir+"/"+privatePrefix+name, os.O_CREATE|os.O_EXCL|os.O_RDWR)
	if err != nil {
		return err
	}
	err = flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = s.renamePrivate(uncleanDir, privatePrefix+name, name)
	}
	if err != nil {
		return errors.Join(s.privateError(uncleanDir, err), f.Close(), s.RemoveNote(uncleanDir, privatePrefix+name))
	}
	s.mark.name, s.mark.file = name, f
	return nil
}

// renamePrivate gives a file in flatroot/where another name.
func (s *Store) renamePrivate(where, from, to string) error {
	at, err := privateSub(s.root, where, false)
	if err != nil {
		return err
	}
	defer at.close()
	return rename(at, from, at, to)
}

// Settled says that every object which was put so far has a name, in a stream or image
// that has an entry, and that all of it is durable. Without it the next collection of
// garbage looks at all objects.
func (s *Store) Settled() error {
	s.mark.mu.Lock()
	defer s.mark.mu.Unlock()
	if s.mark.name == "" {
		return nil
	}
	if err := s.RemoveNote(uncleanDir, s.mark.name); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	s.mark.name = ""
	return s.mark.file.Close()
}

// leave closes the mark and lets it stay.
func (s *Store) leave() error {
	s.mark.mu.Lock()
	defer s.mark.mu.Unlock()
	if s.mark.name == "" {
		return nil
	}
	s.mark.name = ""
	return s.mark.file.Close()
}

// uncleanMarks lists the marks of processes that are gone.
func (s *Store) uncleanMarks() ([]string, error) {
	var left []string
	for name, err := range s.Notes(uncleanDir) {
		if err != nil {
			return nil, err
		}
		gone, err := s.isGone(name)
		if err != nil {
			return nil, err
		}
		if gone {
			left = append(left, name)
		}
	}
	return left, nil
}

// isGone tells whether nobody holds a mark any more.
func (s *Store) isGone(name string) (bool, error) {
	f, err := s.OpenFile(uncleanDir+"/"+name, os.O_RDONLY)
	if errors.Is(err, ErrNotFound) {
		return false, nil // just settled
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	return err == nil && st.Nlink > 0, err // without a name it was just settled
}

// crash is whether a writer had died before this Store first looked.
type crash struct {
	once sync.Once
	seen bool
	err  error
}

// doubt reads an object that looks whole, if a writer's mark was left. That writer may
// have been cut off from power: a file system that had its journal written may then
// have an object's name and length, and zeros for its content. What an entry leads to
// was made durable before, but that is not known of a single object.
func (s *Store) doubt(d fsverity.Digest) (presence, error) {
	s.crash.once.Do(func() {
		var marks []string
		marks, s.crash.err = s.uncleanMarks()
		s.crash.seen = len(marks) > 0
	})
	if s.crash.err != nil || !s.crash.seen {
		return objectWhole, s.crash.err
	}
	c, err := s.CheckObject(d, CheckOptions{Read: true})
	if err == nil && c.Content != nil {
		return objectDamaged, nil
	}
	return objectWhole, err
}
