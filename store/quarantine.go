package store

import (
	"errors"
	"path"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// quarantineDir has what damaged objects were, below flatroot/, each by its digest in
// hexadecimal: the first that was found, since what came after it is no nearer to the
// original.
const quarantineDir = "quarantine"

// replaceDamaged gives a written file the name that a damaged object has, or had. That
// stays in quarantine, and has the name until the replacement, which is durable by
// then, takes it: so at no moment there is neither.
func (s *Store) replaceDamaged(t *tmp, d fsverity.Digest, path string) error {
	if err := retry(func() error { return unix.Fdatasync(t.current()) }); err != nil {
		return pathError("sync", s.objects.join(path), err)
	}
	if err := s.keepDamaged(d, path); err != nil {
		return err
	}
	if err := t.replace(objectPrefix, s.objects, path); err != nil {
		return err
	}
	if bad, err := s.IsBad(d); !bad || err != nil {
		return err
	}
	// The note must not go before the name is durably the good object's.
	if err := s.objects.syncSub(path[:2]); err != nil {
		return err
	}
	return s.ClearBad(d)
}

// keepDamaged links a damaged object into quarantine, as far as it can be linked. One
// without bytes is nothing to keep. A directory, which can have no second name and
// can't be replaced by a file, is moved there.
func (s *Store) keepDamaged(d fsverity.Digest, path string) error {
	st, err := s.objects.lstat(path)
	if err == unix.ENOENT || err == nil && st.Size == 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil
	}
	if err != nil {
		return pathError("lstat", s.objects.join(path), err)
	}
	at, err := privateSub(s.root, quarantineDir, true)
	if err != nil {
		return err
	}
	defer at.close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return rename(s.objects, path, at, directoryName(d))
	}
	// Some file systems have no hard links, and the kernel refuses those to files of
	// others. A repair does not fail for that.
	_ = retry(func() error { return unix.Linkat(s.objects.fd, path, at.fd, d.String(), 0) })
	return nil
}

// directoryName is what a directory is called in quarantine that was in an object's
// place: it is none of that object's content, so it does not take its name.
func directoryName(d fsverity.Digest) string { return d.String() + "." + randomSuffix() }

// syncSub makes durable what the directory d/name has.
func (d dir) syncSub(name string) error {
	at, err := d.sub(name, false)
	if err != nil {
		return err
	}
	defer at.close()
	if err := retry(func() error { return unix.Fsync(at.fd) }); err != nil {
		return pathError("sync", at.path, err)
	}
	return nil
}

// Quarantine takes a damaged object that nothing refers to out of objects/. Only the
// exclusive lock permits that, under which the references have to be read: a pull that
// holds the shared lock may have found the object there and rely on it. ErrNotFound.
func (s *Store) Quarantine(d fsverity.Digest) error {
	if err := errors.Join(s.mayWrite(), s.checkDigest(d)); err != nil {
		return s.objectError("quarantine", d, err)
	}
	if !s.exclusive.Load() {
		return s.objectError("quarantine", d, ErrNotExclusive)
	}
	err := s.quarantine(d)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	if err != nil {
		return s.objectError("quarantine", d, err)
	}
	return s.ClearBad(d)
}

func (s *Store) quarantine(d fsverity.Digest) error {
	path := d.ObjectPath()
	st, err := s.objects.lstat(path)
	if err != nil {
		return err
	}
	at, err := privateSub(s.root, quarantineDir, true)
	if err != nil {
		return err
	}
	defer at.close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return rename(s.objects, path, at, directoryName(d))
	}
	if _, err := at.lstat(d.String()); err == nil {
		return s.objects.unlink(path)
	}
	return rename(s.objects, path, at, d.String())
}

// Quarantined lists what is in quarantine: the names of files below the store.
func (s *Store) Quarantined() ([]string, error) {
	var paths []string
	for name, err := range s.Notes(quarantineDir) {
		if err != nil {
			return nil, err
		}
		paths = append(paths, path.Join(privateDir, quarantineDir, name))
	}
	return paths, nil
}
