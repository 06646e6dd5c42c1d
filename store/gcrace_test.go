package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/store"
)

// TestMarksBesideReaders has writers make their marks while others look which marks are left: nobody is in the way of
// anybody, and no living writer is taken for a dead one.
func TestMarksBesideReaders(t *testing.T) {
	dir := newStore(t).Dir()
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			s, err := store.Open(dir, store.OpenOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for {
				select {
				case <-done:
					return
				default:
				}
				if left, err := s.UncleanMarks(); err != nil || len(left) > 0 {
					t.Errorf("marks of the dead: %v, %v", left, err)
					return
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 150 {
				if err := putAndSettle(dir, fmt.Sprint(w, "-", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func putAndSettle(dir, content string) error {
	s, err := store.Open(dir, store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.PutObject(sum(s, content), []byte(content)); err != nil {
		return err
	}
	return s.Settled()
}
