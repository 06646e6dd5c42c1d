package index

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// wanted is a place for contents that keeps those alone that are wanted, and tells when it has them all. What it is given is
// trusted in nothing: a content is what its digest says.
type wanted struct {
	s      *store.Store
	enough func() // called once nothing is wanted any more

	mu       sync.Mutex
	left     map[fsverity.Digest]bool
	restored []fsverity.Digest
	err      error // the first failure to store one, as against to read it
}

func newWanted(s *store.Store, want []fsverity.Digest, enough func()) *wanted {
	w := &wanted{s: s, enough: enough, left: make(map[fsverity.Digest]bool, len(want))}
	for _, d := range want {
		w.left[d] = true
	}
	return w
}

func (w *wanted) wants(d fsverity.Digest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left[d]
}

// missing lists what is still wanted.
func (w *wanted) missing() []fsverity.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]fsverity.Digest, 0, len(w.left))
	for d := range w.left {
		list = append(list, d)
	}
	sortDigests(list)
	return list
}

// result is what was restored, and what went wrong in storing it.
func (w *wanted) result() ([]fsverity.Digest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sortDigests(w.restored)
	return w.restored, w.err
}

func sortDigests(list []fsverity.Digest) {
	slices.SortFunc(list, func(a, b fsverity.Digest) int { return strings.Compare(a.String(), b.String()) })
}

// store has put give a wanted content its name, in place of a damaged one.
func (w *wanted) store(d fsverity.Digest, put func() error) error {
	err := markLost(w.s, d)
	if err == nil {
		err = put()
	}
	w.mu.Lock()
	if err != nil && w.err == nil {
		w.err = err
	}
	got := err == nil && w.left[d]
	if got {
		delete(w.left, d)
		w.restored = append(w.restored, d)
	}
	done := got && len(w.left) == 0
	w.mu.Unlock()
	if done && w.enough != nil {
		w.enough()
	}
	return err
}

func (w *wanted) put(b []byte) (fsverity.Digest, bool, error) {
	d := fsverity.Sum(w.s.Algorithm(), b)
	if !w.wants(d) {
		return d, false, nil
	}
	err := w.store(d, func() error {
		_, err := w.s.PutObject(d, b)
		return err
	})
	return d, err == nil, err
}

func (w *wanted) create() (contentWriter, error) {
	o, err := w.s.NewObject()
	if err != nil {
		return nil, err
	}
	return wantedWriter{o, w}, nil
}

// wantedWriter writes a content of which it is known only at the end whether it is wanted.
type wantedWriter struct {
	*store.ObjectWriter
	w *wanted
}

func (o wantedWriter) Commit() (fsverity.Digest, bool, error) {
	d := o.Sum()
	if !o.w.wants(d) {
		o.Abort()
		return d, false, nil
	}
	err := o.w.store(d, func() error {
		_, _, err := o.ObjectWriter.Commit()
		return err
	})
	return d, err == nil, err
}

// doubted puts contents into a store and reads first what that has of them already, to replace what is damaged.
type doubted struct {
	stored
	mark func(*store.Store, fsverity.Digest) error // markRotten, or markLost where something relies on what is missing
}

func (c doubted) put(b []byte) (fsverity.Digest, bool, error) {
	if err := c.mark(c.s, fsverity.Sum(c.s.Algorithm(), b)); err != nil {
		return fsverity.Digest{}, false, err
	}
	return c.stored.put(b)
}

func (c doubted) create() (contentWriter, error) {
	o, err := c.s.NewObject()
	if err != nil {
		return nil, err
	}
	return doubtedWriter{o, c}, nil
}

type doubtedWriter struct {
	*store.ObjectWriter
	to doubted
}

func (o doubtedWriter) Commit() (fsverity.Digest, bool, error) {
	if err := o.to.mark(o.to.s, o.Sum()); err != nil {
		o.Abort()
		return fsverity.Digest{}, false, err
	}
	return o.ObjectWriter.Commit()
}

// markRotten reads an object that is there, and notes it as damaged if it is not what its name says, or can't be read: the
// store would not replace it otherwise. An error is none of the object's, so that it is not known what it is.
func markRotten(s *store.Store, d fsverity.Digest) error {
	check, err := s.CheckObject(d, store.CheckOptions{Read: true})
	if err == nil {
		err = check.Content
	}
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound):
		return nil
	case !isDamage(err):
		return err
	}
	return s.MarkBad(d, badContent)
}

// markLost is markRotten, and notes what is missing as well, so that it is durable before it has its name: what refers to it
// has been announced, so that after a power cut nobody would doubt it.
func markLost(s *store.Store, d fsverity.Digest) error {
	if has, err := s.HasObject(d); err == nil && !has {
		return s.MarkBad(d, notThere)
	}
	return markRotten(s, d)
}

// The words that an object is noted with whose content is not what its name says, or that is missing.
const (
	badContent = "object-damaged"
	notThere   = "object-missing"
)
