package cstorage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a held lock is tried again: waiting in the kernel could not be interrupted.
const lockPoll = 20 * time.Millisecond

// lock takes a lock of the store as its readers do, shared, by a record lock over the whole file. It is one that belongs to
// the open file: those of the process, which the store's own tools take, would be gone as soon as another goroutine closes
// the same file. The two kinds exclude each other. The file is opened read-only and never made: where it is missing, nobody
// has written to the store by these rules, and nil is returned. Closing the file gives the lock back.
func (d dir) lock(ctx context.Context, name string, waiting func(lock string)) (*os.File, error) {
	f, _, err := d.regular(name, strict)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	for first := true; ; first = false {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET})
		switch err {
		case nil:
			return f, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.EACCES:
		default:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		if first && waiting != nil {
			waiting(f.Name())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), context.Cause(ctx)), f.Close())
		case <-time.After(lockPoll):
		}
	}
}

// locks are locks that are held together.
type locks []*os.File

func (l locks) release() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
