package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// objectPrefix begins the temporary names of objects on file systems that can't
// make unnamed files. They are in objects/ itself, where no tool looks for objects.
const objectPrefix = ".tmp-object-"

var errNotRegular = errors.New("it is no regular file")

func (s *Store) objectError(op string, d fsverity.Digest, err error) error {
	return &ObjectError{Op: op, Digest: d, Path: s.objects.join(d.ObjectPath()), Err: err}
}

func (s *Store) checkDigest(d fsverity.Digest) error {
	if d.Algorithm() != s.meta.algorithm {
		return fmt.Errorf("digest %q is none of this store, which has %v", d, s.meta.algorithm)
	}
	return nil
}

// PutObject stores b, of which the caller has computed the digest just now, and
// tells whether it is new. An object that is there already is not written again,
// unless it is damaged in a way that shows without reading it.
func (s *Store) PutObject(d fsverity.Digest, b []byte) (bool, error) {
	isNew, err := s.putObject(d, b)
	if err != nil {
		return false, s.objectError("write", d, err)
	}
	return isNew, nil
}

func (s *Store) putObject(d fsverity.Digest, b []byte) (bool, error) {
	if err := errors.Join(s.mayWrite(), s.checkDigest(d)); err != nil {
		return false, err
	}
	path := d.ObjectPath()
	have, err := s.examine(d, path, int64(len(b)))
	if err != nil || have == objectWhole {
		return false, err
	}
	t, err := s.objects.newTmp(objectPrefix, &s.files)
	if err != nil {
		return false, err
	}
	defer t.discard()
	if err := t.writeAt(b, 0); err != nil {
		return false, err
	}
	return s.publish(t, d, path, int64(len(b)), have)
}

// presence is what a look at an object's name shows.
type presence int

const (
	objectMissing presence = iota
	objectWhole
	objectDamaged // cut short by a crash, changed in spite of fs-verity, or noted as damaged
)

// examine looks at what has the object's name. Where fs-verity is wanted it also
// has to have that, and gets it if it has not; else the length has to do, and fsck
// reads the rest and notes what it finds. After a crash the content is read: see doubt.
func (s *Store) examine(d fsverity.Digest, path string, size int64) (presence, error) {
	have, err := s.glance(d, path, size)
	if err != nil || have != objectWhole {
		return have, err
	}
	return s.doubt(d)
}

func (s *Store) glance(d fsverity.Digest, path string, size int64) (presence, error) {
	st, err := s.objects.lstat(path)
	switch {
	case err == unix.ENOENT:
		return objectMissing, nil
	case err != nil:
		return objectMissing, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size:
		return objectDamaged, nil
	}
	if bad, err := s.IsBad(d); bad || err != nil {
		return objectDamaged, err
	}
	if !s.wantVerity() {
		return objectWhole, nil
	}
	return s.examineVerity(d)
}

func (s *Store) examineVerity(d fsverity.Digest) (presence, error) {
	f, err := s.openObject(d)
	if err != nil {
		return objectMissing, err
	}
	defer f.Close()
	got, err := s.kernel.measure(f)
	switch {
	case err == nil && got == d:
		return objectWhole, nil
	case err == nil:
		return objectDamaged, nil
	case errors.Is(err, fsverity.ErrNoVerity):
		err = s.sealFile(f, d)
	case errors.Is(err, fsverity.ErrNotSupported) && !s.Secure():
		s.noVerity.Store(true)
		return objectWhole, nil
	}
	var mismatch *MismatchError
	if errors.As(err, &mismatch) {
		return objectDamaged, nil
	}
	return objectWhole, err
}

// publish gives a written file the object's name.
func (s *Store) publish(t *tmp, d fsverity.Digest, path string, size int64, have presence) (bool, error) {
	if err := s.seal(t, d); err != nil {
		return false, err
	}
	if err := s.putting(); err != nil {
		return false, err
	}
	if have == objectMissing {
		if err := s.makeFanout(d, path); err != nil {
			return false, err
		}
		bad, err := s.IsBad(d)
		if err != nil {
			return false, err
		}
		if bad { // something that was announced misses it
			err := s.replaceDamaged(t, d, path)
			return err == nil, err
		}
		if err = t.link(s.objects, path); err == nil {
			return true, nil
		}
		if err != unix.EEXIST {
			return false, err
		}
		// Somebody was faster.
		if have, err = s.examine(d, path, size); err != nil || have == objectWhole {
			return false, err
		}
	}
	if err := s.replaceDamaged(t, d, path); err != nil {
		return false, err
	}
	return true, nil
}

