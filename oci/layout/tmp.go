package layout

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tmpPrefix begins temporary names. They are in the layout's own directory,
// since blobs/ is listed by other tools.
const tmpPrefix = ".flatroot-"

// newTmp makes a file under a temporary name and locks it. The lock, which
// ends with the process, is what tells a file that is being written from one
// that a killed process has left.
func (s *Sink) newTmp() (*os.File, string, error) {
	for {
		name := tmpPrefix + rand.Text()
		f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, "", err
		}
		mine, err := own(f)
		if err != nil {
			err = fmt.Errorf("lock %s: %w", f.Name(), err)
			return nil, "", errors.Join(err, f.Close(), s.root.Remove(name))
		}
		if mine {
			return f, name, nil
		}
		// A sweep came between the two.
		if err := f.Close(); err != nil {
			return nil, "", err
		}
	}
}

// own locks a file and tells whether it is ours then: nobody else has it
// locked, and it still has its name.
func own(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			var st unix.Stat_t
			err := unix.Fstat(int(f.Fd()), &st)
			return st.Nlink > 0, err
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, err
		}
	}
}

// sweep removes the temporary files that killed processes have left.
func (s *Sink) sweep() error {
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tmpPrefix) {
			continue
		}
		if err := s.sweepOne(name); err != nil && !isAbsent(err) {
			return fmt.Errorf("remove what a killed process has left: %w", err)
		}
	}
	return nil
}

// sweepOne removes a file that nobody is writing. What is no file is not ours.
func (s *Sink) sweepOne(name string) (err error) {
	if fi, err := s.root.Lstat(name); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, _, err := openRegular(s.root, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	mine, err := own(f)
	if err != nil || !mine {
		return err
	}
	return s.root.Remove(name)
}
