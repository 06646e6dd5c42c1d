package store

import (
	"errors"
	"fmt"
	"iter"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// ObjectInfo is one object as it lies on disk.
type ObjectInfo struct {
	Digest fsverity.Digest // zero if the name is no digest
	Path   string          // below the store, "objects/xx/REST"
	Size   int64           // bytes
}

// Objects yields all objects, by name. What is no object, though it is where they
// are, comes with its path and an *ObjectError, and does not end it.
func (s *Store) Objects() iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		if s.objectsFile == nil {
			return
		}
		for i := range 256 {
			if !s.walkFanout(fmt.Sprintf("%02x", i), yield) {
				return
			}
		}
	}
}

func (s *Store) walkFanout(xx string, yield func(ObjectInfo, error) bool) bool {
	at, err := s.objects.sub(xx, false)
	if errors.Is(err, unix.ENOENT) {
		return true
	}
	var names []string
	if err == nil {
		defer at.close()
		names, err = at.names()
	}
	if err != nil {
		return yield(ObjectInfo{Path: "objects/" + xx}, &ObjectError{Op: "list", Path: s.objects.join(xx), Err: err})
	}
	for _, name := range names {
		o, err := s.objectInfo(at, xx, name)
		if err != nil {
			err = &ObjectError{Op: "look at", Digest: o.Digest, Path: at.join(name), Err: err}
		}
		if !yield(o, err) {
			return false
		}
	}
	return true
}

func (s *Store) objectInfo(at dir, xx, name string) (ObjectInfo, error) {
	o := ObjectInfo{Path: "objects/" + xx + "/" + name}
	d, err := fsverity.ParseObjectPath([]byte(xx + "/" + name))
	if err == nil {
		err = s.checkDigest(d)
	}
	if err != nil {
		return o, err
	}
	o.Digest = d
	st, err := at.lstat(name)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errNotRegular
	}
	o.Size = st.Size
	return o, err
}