// makeFanout makes objects/xx, once. Objects are then named by their path from
// objects/: descriptors of the 256 directories would save nothing measurable.
func (s *Store) makeFanout(d fsverity.Digest, path string) error {
	var b [64]byte
	first := d.AppendTo(b[:0])[0]
	if s.fanout[first].Load() {
		return nil
	}
	if err := s.objects.mkdir(path[:2]); err != nil {
		return err
	}
	s.fanout[first].Store(true)
	return nil
}

// LooksWhole tells whether an object is there, has its length in bytes, and is not noted
// as damaged. A size below 0 stands for any but 0, which is what a crash leaves.
// Its fs-verity is not looked at, and its content after a crash only: see doubt.
func (s *Store) LooksWhole(d fsverity.Digest, size int64) (bool, error) {
	if err := s.checkDigest(d); err != nil {
		return false, s.objectError("look at", d, err)
	}
	st, err := s.objects.lstat(d.ObjectPath())
	if err == unix.ENOENT || err == unix.EBADF && s.objectsFile == nil {
		return false, nil
	}
	if err != nil {
		return false, s.objectError("look at", d, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != size && (size >= 0 || st.Size == 0) {
		return false, nil
	}
	if bad, err := s.IsBad(d); bad || err != nil {
		return false, err
	}
	have, err := s.doubt(d)
	return have == objectWhole, err
}

// HasObject tells whether the object has a name; its content is not looked at.
func (s *Store) HasObject(d fsverity.Digest) (bool, error) {
	_, err := s.ObjectSize(d)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// ObjectSize is the object's length in bytes as it has it on disk; ErrNotFound.
func (s *Store) ObjectSize(d fsverity.Digest) (int64, error) {
	err := s.checkDigest(d)
	if err != nil {
		return 0, s.objectError("find", d, err)
	}
	st, err := s.objects.lstat(d.ObjectPath())
	switch {
	case err == unix.ENOENT || err == unix.EBADF && s.objectsFile == nil:
		err = ErrNotFound
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errNotRegular
	}
	if err != nil {
		return 0, s.objectError("find", d, err)
	}
	return st.Size, nil
}

// OpenObject opens an object; ErrNotFound. In a secure store it has the fs-verity
// digest that its name says, so that every read is checked; in an insecure one it
// may have none, and then nothing was checked.
func (s *Store) OpenObject(d fsverity.Digest) (*os.File, error) {
	if err := s.checkDigest(d); err != nil {
		return nil, s.objectError("open", d, err)
	}
	f, err := s.openObject(d)
	if err == unix.ENOENT || err == unix.EBADF && s.objectsFile == nil {
		err = ErrNotFound
	}
	if err != nil {
		return nil, s.objectError("open", d, err)
	}
	if err := s.checkOpened(f, d); err != nil {
		f.Close()
		return nil, s.objectError("open", d, err)
	}
	return f, nil
}

// openObject follows no symlink, also not for objects/xx, and waits for nobody
// should the name be a pipe's. It returns bare errnos.
func (s *Store) openObject(d fsverity.Digest) (*os.File, error) {
	path := d.ObjectPath()
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat2(s.objects.fd, path, &how)
		return err
	})
	if err == unix.ENOSYS || err == unix.EPERM { // before Linux 5.6; some sandboxes
		fd, err = openat(s.objects.fd, path, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), s.objects.join(path)), nil
}

func (s *Store) checkOpened(f *os.File, d fsverity.Digest) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeType != 0 {
		return errNotRegular
	}
	return s.measure(f, d)
}

// RemoveObject removes an object, for a collection of garbage; only under the
// exclusive lock.
func (s *Store) RemoveObject(d fsverity.Digest) error {
	if err := errors.Join(s.mayWrite(), s.checkDigest(d)); err != nil {
		return s.objectError("remove", d, err)
	}
	if !s.exclusive.Load() {
		return s.objectError("remove", d, ErrNotExclusive)
	}
	err := s.objects.unlink(d.ObjectPath())
	if errors.Is(err, unix.ENOENT) {
		err = ErrNotFound
	}
	if err != nil {
		return s.objectError("remove", d, err)
	}
	return nil
}
