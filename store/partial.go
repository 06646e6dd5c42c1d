package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// partialDir, below flatroot/, has what has come of blobs whose fetching was not brought to an end, by their digests. They
// are written without a sync: after a power cut there may be anything in them, so whoever goes on with one hashes it with
// the rest. What no process holds, gc removes.
const partialDir = "partial"

// Partial is the beginning of a blob, for one process at a time.
type Partial struct {
	s      *Store
	digest string
	file   *os.File
	size   int64
}

// OpenPartial opens what there is of a blob, which may be nothing. ErrLocked says that somebody else has it.
func (s *Store) OpenPartial(digest string) (*Partial, error) {
	p := &Partial{s: s, digest: digest}
	for {
		err := p.open()
		if err == nil || !errors.Is(err, errUnlinked) {
			return p, err
		}
	}
}

// errUnlinked says that who had the file has removed it after it was opened here.
var errUnlinked = errors.New("removed meanwhile")

func (p *Partial) open() (err error) {
	if p.file, err = p.s.OpenFile(partialDir+"/"+p.digest, os.O_CREATE|os.O_RDWR); err != nil {
		return err
	}
	if err = p.lock(); err != nil {
		return errors.Join(err, p.file.Close())
	}
	return nil
}

func (p *Partial) lock() error {
	fd := int(p.file.Fd())
	err := flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("%s: %w", p.file.Name(), ErrLocked)
	}
	var st unix.Stat_t
	if err == nil {
		err = retry(func() error { return unix.Fstat(fd, &st) })
	}
	switch {
	case err != nil:
		return pathError("lock", p.file.Name(), err)
	case st.Nlink == 0:
		return errUnlinked
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is no regular file", p.file.Name())
	}
	p.size = st.Size
	return nil
}

// Size is how many bytes there are.
func (p *Partial) Size() int64 { return p.size }

// ReadAt reads what is there.
func (p *Partial) ReadAt(b []byte, offset int64) (int, error) { return p.file.ReadAt(b, offset) }

// Write appends.
func (p *Partial) Write(b []byte) (int, error) {
	n, err := p.file.WriteAt(b, p.size)
	p.size += int64(n)
	return n, err
}

// Clear gives up what is there.
func (p *Partial) Clear() error {
	p.size = 0
	return p.file.Truncate(0)
}

// Close lets the blob be, for who goes on with it. Of one of which nothing came nothing is left.
func (p *Partial) Close() error {
	if p.size == 0 {
		return p.Remove()
	}
	return p.file.Close()
}

// Remove removes the blob, which is complete or worth nothing.
func (p *Partial) Remove() error {
	err := p.s.RemoveNote(partialDir, p.digest)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return errors.Join(err, p.file.Close())
}
