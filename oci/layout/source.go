package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Options of a Source.
type Options struct {
	// Platform to take from an image index. Zero is this machine's.
	Platform oci.Platform
}

// Source is one image of a layout. It implements oci.Source.
type Source struct {
	root *os.Root
	ref  oci.Reference
	opts Options
}

var _ oci.Source = (*Source)(nil)

// Open opens the layout of an oci: reference. The image is looked for later.
func Open(ref oci.Reference, o Options) (*Source, error) {
	root, err := os.OpenRoot(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if err := checkVersion(root); err != nil {
		if isAbsent(err) {
			err = fmt.Errorf("%w: there is no file %s", ErrNoLayout, ocispec.ImageLayoutFile)
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", ref, err), root.Close())
	}
	return &Source{root: root, ref: ref, opts: o}, nil
}

// String returns the reference.
func (s *Source) String() string { return s.ref.String() }

// Origin is the reference by which the layout is found from any directory.
func (s *Source) Origin() string {
	ref := s.ref
	if path, err := filepath.Abs(ref.Path); err == nil {
		ref.Path = path
	}
	return ref.String()
}

// Close releases the directory. Blobs that are open stay so.
func (s *Source) Close() error { return s.root.Close() }

// Resolve finds the entry in index.json.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	d, err := s.resolve(ctx)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", s.ref, err)
	}
	return d, nil
}

func (s *Source) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	_, doc, err := readIndex(s.root)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if s.ref.Digest != "" {
		return s.byDigest(doc.Manifests)
	}
	entries := slices.DeleteFunc(slices.Clone(doc.Manifests), func(d ocispec.Descriptor) bool {
		if s.ref.Tag == "" {
			return isAttachment(d)
		}
		return nameOf(d) != s.ref.Tag
	})
	switch {
	case len(entries) == 0:
		return ocispec.Descriptor{}, fmt.Errorf("no image named %q; %s", s.ref.Tag, listNames(doc.Manifests))
	case len(entries) == 1:
		return entries[0], nil
	}
	return s.choose(entries)
}

// byDigest finds an entry by digest, or failing that a manifest that an image
// index in the layout lists, of which only the blob is looked at.
func (s *Source) byDigest(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	for _, d := range entries {
		if d.Digest == s.ref.Digest {
			return d, nil
		}
	}
	name, err := blobPath(s.ref.Digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	fi, err := s.root.Lstat(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: s.ref.Digest, Size: fi.Size()}, nil
}

// choose settles which of several entries is meant: some tools write an image
// for several platforms not as an image index but as so many entries.
func (s *Source) choose(entries []ocispec.Descriptor) (ocispec.Descriptor, error) {
	oneName := !slices.ContainsFunc(entries, func(d ocispec.Descriptor) bool { return nameOf(d) != nameOf(entries[0]) })
	allPlatforms := !slices.ContainsFunc(entries, func(d ocispec.Descriptor) bool { return d.Platform == nil })
	switch {
	case oneName && allPlatforms:
		want := s.opts.Platform
		if want == (oci.Platform{}) {
			want = oci.DefaultPlatform()
		}
		return oci.Select(entries, want)
	case oneName && s.ref.Tag != "":
		return ocispec.Descriptor{}, fmt.Errorf("%d images have that name; choose by digest, %s:DIR@sha256:…", len(entries), oci.OCI)
	}
	return ocispec.Descriptor{}, fmt.Errorf("has %d images; choose by name, %s:DIR:NAME; %s", len(entries), oci.OCI, listNames(entries))
}

// Image follows the entry to one image.
func (s *Source) Image(ctx context.Context) (*oci.Image, error) {
	root, err := s.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	m, err := oci.Load(ctx, root, s.fetch, oci.LoadOptions{Platform: s.opts.Platform})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	m.Reference = s.ref.String()
	return m, nil
}

// fetch is the oci.FetchFunc of a layout.
func (s *Source) fetch(ctx context.Context, desc ocispec.Descriptor) (b []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openBlob(s.root, desc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Load has bounded the size, and openBlob compared it with the file's.
	b = make([]byte, desc.Size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	return b, nil
}

// OpenBlob opens a blob's file after comparing its size.
func (s *Source) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openBlob(s.root, desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	return f, nil
}

// nameOf returns an entry's name.
func nameOf(d ocispec.Descriptor) string { return d.Annotations[ocispec.AnnotationRefName] }

// listNames says which names there are, in order, and not too many.
func listNames(entries []ocispec.Descriptor) string {
	const most = 20
	var names []string
	for _, d := range entries {
		if n := oci.Printable(nameOf(d), 200); n != "" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return "no image here has a name"
	case len(names) > most:
		return "there is " + strings.Join(names[:most], ", ") + " and others"
	}
	return "there is " + strings.Join(names, ", ")
}
