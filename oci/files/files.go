// Package files is where the files of images lie that are in no registry: in
// a directory, or wherever else an FS can be made for.
//
// Invariants:
//
//   - Only regular files are read. Symbolic links of a directory are not
//     followed, pipes and devices not opened, whoever put them there: an image
//     is often somebody else's download, read by root.
//   - A blob is opened only if its size is what its descriptor says.
//   - Nothing is read into memory before its size was compared with a limit.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// FS gives files by names that have slashes and no other meaning. Its methods
// may be called concurrently.
type FS interface {
	// Open opens a regular file. One that isn't there is fs.ErrNotExist.
	Open(name string) (File, error)
	Close() error
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Dir is a directory. It implements FS.
type Dir struct{ Root *os.Root }

// OpenDir opens a directory.
func OpenDir(path string) (Dir, error) {
	root, err := os.OpenRoot(path)
	return Dir{root}, err
}

// Close releases the directory. Files that are open stay so.
func (d Dir) Close() error { return d.Root.Close() }

// Open opens a regular file.
func (d Dir) Open(name string) (File, error) {
	f, size, err := openRegular(d.Root, name)
	if err != nil {
		return nil, err
	}
	return osFile{f, size}, nil
}

// openRegular opens a regular file and returns its size. What is not regular
// is refused before it is opened, because opening a device may do something,
// and compared with what was opened afterwards.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !before.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: is %s, not a regular file", name, kind(before.Mode()))
	}
	// Without O_NONBLOCK a pipe that took the file's place would hang us.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: changed while it was opened", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, after.Size(), nil
}

// osFile is a file of the system. Its size is the one it was opened with.
type osFile struct {
	*os.File
	size int64
}

func (f osFile) Size() int64 { return f.size }

// kind says what a file is that is not regular.
func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	}
	return "a device or socket"
}

// Read reads a file of at most limit bytes.
func Read(fsys FS, name string, limit int64) (b []byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s: has %d bytes, more than %d", name, f.Size(), limit)
	}
	b = make([]byte, f.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// OpenBlob opens the file of a blob, which is as long as its descriptor says.
func OpenBlob(fsys FS, name string, desc ocispec.Descriptor) (File, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	if f.Size() != desc.Size {
		err := &oci.SizeError{What: "blob " + desc.Digest.String(), Want: desc.Size, Got: f.Size()}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenPart opens a part of the file of a blob, as oci.RangeSource has it.
func OpenPart(fsys FS, name string, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	if err := oci.CheckRange(desc, offset, length); err != nil {
		return nil, err
	}
	f, err := OpenBlob(fsys, name, desc)
	if err != nil {
		return nil, err
	}
	return part{io.NewSectionReader(f, offset, length), f}, nil
}

type part struct {
	io.Reader
	io.Closer
}

// ReadBlob reads the file of a blob whose size the caller has bounded.
func ReadBlob(fsys FS, name string, desc ocispec.Descriptor) (b []byte, err error) {
	f, err := OpenBlob(fsys, name, desc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b = make([]byte, desc.Size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	return b, nil
}

// Blobs opens the blobs of a source whose blobs are files, for its OpenBlob and OpenRange.
type Blobs struct {
	FS   FS
	Of   fmt.Stringer                          // the source's reference, for messages
	Name func(d digest.Digest) (string, error) // where the blob of a valid digest is
}

// Open opens a blob's file after comparing its size.
func (b Blobs) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return b.open(ctx, desc, func(name string) (io.ReadCloser, error) { return OpenBlob(b.FS, name, desc) })
}

// OpenRange opens a part of a blob's file after comparing its size.
func (b Blobs) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	return b.open(ctx, desc, func(name string) (io.ReadCloser, error) { return OpenPart(b.FS, name, desc, offset, length) })
}

func (b Blobs) open(ctx context.Context, desc ocispec.Descriptor, open func(name string) (io.ReadCloser, error)) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err := oci.CheckDescriptor(desc)
	name := ""
	if err == nil {
		name, err = b.Name(desc.Digest)
	}
	var r io.ReadCloser
	if err == nil {
		r, err = open(name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Of, err)
	}
	return r, nil
}

// IsAbsent tells whether a file wasn't there.
func IsAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
