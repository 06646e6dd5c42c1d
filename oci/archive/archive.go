// Package archive reads and writes images in files: oci-archive, which is a tar
// of an OCI layout, and docker-archive, which `docker save` and `podman save`
// write and which is only read.
//
// Nothing is unpacked. The headers of the tar are read once, and what a file in
// it holds is read where it lies. An archive that is compressed as a whole, with
// gzip or zstd, is inflated once into a file without a name.
//
// Invariants:
//
//   - A name leads to one file of the archive or to none: names that stand
//     twice, lead elsewhere or aren't plain are refused, links followed only
//     within the archive.
//   - Entries, names and inflated bytes are bounded.
//   - What is written appears under its name whole and on disk, and nothing is
//     left of it otherwise.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
)

// Options of a source.
type Options struct {
	// Platform to take from an image index, or to ask for. Zero is this
	// machine's and whatever there is.
	Platform oci.Platform
	// Inflating hears that an archive of some bytes is compressed as a whole; what it returns is told those of them that
	// are inflated, and 0 at the end. Nil, or nil returned: nobody hears.
	Inflating func(total int64) (tell func(n int64))
}

// Open opens the archive of an oci-archive: or docker-archive: reference. What
// is in it is looked at later, since that may take a while.
func Open(ref oci.Reference, o Options) (oci.RangeSource, error) {
	file, err := openFile(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s := &source{ref: ref, opts: o, file: file}
	if ref.Transport == oci.DockerArchive {
		return &dockerSource{source: s}, nil
	}
	return &ociSource{source: s}, nil
}

// openFile opens a regular file, and waits for no writer of a pipe.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = errors.New("is a directory, not an archive")
	case !st.Mode().IsRegular():
		err = errors.New("is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// source is what the two kinds of archive have in common.
type source struct {
	ref  oci.Reference
	opts Options
	file *os.File

	mu  sync.Mutex
	tar *tarFiles // once it was read
}

// String returns the reference.
func (s *source) String() string { return s.ref.String() }

// Origin is the reference by which the archive is found from any directory.
func (s *source) Origin() string { return s.ref.Absolute().String() }

// Close closes the archive.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tar != nil {
		return errors.Join(s.tar.Close(), s.file.Close())
	}
	return s.file.Close()
}

// files returns what is in the archive, which is read the first time. s.mu is
// held.
func (s *source) files(ctx context.Context) (*tarFiles, error) {
	if s.tar != nil {
		return s.tar, nil
	}
	t, err := openTar(ctx, s.file, s.opts.Inflating)
	if err != nil {
		return nil, err
	}
	s.tar = t
	return t, nil
}

// ociSource is one image of an oci-archive: the layout's source, as soon as the
// archive has been read. It implements oci.RangeSource and oci.DocumentSource.
type ociSource struct {
	*source
	layout *layout.Source
}

var (
	_ oci.RangeSource      = (*ociSource)(nil)
	_ oci.DocumentSource   = (*ociSource)(nil)
	_ oci.RangeSource      = (*ociSource)(nil)
	_ oci.AttachmentSource = (*ociSource)(nil)
)

func (s *ociSource) open(ctx context.Context) (*layout.Source, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout != nil {
		return s.layout, nil
	}
	t, err := s.files(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	l, err := layout.OpenFS(t, s.ref, layout.Options{Platform: s.opts.Platform})
	if errors.Is(err, layout.ErrNoLayout) && t.has(dockerManifest) {
		err = fmt.Errorf("%w: it is a docker-archive, write %s:%s", err, oci.DockerArchive, s.ref.Path)
	}
	if err != nil {
		return nil, err
	}
	s.layout = l
	return l, nil
}

// Resolve finds the entry in index.json.
func (s *ociSource) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	l, err := s.open(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.Resolve(ctx)
}

// Image follows the entry to one image.
func (s *ociSource) Image(ctx context.Context) (*oci.Image, error) {
	l, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return l.Image(ctx)
}

// Document reads a manifest, image index or config where it lies.
func (s *ociSource) Document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	l, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return l.Document(ctx, desc)
}

// OpenBlob opens a blob where it lies.
func (s *ociSource) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	l, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return l.OpenBlob(ctx, desc)
}

// OpenRange opens a part of a blob where it lies.
func (s *ociSource) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	l, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return l.OpenRange(ctx, desc, offset, length)
}

// Attachments looks at the entries of the layout.
func (s *ociSource) Attachments(ctx context.Context, of digest.Digest, k oci.AttachmentKind) iter.Seq2[*oci.Attachment, error] {
	l, err := s.open(ctx)
	if err != nil {
		return func(yield func(*oci.Attachment, error) bool) { yield(nil, err) }
	}
	return l.Attachments(ctx, of, k)
}
