// Package dir reads images from the directories that skopeo and podman write
// as dir: and docker-dir: manifest.json, and blobs by the hexadecimal half of
// their digest. Manifests that an image index lists are HEX.manifest.json.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// Names in the directory.
const (
	manifestFile   = "manifest.json"
	manifestSuffix = ".manifest.json"
	versionFile    = "version"
)

// versionStart is how the file version begins. Blobs had other names before
// version 1.1.
const versionStart = "Directory Transport Version: 1.1"

// ErrNoDir is what is wrapped when a directory has no image in this form.
var ErrNoDir = errors.New("no directory that skopeo or podman has written")

// Options of a Source.
type Options struct {
	// Platform to take from an image index, or to ask for. Zero is this
	// machine's and whatever there is.
	Platform oci.Platform
}

// Source is the image of a directory. It implements oci.RangeSource and
// oci.DocumentSource. Nothing but itself says what manifest.json has to be.
type Source struct {
	fs   files.Dir
	ref  oci.Reference
	opts Options
}

var (
	_ oci.RangeSource    = (*Source)(nil)
	_ oci.DocumentSource = (*Source)(nil)
)

// Open opens the directory of a dir: reference.
func Open(ref oci.Reference, o Options) (*Source, error) {
	dir, err := files.OpenDir(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if err := checkVersion(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", ref, err), dir.Close())
	}
	return &Source{fs: dir, ref: ref, opts: o}, nil
}

func checkVersion(dir files.Dir) error {
	// The file has some 30 bytes.
	raw, err := files.Read(dir, versionFile, 4096)
	switch {
	case files.IsAbsent(err):
		return fmt.Errorf("%w: there is no file %s", ErrNoDir, versionFile)
	case err != nil:
		return err
	}
	if line := strings.TrimRight(string(raw), "\r\n"); line != versionStart {
		return fmt.Errorf("file %s says %q, want %q", versionFile, oci.Printable(line, 60), versionStart)
	}
	return nil
}

// String returns the reference.
func (s *Source) String() string { return s.ref.String() }

// Origin is the reference by which the directory is found from any other.
func (s *Source) Origin() string { return s.ref.Absolute().String() }

// Close releases the directory. Blobs that are open stay so.
func (s *Source) Close() error { return s.fs.Close() }

// Resolve reads manifest.json.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	d, _, err := s.root(ctx)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", s.ref, err)
	}
	return d, nil
}

// root describes manifest.json.
func (s *Source) root(ctx context.Context) (d ocispec.Descriptor, raw []byte, err error) {
	if err := ctx.Err(); err != nil {
		return d, nil, err
	}
	if raw, err = files.Read(s.fs, manifestFile, oci.MaxManifestSize); err != nil {
		return d, nil, err
	}
	doc, err := oci.ParseDocument(raw, "")
	if err != nil {
		return d, nil, fmt.Errorf("%s: %w", manifestFile, err)
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, nil
}

// Image follows manifest.json to one image.
func (s *Source) Image(ctx context.Context) (*oci.Image, error) {
	root, raw, err := s.root(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	m, err := oci.Load(ctx, root, s.fetchBeside(root, raw), oci.LoadOptions{Platform: s.opts.Platform})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	m.Reference = s.ref.String()
	return m, nil
}

// Document reads manifest.json, if that is the one, or what lies beside it.
func (s *Source) Document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	root, raw, err := s.root(ctx)
	if err == nil {
		raw, err = s.fetchBeside(root, raw)(ctx, desc)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	return raw, nil
}

// fetchBeside is the oci.FetchFunc of the directory with this manifest.json.
func (s *Source) fetchBeside(root ocispec.Descriptor, raw []byte) oci.FetchFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Digest == root.Digest {
			return raw, nil
		}
		return s.fetch(ctx, d)
	}
}

// fetch is the oci.FetchFunc for all but manifest.json. Load has bounded the
// size.
func (s *Source) fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name := desc.Digest.Encoded()
	if oci.IsManifest(desc.MediaType) || oci.IsIndex(desc.MediaType) {
		name += manifestSuffix
	}
	return files.ReadBlob(s.fs, name, desc)
}

// OpenBlob opens a blob's file after comparing its size.
func (s *Source) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return s.blobs().Open(ctx, desc)
}

// OpenRange opens a part of a blob's file after comparing its size.
func (s *Source) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	return s.blobs().OpenRange(ctx, desc, offset, length)
}

func (s *Source) blobs() files.Blobs {
	return files.Blobs{FS: s.fs, Of: s.ref, Name: func(d digest.Digest) (string, error) { return d.Encoded(), nil }}
}
