package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
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
	root  *os.Root
	ref   oci.Reference
	begun begun
}

var _ oci.StagingSink = (*Sink)(nil)

// Create opens a layout for writing, and makes one where there is nothing or
// an empty directory. The reference's name is that of the image to come; it
// may be empty. A layout that was made, and has no image by the time that the
// sink is closed, is taken away again.
func Create(ctx context.Context, ref oci.Reference) (*Sink, error) {
	s, err := create(ctx, ref)
	for errors.Is(err, errGone) {
		s, err = create(ctx, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return s, nil
}

// errGone says that somebody has taken away the layout while it was opened.
var errGone = errors.New("the layout was taken away meanwhile")

func create(ctx context.Context, ref oci.Reference) (*Sink, error) {
	if err := ref.CheckWritable(); err != nil {
		return nil, err
	}
	s := &Sink{ref: ref}
	err := s.begun.make(ref.Path)
	if err == nil {
		s.root, err = openRoot(ref.Path)
	}
	if err != nil {
		return nil, errors.Join(err, s.begun.removeDirs())
	}
	if err := s.locked(ctx, s.init); err != nil {
		return nil, errors.Join(err, s.Close(), s.begun.removeDirs())
	}
	return s, nil
}

// init makes a layout of an empty directory, under the lock, so that nobody
// finds one half made.
func (s *Sink) init() error {
	if gone, err := s.gone(); gone || err != nil {
		return cmp.Or(err, errGone)
	}
	if err := files.Sweep(s.root); err != nil {
		return err
	}
	err := checkVersion(files.Dir{Root: s.root})
	if files.IsAbsent(err) {
		if err = s.checkEmpty(); err == nil {
			err = s.writeFile(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`))
			s.begun.fresh = err == nil
		}
	}
	if err == nil {
		err = s.checkIndex()
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
	return s.begun.lock(s.root)
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

// checkIndex makes sure that an image can be entered, before minutes of work.
func (s *Sink) checkIndex() error {
	_, _, err := readIndex(files.Dir{Root: s.root})
	if files.IsAbsent(err) {
		return nil
	}
	return err
}

// Close releases the directory, and takes a layout away that was made for
// nothing.
func (s *Sink) Close() error {
	err := s.undo()
	if err != nil {
		err = fmt.Errorf("%s: take away what was begun: %w", s.ref, err)
	}
	if s.begun.use != nil {
		err = errors.Join(err, s.begun.use.Close())
	}
	return errors.Join(err, s.root.Close())
}

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
	if err := s.create(name, func(f io.Writer) error { return oci.CopyBlob(ctx, f, r, desc) }); err != nil {
		return err
	}
	s.begun.noteBlob(name)
	return nil
}

// Stage begins a blob. It implements oci.StagingSink.
func (s *Sink) Stage() (oci.StagedBlob, error) {
	f, tmp, err := files.NewTmp(s.root)
	if err != nil {
		return nil, fmt.Errorf("%s: begin a blob: %w", s.ref, err)
	}
	return &stagedBlob{sink: s, file: f, tmp: tmp, hash: digest.SHA256.Digester()}, nil
}

// stagedBlob is a blob under a temporary name.
type stagedBlob struct {
	sink *Sink
	file *os.File
	tmp  string // "": it has its own name
	hash digest.Digester
	size int64
}

func (b *stagedBlob) Write(p []byte) (int, error) {
	n, err := b.file.Write(p)
	b.hash.Hash().Write(p[:n])
	b.size += int64(n)
	return n, err
}

func (b *stagedBlob) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: b.hash.Digest(), Size: b.size}
}

func (b *stagedBlob) Publish(ctx context.Context) error {
	if err := b.publish(ctx); err != nil {
		return fmt.Errorf("%s: put blob %s: %w", b.sink.ref, b.hash.Digest(), err)
	}
	return nil
}

func (b *stagedBlob) publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if has, err := b.sink.hasBlob(b.Descriptor()); has || err != nil {
		return err
	}
	name, err := blobPath(b.hash.Digest())
	if err == nil {
		err = b.sink.name(b.file, b.tmp, name)
	}
	if err == nil {
		b.tmp = ""
		b.sink.begun.noteBlob(name)
	}
	return err
}

func (b *stagedBlob) Close() error {
	var err error
	if b.tmp != "" {
		err = b.sink.root.Remove(b.tmp)
	}
	return errors.Join(err, b.file.Close())
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
		err = s.name(f, tmp, name)
	}
	if err != nil {
		err = errors.Join(err, s.root.Remove(tmp))
	}
	return errors.Join(err, f.Close())
}

// name gives a file the name that it is to have, once it is on disk.
func (s *Sink) name(f *os.File, tmp, name string) error {
	err := f.Chmod(fileMode)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	return err
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
