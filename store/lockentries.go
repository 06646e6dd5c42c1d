package store

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// LockEntries waits until no other process, and no other goroutine, holds the lock on
// the entries of streams, and takes it; unlock gives it up. Who rewrites entries that
// exist holds it, so that what two of them read and write does not mix. It is held
// beside the store's own lock, and a process that dies leaves none.
func (s *Store) LockEntries(ctx context.Context) (unlock func(), err error) {
	if err := s.mayWrite(); err != nil {
		return nil, err
	}
	at, err := s.kindDir(Streams, nil, true)
	if err != nil {
		return nil, fmt.Errorf("lock entries: %w", err)
	}
	// flock can't be given a deadline, so this polls.
	for pause := time.Millisecond; ; pause = min(2*pause, longestPoll) {
		err := flock(at.fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { at.close() }, nil
		}
		if err == unix.EWOULDBLOCK {
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		at.close()
		return nil, fmt.Errorf("lock %s: %w", at.path, err)
	}
}
