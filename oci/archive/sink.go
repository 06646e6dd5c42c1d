package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// Modes of what an archive has, and of the archive unless it takes the place
// of another one.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// Sink writes one image into an oci-archive. It implements oci.Sink. Its
// methods may be called concurrently.
//
// Blobs come in any order and leave in one, so they are kept in an unnamed file
// beside the archive until the manifest is there.
type Sink struct {
	root  *os.Root // directory of the archive
	name  string   // of the archive in it
	ref   oci.Reference
	mode  fs.FileMode
	there bool // an archive that is to be replaced

	mu      sync.Mutex
	spool   *os.File
	end     int64 // of what is in the spool, or will be
	blobs   map[digest.Digest]extent
	written bool
}

var _ oci.Sink = (*Sink)(nil)

// extent is where a blob is in the spool.
type extent struct{ offset, size int64 }

// Create prepares to write the archive of an oci-archive: reference. A file
// that is there is replaced by the one that has all of the new image, but only
// if it is an archive that has no other image than one of the same name:
// nothing else is lost by a mistyped path, or in an archive of several images.
func Create(ctx context.Context, ref oci.Reference) (*Sink, error) {
	s, err := create(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return s, nil
}

func create(ctx context.Context, ref oci.Reference) (*Sink, error) {
	if err := ref.CheckWritable(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(ref.Path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	s := &Sink{root: root, name: filepath.Base(path), ref: ref, mode: fileMode, blobs: map[digest.Digest]extent{}}
	if err = files.Sweep(root); err == nil {
		err = s.checkOld(ctx)
	}
	if err == nil {
		s.spool, err = files.NewUnnamed(root.Name())
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// checkOld looks at what has the archive's name.
func (s *Sink) checkOld(ctx context.Context) error {
	st, err := s.root.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	const advice = "remove it, or write to another file"
	f, err := files.Dir{Root: s.root}.Open(s.name)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := imagesOf(ctx, f)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return fmt.Errorf("there is a file already that is no OCI archive (%w): %s", err, advice)
	case slices.ContainsFunc(names, func(n string) bool { return n != s.ref.Tag }):
		return fmt.Errorf("there is an archive already, with other images (%s), which would be lost: %s", quoteAll(names), advice)
	}
	s.mode, s.there = st.Mode().Perm(), true
	return nil
}

// imagesOf lists the names of the images in an OCI archive.
func imagesOf(ctx context.Context, f files.File) ([]string, error) {
	entries, err := indexTar(ctx, f, f.Size())
	if err != nil {
		return nil, err
	}
	raw, err := files.Read(&tarFiles{tar: f, entries: entries}, ocispec.ImageIndexFile, oci.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	doc, err := oci.ParseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range doc.Manifests {
		names = append(names, d.Annotations[ocispec.AnnotationRefName])
	}
	return names, nil
}

// quoteAll lists names for a message, and not too many.
func quoteAll(names []string) string {
	const most = 10
	var b bytes.Buffer
	for i, n := range names {
		switch {
		case i == most:
			return b.String() + " and others"
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", oci.Printable(n, 200))
	}
	return b.String()
}

// String returns the reference.
func (s *Sink) String() string { return s.ref.String() }

// Close drops what was not written.
func (s *Sink) Close() error { return errors.Join(s.spool.Close(), s.root.Close()) }

// HasBlob tells whether a blob was put.
func (s *Sink) HasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return s.has(desc), nil
}

func (s *Sink) has(desc ocispec.Descriptor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, there := s.blobs[desc.Digest]
	return there && e.size == desc.Size
}

// PutBlob keeps a blob for the archive.
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
	if s.has(desc) {
		return nil
	}
	s.mu.Lock()
	e := extent{s.end, desc.Size}
	s.end += desc.Size
	s.mu.Unlock()
	if err := oci.CopyBlob(ctx, io.NewOffsetWriter(s.spool, e.offset), r, desc); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[desc.Digest] = e
	return nil
}

// PutManifest writes the archive, once: a manifest whose config and layers were
// put, or an image index.
func (s *Sink) PutManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	if err := s.putManifest(ctx, raw, desc); err != nil {
		return fmt.Errorf("%s: put manifest %s: %w", s.ref, desc.Digest, err)
	}
	return nil
}

func (s *Sink) putManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	doc, err := oci.ParseDocument(raw, desc.MediaType)
	if err != nil {
		return err
	}
	desc.MediaType = doc.MediaType
	if !doc.IsIndex() { // an image index may list more than there is
		for _, d := range append([]ocispec.Descriptor{doc.Config}, doc.Layers...) {
			if !s.has(d) {
				return fmt.Errorf("blob %s, which it lists, has not been put", d.Digest)
			}
		}
	}
	if err := s.putBlob(ctx, desc, bytes.NewReader(raw)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written {
		return errors.New("an archive has one image, and it has been written")
	}
	if err := s.write(ctx, desc); err != nil {
		return err
	}
	s.written = true
	return nil
}

// PutListed keeps a manifest for the archive as what it is without an entry: a
// blob.
func (s *Sink) PutListed(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	return s.PutBlob(ctx, desc, bytes.NewReader(raw))
}

// write makes the archive and gives it its name.
func (s *Sink) write(ctx context.Context, desc ocispec.Descriptor) (err error) {
	out, err := files.NewFile(s.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := s.writeTar(ctx, out, desc); err != nil {
		return err
	}
	err = out.Publish(s.name, s.there, s.mode)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("somebody else has written %s meanwhile: %w", s.name, err)
	}
	return err
}

// writeTar writes the archive: names in byte order, time 0, nobody's, so that
// equal images are equal archives.
func (s *Sink) writeTar(ctx context.Context, w io.Writer, desc ocispec.Descriptor) error {
	index, header, err := documents(desc, s.ref.Tag)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, dir := range []string{ocispec.ImageBlobsDir + "/", ocispec.ImageBlobsDir + "/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: dirMode, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	buf := make([]byte, 1<<20)
	for _, d := range slices.Sorted(maps.Keys(s.blobs)) {
		e := s.blobs[d]
		blob := &counter{ctx: ctx, r: io.NewSectionReader(s.spool, e.offset, e.size)}
		if err := writeFile(tw, ocispec.ImageBlobsDir+"/sha256/"+d.Encoded(), e.size, blob, buf); err != nil {
			return err
		}
	}
	if err := writeFile(tw, ocispec.ImageIndexFile, int64(len(index)), bytes.NewReader(index), buf); err != nil {
		return err
	}
	if err := writeFile(tw, ocispec.ImageLayoutFile, int64(len(header)), bytes.NewReader(header), buf); err != nil {
		return err
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, name string, size int64, r io.Reader, buf []byte) error {
	err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: fileMode, ModTime: time.Unix(0, 0)})
	if err == nil {
		_, err = io.CopyBuffer(tw, r, buf)
	}
	return err
}

// documents makes index.json and oci-layout.
func documents(desc ocispec.Descriptor, name string) (index, header []byte, err error) {
	d := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Platform: desc.Platform, Annotations: maps.Clone(desc.Annotations)}
	delete(d.Annotations, ocispec.AnnotationRefName)
	if name != "" {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ocispec.AnnotationRefName] = name
	}
	index, err = json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{d},
	})
	if err != nil {
		return nil, nil, err
	}
	header, err = json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	return index, header, err
}
