package oci

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxIndexes bounds how many image indexes lead to a manifest: one in another
// is what the specification foresees, more is a maze.
const maxIndexes = 2

// FetchFunc returns a manifest, image index or config, desc.Size bytes, not
// yet verified. It is all that Load needs of a source.
type FetchFunc func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)

// LoadOptions choose an image for Load.
type LoadOptions struct {
	// Platform that was asked for. Zero takes this machine's from an image
	// index, and whatever there is where there's no choice.
	Platform Platform
}

// Load follows a descriptor to one image: through image indexes by platform,
// to the manifest and its config. Everything fetched is verified before it is
// read.
func Load(ctx context.Context, root ocispec.Descriptor, fetch FetchFunc, o LoadOptions) (*Image, error) {
	want := o.Platform
	if want == (Platform{}) {
		want = DefaultPlatform()
	}
	desc := root
	for range maxIndexes + 1 {
		raw, doc, err := loadDocument(ctx, desc, fetch)
		if err != nil {
			return nil, err
		}
		if !doc.IsIndex() {
			return loadManifest(ctx, root, desc, doc, raw, fetch, o)
		}
		if desc, err = Select(doc.Manifests, want); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("image index %s: more than %d image indexes inside each other", root.Digest, maxIndexes)
}

// loadDocument fetches and verifies a manifest or image index.
func loadDocument(ctx context.Context, desc ocispec.Descriptor, fetch FetchFunc) ([]byte, *Document, error) {
	what := "manifest " + desc.Digest.String()
	raw, err := fetchVerified(ctx, what, desc, fetch)
	if err != nil {
		return nil, nil, err
	}
	doc, err := ParseDocument(raw, desc.MediaType)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	return raw, doc, nil
}

// loadManifest fetches a manifest's config and puts the image together.
func loadManifest(ctx context.Context, root, desc ocispec.Descriptor, doc *Document, raw []byte, fetch FetchFunc, o LoadOptions) (*Image, error) {
	config, err := fetchVerified(ctx, "config "+doc.Config.Digest.String(), doc.Config, fetch)
	if err != nil {
		return nil, err
	}
	m, err := newImage(desc, doc, raw, config)
	if err != nil {
		return nil, err
	}
	if root.Digest != desc.Digest {
		m.IndexDigest = root.Digest
	}
	// An index has been asked already, and where nobody asked for a platform
	// the one image that there is is the one that is wanted.
	said := m.Platform.OS != "" && m.Platform.Architecture != ""
	if m.IndexDigest == "" && o.Platform != (Platform{}) && said && o.Platform.Match(m.Platform) == 0 {
		return nil, &PlatformError{Want: o.Platform, Have: []Platform{m.Platform}}
	}
	return m, nil
}

// fetchVerified fetches a document of bounded size and compares it with its
// descriptor.
func fetchVerified(ctx context.Context, what string, desc ocispec.Descriptor, fetch FetchFunc) ([]byte, error) {
	if err := CheckDescriptor(desc); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if desc.Size > MaxManifestSize {
		return nil, fmt.Errorf("%s: has %d bytes, more than %d", what, desc.Size, MaxManifestSize)
	}
	raw, err := fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return raw, Verify(what, raw, desc)
}
