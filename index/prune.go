package index

import (
	"errors"
	"strings"
	"syscall"

	"github.com/flatroot/flatroot/store"
)

// PruneNotes removes the notes about layers, manifests and image indexes that a store does not have any more, by its entries or because
// gone says so, and tells how many; dry: it only counts them. Notes that make no sense go too.
func PruneNotes(s *store.Store, gone func(entry string) bool, dry bool) (int, error) {
	has := func(entry string) (bool, error) {
		_, err := s.Entry(store.Streams, entry)
		if errno := syscall.Errno(0); errors.As(err, &errno) && errno != syscall.ENAMETOOLONG {
			return false, err // it can't be read now, which says nothing
		}
		return err == nil && !gone(entry), nil
	}
	layer := func(diffID string) (bool, error) { return has(layerPrefix + diffID) }
	manifest := func(digest string) (bool, error) { return has(manifestPrefix + digest) }
	document := func(digest string) (bool, error) {
		if has, err := has(indexPrefix + digest); has || err != nil {
			return has, err
		}
		return manifest(digest)
	}
	total := 0
	for _, n := range []struct {
		where string
		keep  func(name string) (bool, error)
	}{
		{notesVerified, layer},
		{dirOrigins, func(name string) (bool, error) {
			d := strings.TrimSuffix(name, ".json")
			if has, err := layer(d); has || err != nil {
				return has, err
			}
			return document(d)
		}},
		{dirSignatures, func(name string) (bool, error) { return document(strings.TrimSuffix(name, ".json")) }},
		{notesBlobs, func(name string) (bool, error) { return noteKept(s, notesBlobs, name, layer) }},
		{notesIndexes, func(name string) (bool, error) {
			return noteKept(s, notesIndexes, name, manifest)
		}},
	} {
		count, err := pruneNotes(s, n.where, n.keep, dry)
		if total += count; err != nil {
			return total, err
		}
	}
	return total, nil
}

// noteKept asks about what a note says.
func noteKept(s *store.Store, where, name string, keep func(text string) (bool, error)) (bool, error) {
	text, err := s.Note(where, name)
	var bad *store.LinkError
	if errors.As(err, &bad) {
		return false, nil // it is no note
	}
	if err != nil {
		return false, err
	}
	return keep(text)
}

func pruneNotes(s *store.Store, where string, keep func(string) (bool, error), dry bool) (int, error) {
	var stale []string
	for name, err := range s.Notes(where) {
		if err != nil {
			return 0, err
		}
		kept, err := keep(name)
		if err != nil {
			return 0, err
		}
		if !kept {
			stale = append(stale, name)
		}
	}
	for i, name := range stale {
		if dry {
			continue
		}
		if err := s.RemoveNote(where, name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return i, err
		}
	}
	return len(stale), nil
}
