package layout

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci/files"
)

// begun is what a sink has made of a layout that was not there. Unless an image is entered, it goes away again with the sink:
// who mistypes a path, or gives up, finds no layout there that has no image.
type begun struct {
	dirs  []string // that were made for it, its own last; each has all the others above it
	fresh bool     // oci-layout was not there
	// use is the directory of blobs, with a shared lock for as long as the sink is open: a sink that would take the layout
	// away sees by it that another one is at work there. Nil: it came not so far.
	use *os.File

	mu    sync.Mutex
	blobs []string // that were put
}

// make makes the layout's directory, and those above it, unless they are there.
func (b *begun) make(dir string) error {
	err := b.makeDirs(dir)
	if n := len(b.dirs); err == nil && n > 0 && b.dirs[n-1] == dir {
		err = os.Chmod(dir, dirMode)
	}
	return err
}

func (b *begun) makeDirs(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := b.makeDirs(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil // by somebody else, a moment ago; or it is a symlink to nothing, which opening it tells
	}
	if err == nil {
		b.dirs = append(b.dirs, dir)
	}
	return err
}

// removeDirs removes the directories that were made, as far as nobody has put anything there.
func (b *begun) removeDirs() error {
	for n := len(b.dirs) - 1; n >= 0; n-- {
		if err := removeEmpty(os.Remove, b.dirs[n]); err != nil {
			return err
		}
	}
	b.dirs = nil
	return nil
}

func removeEmpty(remove func(string) error, dir string) error {
	err := remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// noteBlob remembers a blob that was put.
func (b *begun) noteBlob(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs = append(b.blobs, name)
}

// lock says that the layout is in use. It is called under the lock of the directory, as undo takes the layout away under it.
func (b *begun) lock(root *os.Root) error {
	d, err := root.Open(blobsDir)
	if err != nil {
		return err
	}
	b.use = d
	if ok, err := tryLock(d, unix.LOCK_SH); !ok {
		return fmt.Errorf("lock %s: %w", d.Name(), cmp.Or[error](err, unix.EWOULDBLOCK))
	}
	return nil
}

// tryLock locks a directory, and tells whether that could be done without waiting.
func tryLock(d *os.File, how int) (bool, error) {
	for {
		switch err := unix.Flock(int(d.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, err
		}
	}
}

// undo takes the layout away that was begun here, if it has come to nothing and nobody else is at work there.
func (s *Sink) undo() (err error) {
	if !s.begun.fresh {
		return s.begun.removeDirs()
	}
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for _, dir := range []*os.File{d, s.begun.use} {
		if dir == nil {
			continue
		}
		if alone, err := tryLock(dir, unix.LOCK_EX); !alone || err != nil {
			return err
		}
	}
	if _, err := s.root.Lstat(ocispec.ImageIndexFile); !files.IsAbsent(err) {
		return err
	}
	for _, blob := range s.begun.blobs {
		if err := s.root.Remove(blob); err != nil && !files.IsAbsent(err) {
			return err
		}
	}
	for _, dir := range []string{blobsDir, ocispec.ImageBlobsDir} {
		if err := removeEmpty(s.root.Remove, dir); err != nil {
			return err
		}
	}
	if _, err := s.root.Lstat(ocispec.ImageBlobsDir); !files.IsAbsent(err) {
		return err // another program's blobs are there
	}
	if err := s.root.Remove(ocispec.ImageLayoutFile); err != nil && !files.IsAbsent(err) {
		return err
	}
	return s.begun.removeDirs()
}

// openRoot opens the directory of a layout.
func openRoot(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if fi, is := os.Lstat(dir); is != nil || fi.Mode()&fs.ModeSymlink == 0 { // one may lead to nothing
			return nil, errGone
		}
	}
	return root, err
}

// gone tells whether the directory has been taken away since it was opened.
func (s *Sink) gone() (bool, error) {
	own, err := s.root.Stat(".")
	if err != nil {
		return false, err
	}
	there, err := os.Stat(s.ref.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !os.SameFile(own, there), err
}
