package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// Modes of what a sink makes, whatever the umask: a layout is there to be
// read by others.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// Sink writes one image into a layout. It implements oci.Sink. Its methods
// may be called concurrently, and any number of sinks may write to the same
// directory, in other processes too.
type Sink struct {
	root *os.Root
	ref  oci.Reference
}

var _ oci.Sink = (*Sink)(nil)

// Create opens a layout for writing, and makes one where there is nothing or
// an empty directory. The reference's name is that of the image to come; it
// may be empty.
func Create(ctx context.Context, ref oci.Reference) (*Sink, error) {
	if err := ref.CheckWritable(); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if err := makeDir(ref.Path); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	root, err := os.OpenRoot(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s := &Sink{root: root, ref: ref}
	if err := s.locked(ctx, s.init); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", ref, err), root.Close())
	}
	return s, nil
}

// makeDir makes the layout's directory unless it is there.
func makeDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return err
	}
	err := os.Mkdir(path, dirMode)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, dirMode)
}

// init makes a layout of an empty directory, under the lock, so that nobody
// finds one half made.
func (s *Sink) init() error {
	if err := files.Sweep(s.root); err != nil {
		return err
	}
	err := checkVersion(files.Dir{Root: s.root})
	if files.IsAbsent(err) {
		if err = s.checkEmpty(); err == nil {
			err = s.writeFile(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`))
		}
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{ocispec.ImageBlobsDir, blobsDir} {
		err := s.root.Mkdir(dir, dirMode)
		if err == nil {
			err = s.root.Chmod(dir, dirMode)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// checkEmpty keeps a mistyped path from becoming a layout full of other
// people's files.
func (s *Sink) checkEmpty() (err error) {
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	switch names, err := d.Readdirnames(1); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w, and not empty: it has %q", ErrNoLayout, names[0])
	}
}

// Close releases the directory.
func (s *Sink) Close() error { return s.root.Close() }

// String returns the reference.
func (s *Sink) String() string { return s.ref.String() }

// HasBlob tells whether a blob is there, by name and size. A blob appears
// under its name only after all of it was hashed, so reading it again, which
// may take minutes, would find nothing but damage of the disk; and that is
// what a check is for, not a push.
func (s *Sink) HasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	ok, err := s.hasBlob(desc)
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.ref, err)
	}
	return ok, nil
}

func (s *Sink) hasBlob(desc ocispec.Descriptor) (bool, error) {
	name, err := blobPath(desc.Digest)
	if err != nil {
		return false, err
	}
	fi, err := s.root.Lstat(name)
	if files.IsAbsent(err) {
		return false, nil
	}
	return err == nil && fi.Mode().IsRegular() && fi.Size() == desc.Size, err
}

// PutBlob writes a blob that isn't there. One of another size is replaced.
func (s *Sink) PutBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := s.putBlob(ctx, desc, r); err != nil {
		return fmt.Errorf("%s: put blob %s: %w", s.ref, desc.Digest, err)
	}
	return nil
}

func (s *Sink) putBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := oci.CheckDescriptor(desc); err != nil {
		return err
	}
	if has, err := s.hasBlob(desc); has || err != nil {
		return err
	}
	name, err := blobPath(desc.Digest)
	if err != nil {
		return err
	}
	return s.create(name, func(f io.Writer) error { return oci.CopyBlob(ctx, f, r, desc) })
}

// writeFile writes a small file.
func (s *Sink) writeFile(name string, data []byte) error {
	return s.create(name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// create writes a file under a temporary name and renames it when it is on
// disk. The temporary name is in the layout's own directory, since blobs/ is
// listed by other tools. After an error nothing is left.
func (s *Sink) create(name string, write func(io.Writer) error) error {
	f, tmp, err := files.NewTmp(s.root)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(fileMode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		err = errors.Join(err, s.root.Remove(tmp))
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names in a directory durable.
func (s *Sink) syncDir(name string) (err error) {
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
