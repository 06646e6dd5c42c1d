package store

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lockShared takes the lock that every user of a store holds.
func lockShared(fd int, o OpenOptions) error {
	err := flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK && o.NoWait {
		return ErrLocked
	}
	if err == unix.EWOULDBLOCK {
		if o.Waiting != nil {
			o.Waiting(holders(fd))
		}
		err = flock(fd, unix.LOCK_SH)
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

func flock(fd, how int) error {
	return retry(func() error { return unix.Flock(fd, how) })
}

// longestPoll is how long LockExclusive sleeps at most between two tries: short enough
// to find a gap between two commands of a script.
const longestPoll = 10 * time.Millisecond

// LockExclusive waits until nobody else has the store open, and keeps it so. It calls
// waiting once if it has to wait, with words for who has the store open. No other
// goroutine may use the Store meanwhile: the kernel gives the shared lock up first, so
// that others may change the store before this returns. If ctx ends first, the shared
// lock is taken again.
//
// Whoever opens the store meanwhile is let in: else a mount, at boot perhaps, would
// wait for a collection of garbage that waits for a long pull. So users that overlap
// without end keep this waiting without end; it can be called off.
func (s *Store) LockExclusive(ctx context.Context, waiting func(who string)) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	// flock can't be given a deadline, so this polls.
	for pause := time.Millisecond; ; pause = min(2*pause, longestPoll) {
		err := flock(s.root.fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			s.exclusive.Store(true)
			return nil
		}
		if err != unix.EWOULDBLOCK {
			return fmt.Errorf("lock store %s: %w", s.root.path, err)
		}
		if waiting != nil {
			waiting(holders(s.root.fd))
			waiting = nil
		}
		// A failed conversion may have lost the shared lock, so whoever gives up
		// takes it again.
		select {
		case <-ctx.Done():
			if err := flock(s.root.fd, unix.LOCK_SH); err != nil {
				return fmt.Errorf("lock store %s: %w", s.root.path, err)
			}
			return fmt.Errorf("lock store %s: %w", s.root.path, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// LockShared goes back from the exclusive lock to the shared one.
func (s *Store) LockShared() error {
	s.exclusive.Store(false)
	if err := flock(s.root.fd, unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock store %s: %w", s.root.path, err)
	}
	return nil
}
