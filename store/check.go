package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// ObjectCheck is what a check of one object found.
type ObjectCheck struct {
	Size int64
	Mode uint32 // permissions
	UID  uint32
	Read int64 // bytes of content that were read and hashed
	// Verity is nil if the kernel's fs-verity digest is as the store wants it: the
	// right one, or none where none is demanded.
	Verity error
	// Content is nil if the content was read and hashes to the object's name, or was
	// not asked for. It is a *MismatchError, or why it can't be read.
	Content error
}

// CheckOptions are CheckObject's.
type CheckOptions struct {
	// Read has the content read and hashed. What the kernel measures is no
	// substitute: it answers the old digest for a file whose data are rotten.
	Read bool
	// Throttle is called with the number of bytes after each read, of at most 1 MiB.
	// Its error ends the check, and is in CheckObject's. Nil: none.
	Throttle func(n int) error
	// Use, if not nil, is given the open object, unless its content was found to be
	// wrong.
	Use func(f *os.File, size int64) error
}

// checkBuffer is how much of an object is read at once, in bytes. What fits is
// hashed in one go.
const checkBuffer = 1 << 20

var checkBuffers = sync.Pool{New: func() any { return new([checkBuffer]byte) }}

// CheckObject looks at an object as it lies on disk, and changes nothing. The error
// is Use's, or an *ObjectError about the object's name: ErrNotFound, or that it is no
// regular file.
func (s *Store) CheckObject(d fsverity.Digest, o CheckOptions) (c ObjectCheck, err error) {
	if err := s.checkDigest(d); err != nil {
		return c, s.objectError("check", d, err)
	}
	f, err := s.openObject(d)
	switch {
	case err == unix.ENOENT || err == unix.EBADF && s.objectsFile == nil:
		err = ErrNotFound
	case err == unix.ELOOP || err == unix.ENXIO:
		err = errNotRegular
	}
	if err != nil {
		return c, s.objectError("check", d, err)
	}
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return c, s.objectError("check", d, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return c, s.objectError("check", d, errNotRegular)
	}
	c = ObjectCheck{Size: st.Size, Mode: st.Mode & 0o7777, UID: st.Uid}
	c.Verity = s.measure(f, d)
	if o.Read {
		var got fsverity.Digest
		got, c.Read, c.Content = s.hashFile(fd, o.Throttle)
		if stop := new(stopError); errors.As(c.Content, stop) {
			return c, s.objectError("check", d, stop.err)
		}
		if c.Content == nil && got != d {
			c.Content = &ContentError{Want: d, Got: got, Size: c.Read}
		}
	}
	if o.Use != nil && c.Content == nil {
		return c, o.Use(f, st.Size)
	}
	return c, nil
}

// stopError is Throttle's, and says nothing of the object.
type stopError struct{ err error }

func (e stopError) Error() string { return e.err.Error() }

// hashFile reads a file from its start to its end.
func (s *Store) hashFile(fd int, throttle func(int) error) (d fsverity.Digest, total int64, err error) {
	buf := checkBuffers.Get().(*[checkBuffer]byte)
	defer checkBuffers.Put(buf)
	n, err := readFull(fd, buf[:], 0, throttle)
	if err == io.EOF {
		return fsverity.Sum(s.meta.algorithm, buf[:n]), int64(n), nil
	}
	h := s.hashers.Get().(*fsverity.Hasher)
	defer s.hashers.Put(h)
	h.Reset()
	for ; err == nil; n, err = readFull(fd, buf[:], total, throttle) {
		_, _ = h.Write(buf[:n]) // it fails for more than a file can have
		total += int64(n)
	}
	if err != io.EOF {
		return d, total, err
	}
	_, _ = h.Write(buf[:n])
	return h.Sum(), total + int64(n), nil
}

// readFull fills b, or gives io.EOF with what was left before the end.
func readFull(fd int, b []byte, at int64, throttle func(int) error) (int, error) {
	n := 0
	for n < len(b) {
		var m int
		err := retry(func() (err error) {
			m, err = unix.Pread(fd, b[n:], at+int64(n))
			return err
		})
		if err != nil {
			return n, fmt.Errorf("read at %d: %w", at+int64(n), err)
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
		if throttle == nil {
			continue
		}
		if err := throttle(m); err != nil {
			return n, stopError{err}
		}
	}
	return n, nil
}

// ContentError: an object's content does not hash to its name.
type ContentError struct {
	Want, Got fsverity.Digest
	Size      int64 // bytes that were hashed
}

func (e *ContentError) Error() string {
	return fmt.Sprintf("its %d bytes hash to %v", e.Size, e.Got)
}

// ObjectNames lists objects/xx, xx being the two hex digits of first: the digests
// that have a name there, in order, and the paths below the store of what has
// another name. It opens no file, and so does not tell what they are.
func (s *Store) ObjectNames(first byte) (ds []fsverity.Digest, strange []string, err error) {
	if s.objectsFile == nil {
		return nil, nil, nil
	}
	xx := fmt.Sprintf("%02x", first)
	at, err := s.objects.sub(xx, false)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer at.close()
	names, err := at.names()
	for _, name := range names {
		d, err := fsverity.ParseObjectPath([]byte(xx + "/" + name))
		if err == nil && s.checkDigest(d) == nil {
			ds = append(ds, d)
		} else {
			strange = append(strange, "objects/"+xx+"/"+name)
		}
	}
	return ds, strange, err
}

// Strangers lists the names in objects/ that are neither a directory of objects nor
// temporary, as paths below the store. They stop other tools' collection of garbage.
func (s *Store) Strangers() ([]string, error) {
	if s.objectsFile == nil {
		return nil, nil
	}
	names, err := s.objects.names()
	var found []string
	for _, name := range names {
		var b [1]byte
		n, bad := hex.Decode(b[:], []byte(name[:min(2, len(name))]))
		isFanout := n == 1 && bad == nil && len(name) == 2 && strings.ToLower(name) == name
		if !isFanout && !strings.HasPrefix(name, objectPrefix) {
			found = append(found, "objects/"+name)
		}
	}
	return found, err
}
