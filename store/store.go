// Package store keeps objects, entries and refs in a composefs repository on disk.
//
//	DIR/                      0700
//	  meta.json               hash, features; made once, never changed
//	  objects/xx/REST         content, named by its fs-verity digest in hexadecimal
//	  streams/NAME            entry: symlink ../objects/xx/REST to a stream object
//	  streams/refs/oci/TAG    ref: symlink ../../NAME to an entry, at any depth
//	  images/HEX              entry: the same for EROFS images
//	  images/refs/NAME        ref: ../HEX
//	  flatroot/DIR/NAME       what is ours alone: notes (symlinks) and small files
//
// Words: an object is a whole file of anything; an entry names an object, a ref
// names an entry and says that it is wanted. Insecure is a store whose meta.json
// has no fs-verity, secure one whose has: there, every object must have it too.
//
// Invariants:
//
//   - What has a name in objects/ was hashed before it got it. An object is never
//     written again; one of the wrong length, as a crash may leave, or that was noted
//     as damaged is replaced as a whole, and what it was goes to flatroot/quarantine.
//   - Objects, then entries, then refs: Sync between objects and the first entry
//     that needs them makes a crash harmless. Links are not synced one by one; after
//     a crash the last ones may be missing, but not wrong. Objects that no entry leads
//     to may be torn then: whoever puts one again reads it first (see doubt).
//   - An entry that exists is adopted, not changed, since other streams name what it
//     points at by ID; refs are renamed into place.
//   - Unfinished files have no name or, as symlinks and files of bad file systems
//     must, one that no reader looks at: .symlink-… in DIR, .tmp-object-… in
//     objects/. RemoveLeftovers takes away what killed processes left of those.
//   - Nothing gets lost: a process that puts objects leaves a mark until all of them
//     have names, and a stream or image whose entry goes leaves a trace until what it
//     refers to is gone. So a collection of garbage need look at those alone.
//   - Whoever has the store open holds a shared lock, and what it saw stays there;
//     collecting garbage takes an exclusive one.
//   - Modes are as above, files 0644 and directories 0755, whatever the umask is.
//
// A Store may be used by several goroutines at once.
package store

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// OpenOptions are the options of Open.
type OpenOptions struct {
	// ReadOnly opens also what may not or can not be written; all that would
	// change the store then fails with ErrReadOnly.
	ReadOnly bool
	// NoWait has Open fail with ErrLocked where it would wait.
	NoWait bool
	// Waiting is called once if another process has the store locked, before the
	// wait for it begins, with words for who that is; empty if it can't be told.
	Waiting func(who string)
}

// Store is an open store.
type Store struct {
	root        dir
	objects     dir      // its descriptor is objectsFile's
	objectsFile *os.File // nil: there is none yet, and the store is open read-only
	meta        meta
	mode        Verity
	readOnly    bool
	whyReadOnly error // nil: it was asked for
	exclusive   atomic.Bool

	files    facts
	fanout   [256]atomic.Bool // objects/xx is known to be there
	kernel   verityOps
	noVerity atomic.Bool // enabling it was tried and is not possible here
	mark     mark
	crash    crash
	hashers  sync.Pool
	bad      badObjects
}

// Open opens the store in the directory path and holds a shared lock on it until
// Close. What is no store is ErrNotStore, one from before meta.json ErrOldStore.
func Open(path string, o OpenOptions) (*Store, error) {
	return open(path, o, kernelVerity())
}

func open(path string, o OpenOptions, kernel verityOps) (*Store, error) {
	root, err := openDir(unix.AT_FDCWD, path, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open store: %w: %w", ErrNotStore, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{root: root, readOnly: o.ReadOnly, kernel: kernel}
	if err := s.load(o); err != nil {
		s.Close()
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	s.hashers.New = func() any { return fsverity.NewHasher(s.meta.algorithm) }
	return s, nil
}

func (s *Store) load(o OpenOptions) error {
	if err := lockShared(s.root.fd, o); err != nil {
		return err
	}
	var err error
	if s.meta, s.mode, err = loadSettings(s.root, s.kernel); err != nil {
		return err
	}
	if err := s.meta.checkFeatures(s.readOnly); err != nil {
		return err
	}
	return s.openObjects()
}

// openObjects opens objects/, and makes it where there is none yet: another tool
// only makes it with the first object, and a killed Init may not have come to it.
func (s *Store) openObjects() error {
	if !s.readOnly {
		if err := s.root.writable(); err != nil {
			return fmt.Errorf("it can't be written (open it read-only?): %w", err)
		}
	}
	var err error
	s.objects, err = s.root.sub("objects", !s.readOnly)
	if errors.Is(err, unix.ENOENT) && s.readOnly {
		s.objects = dir{fd: -1, path: s.root.join("objects")}
		return nil
	}
	if err != nil {
		return err
	}
	s.objectsFile = os.NewFile(uintptr(s.objects.fd), s.objects.path)
	return nil
}

// Close gives up the lock; nothing of the store may be used then, but files got
// from it stay open. It may be called again.
func (s *Store) Close() error {
	err := s.leave()
	if s.objectsFile != nil {
		err = errors.Join(err, s.objectsFile.Close())
		s.objectsFile, s.objects.fd = nil, -1
	}
	err = errors.Join(err, s.root.close())
	s.root.fd = -1
	return err
}

// Dir is the path that the store was opened by.
func (s *Store) Dir() string { return s.root.path }

// Algorithm is the hash of all digests in the store.
func (s *Store) Algorithm() fsverity.Algorithm { return s.meta.algorithm }

// Formats are the format versions of EROFS images in this store: first the
// default, then others that are to be made as well, ascending.
func (s *Store) Formats() []int { return append([]int(nil), s.meta.formats...) }

// Secure tells whether every object must have fs-verity.
func (s *Store) Secure() bool { return s.mode == VerityRequire }

// Verity is require in a secure store, off where Init was told so, else auto.
func (s *Store) Verity() Verity { return s.mode }

// ObjectsDir is the directory objects/, for mounting; it belongs to the store and
// is closed with it. It is nil in a store without objects that is open read-only.
func (s *Store) ObjectsDir() *os.File { return s.objectsFile }

// Sync makes everything durable that was written so far, with one call for the
// whole file system. It comes before the first entry that names new objects.
func (s *Store) Sync() error {
	if err := retry(func() error { return unix.Syncfs(s.root.fd) }); err != nil {
		return fmt.Errorf("sync store %s: %w", s.root.path, err)
	}
	return nil
}

// Free is how many bytes the store's file system has room for.
func (s *Store) Free() (int64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(s.root.fd, &st) }); err != nil {
		return 0, pathError("statfs", s.root.path, err)
	}
	return int64(min(st.Bavail, 1<<62/uint64(st.Bsize))) * st.Bsize, nil
}

func (s *Store) mayWrite() error {
	switch {
	case s.whyReadOnly != nil:
		return fmt.Errorf("store %s: %w: %w", s.root.path, ErrReadOnly, s.whyReadOnly)
	case s.readOnly:
		return fmt.Errorf("store %s: %w", s.root.path, ErrReadOnly)
	}
	return nil
}
