package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// Options of a Source.
type Options struct {
	// Platform to take from an image index. Zero is this machine's.
	Platform oci.Platform
}

// Source is one image of a layout. It implements oci.RangeSource and
// oci.DocumentSource.
type Source struct {
	fs   files.FS
	ref  oci.Reference
	opts Options
}

var (
	_ oci.RangeSource    = (*Source)(nil)
	_ oci.DocumentSource = (*Source)(nil)
)

// Open opens the layout of an oci: reference. The image is looked for later.
func Open(ref oci.Reference, o Options) (*Source, error) {
	dir, err := files.OpenDir(ref.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s, err := OpenFS(dir, ref, o)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return s, nil
}

// OpenFS opens the layout whose files a reference stands for. The source
// closes them.
func OpenFS(fsys files.FS, ref oci.Reference, o Options) (*Source, error) {
	if err := checkVersion(fsys); err != nil {
		if files.IsAbsent(err) {
			err = fmt.Errorf("%w: there is no file %s", ErrNoLayout, ocispec.ImageLayoutFile)
		}
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return &Source{fs: fsys, ref: ref, opts: o}, nil
}

// String returns the reference.
func (s *Source) String() string { return s.ref.String() }

// Origin is the reference by which the layout is found from any directory.
func (s *Source) Origin() string { return s.ref.Absolute().String() }

// Close closes the files. What is open of a directory stays so.
func (s *Source) Close() error { return s.fs.Close() }

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
	_, doc, err := readIndex(s.fs)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if s.ref.Digest != "" {
		return s.byDigest(doc.Manifests)
	}
	entries := doc.Manifests
	if i, ok := s.ref.Index(); ok {
		if i >= len(entries) {
			return ocispec.Descriptor{}, fmt.Errorf("no image @%d: it has %d", i, len(entries))
		}
		return entries[i], nil
	}
	entries = slices.DeleteFunc(slices.Clone(entries), func(d ocispec.Descriptor) bool {
		if s.ref.Tag == "" {
			return isAttachment(d)
		}
		return nameOf(d) != s.ref.Tag
	})
	switch {
	case len(entries) == 0:
		return ocispec.Descriptor{}, fmt.Errorf("%w named %q; %s", oci.ErrNoImage, s.ref.Tag, listNames(doc.Manifests))
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
	f, err := s.fs.Open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{Digest: s.ref.Digest, Size: f.Size()}, f.Close()
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
		return ocispec.Descriptor{}, fmt.Errorf("%d images have that name; choose by digest, %s@sha256:…", len(entries), s.place())
	}
	return ocispec.Descriptor{}, fmt.Errorf("has %d images; choose by name, %s:NAME; %s", len(entries), s.place(), listNames(entries))
}

// place is how one writes where the layout is.
func (s *Source) place() string {
	if s.ref.Transport == oci.OCIArchive {
		return string(oci.OCIArchive) + ":FILE"
	}
	return string(s.ref.Transport) + ":DIR"
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

// Document reads a manifest, image index or config, all of which are blobs.
func (s *Source) Document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	raw, err := s.fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	return raw, nil
}

// fetch is the oci.FetchFunc of a layout. Load has bounded the size.
func (s *Source) fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := blobPath(desc.Digest)
	if err != nil {
		return nil, err
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

func (s *Source) blobs() files.Blobs { return files.Blobs{FS: s.fs, Of: s.ref, Name: blobPath} }

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
