package store

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/flatroot/flatroot/fsverity"
)

// notesBad has a note for each object that was found damaged and is not repaired yet:
// digest in hexadecimal → what is wrong with it, as a word.
const notesBad = "bad"

// badContent is the word for an object whose content is not what its name says.
const badContent = "object-damaged"

// badObjects are the notes of damaged objects as they were when the first object was
// put, and those made through this Store since.
type badObjects struct {
	once sync.Once
	err  error
	some atomic.Bool // there is one: else nobody has to look
	mu   sync.Mutex
	code map[fsverity.Digest]string
}

// Bad reads the notes of objects that were found damaged: what each is noted with.
func (s *Store) Bad() (map[fsverity.Digest]string, error) {
	bad := map[fsverity.Digest]string{}
	for name, err := range s.Notes(notesBad) {
		if err != nil {
			return nil, err
		}
		d, err := fsverity.ParseDigest(name)
		if err != nil || s.checkDigest(d) != nil {
			continue // no note about an object of this store
		}
		code, err := s.Note(notesBad, name)
		if errors.Is(err, ErrNotFound) {
			continue // somebody has put it right meanwhile
		}
		if errors.Is(err, errNoLink) {
			code, err = badContent, nil // its name says enough
		}
		if err != nil {
			return nil, err
		}
		bad[d] = code
	}
	return bad, nil
}

// MarkBad notes that an object is damaged or missing, with a word that says how. The
// next time that it is put it is replaced, though it looks whole; and it is durable
// before it has its name, as long as something that was announced relies on it.
func (s *Store) MarkBad(d fsverity.Digest, code string) error {
	if err := s.checkDigest(d); err != nil {
		return s.objectError("mark", d, err)
	}
	if err := s.SetNote(notesBad, d.String(), code); err != nil {
		return err
	}
	if err := s.loadBad(); err != nil {
		return err
	}
	s.bad.mu.Lock()
	defer s.bad.mu.Unlock()
	s.bad.code[d] = code
	s.bad.some.Store(true)
	return nil
}

// ClearBad takes back that an object is damaged; there need be no note of it.
func (s *Store) ClearBad(d fsverity.Digest) error {
	if err := s.RemoveNote(notesBad, d.String()); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	s.bad.mu.Lock()
	defer s.bad.mu.Unlock()
	delete(s.bad.code, d)
	return nil
}

func (s *Store) loadBad() error {
	s.bad.once.Do(func() {
		s.bad.mu.Lock()
		defer s.bad.mu.Unlock()
		s.bad.code, s.bad.err = s.Bad()
		s.bad.some.Store(len(s.bad.code) > 0)
	})
	return s.bad.err
}

// IsBad tells whether an object was found damaged before this Store first looked, or
// through it. It reads the notes once; in a store that has none it costs nothing.
func (s *Store) IsBad(d fsverity.Digest) (bool, error) {
	if err := s.loadBad(); err != nil || !s.bad.some.Load() {
		return false, err
	}
	s.bad.mu.Lock()
	defer s.bad.mu.Unlock()
	_, bad := s.bad.code[d]
	return bad, nil
}
