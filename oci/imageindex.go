package oci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DocumentSource is a Source that gives other documents than its image's too.
type DocumentSource interface {
	Source
	// Document returns a manifest, image index or config that lies where the
	// source's image does. It is a FetchFunc: the caller bounds desc.Size and
	// verifies what comes.
	Document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
}

const (
	// MaxIndexManifests bounds the manifests of an image index that is taken
	// as a whole. Those in use have some twenty; 4 MiB may list 20,000, each
	// of which costs two requests.
	MaxIndexManifests = 256
	// maxIndexDocuments bounds their manifests and configs together, in bytes.
	maxIndexDocuments = 64 << 20
)

// ErrNoIndex says that there is a manifest where an image index was asked for.
var ErrNoIndex = errors.New("not an image index")

// Index is an image index with all that it lists.
type Index struct {
	Descriptor ocispec.Descriptor
	Raw        []byte
	Images     []*Image // each once, in the order in which it lists them
	Others     []*Other
	Platforms  []ocispec.Descriptor // of images, all with a platform
}

// Other is a manifest in an image index that is no image's: what a builder says
// about how an image was made, or any other artifact.
type Other struct {
	Descriptor ocispec.Descriptor
	Raw        []byte
	Document   *Document
}

// Blobs are those that the manifest lists, each once.
func (o *Other) Blobs() []ocispec.Descriptor {
	var blobs []ocispec.Descriptor
	for _, d := range append([]ocispec.Descriptor{o.Document.Config}, o.Document.Layers...) {
		if !slices.ContainsFunc(blobs, func(b ocispec.Descriptor) bool { return b.Digest == d.Digest }) {
			blobs = append(blobs, d)
		}
	}
	return blobs
}

// LoadIndex fetches an image index and the manifests and configs of all its
// images, each verified before it is read. ErrNoIndex says that root is a
// manifest. It refuses one that lists another image index, two images for one
// platform, or no image at all.
func LoadIndex(ctx context.Context, root ocispec.Descriptor, fetch FetchFunc) (*Index, error) {
	raw, doc, err := loadDocument(ctx, root, fetch)
	if err != nil {
		return nil, err
	}
	if !doc.IsIndex() {
		return nil, fmt.Errorf("manifest %s: %w", root.Digest, ErrNoIndex)
	}
	root.MediaType = doc.MediaType
	l := &indexLoader{fetch: fetch, seen: map[digest.Digest]*Image{}}
	l.Index = &Index{Descriptor: root, Raw: raw}
	if err := l.load(ctx, doc.Manifests); err != nil {
		return nil, fmt.Errorf("image index %s: %w", root.Digest, err)
	}
	return l.Index, nil
}

// indexLoader fetches what an image index lists.
type indexLoader struct {
	*Index
	fetch FetchFunc
	seen  map[digest.Digest]*Image // nil: it is none
	bytes int
}

func (l *indexLoader) load(ctx context.Context, listed []ocispec.Descriptor) error {
	if len(listed) > MaxIndexManifests {
		return fmt.Errorf("it lists %d manifests, more than the %d that are taken at once: choose one of them", len(listed), MaxIndexManifests)
	}
	for i, d := range listed {
		if IsIndex(d.MediaType) {
			return fmt.Errorf("manifests[%d]: %w", i, nested(d))
		}
	}
	for i, d := range listed {
		if err := l.add(ctx, d); err != nil {
			return fmt.Errorf("manifests[%d]: %w", i, err)
		}
		if l.bytes > maxIndexDocuments {
			return fmt.Errorf("its manifests and configs have more than %d bytes", maxIndexDocuments)
		}
	}
	if len(l.Images) == 0 {
		return errors.New("it lists no image")
	}
	return checkPlatforms(l.Platforms)
}

func nested(d ocispec.Descriptor) error {
	return fmt.Errorf("%s is an image index itself: choose that one by its digest", d.Digest)
}

// add takes in what an entry leads to.
func (l *indexLoader) add(ctx context.Context, d ocispec.Descriptor) error {
	img, known := l.seen[d.Digest]
	if !known {
		var err error
		if img, err = l.read(ctx, d); err != nil {
			return err
		}
		l.seen[d.Digest] = img
	}
	if img == nil {
		return nil
	}
	if d.Platform == nil {
		p := img.Platform
		d.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
	l.Platforms = append(l.Platforms, d)
	return nil
}

// read fetches a manifest, and its config; nil: it is no image's.
func (l *indexLoader) read(ctx context.Context, d ocispec.Descriptor) (*Image, error) {
	raw, err := fetchVerified(ctx, "manifest "+d.Digest.String(), d, l.fetch)
	if err != nil {
		return nil, err
	}
	l.bytes += len(raw)
	doc, err := ParseDocument(raw, d.MediaType)
	switch {
	case errors.Is(err, ErrArtifact) || !IsImage(d):
		return nil, l.readOther(d, raw)
	case err != nil:
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	case doc.IsIndex():
		return nil, nested(d)
	}
	img, err := loadManifest(ctx, d, d, doc, raw, l.fetch, LoadOptions{})
	if err != nil {
		return nil, err
	}
	if d.Platform != nil {
		img.Platform = PlatformOf(d)
	}
	l.bytes += len(img.Config)
	l.Images = append(l.Images, img)
	return img, nil
}

func (l *indexLoader) readOther(d ocispec.Descriptor, raw []byte) error {
	doc, err := ParseAttachment(raw, d.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	d.MediaType = doc.MediaType
	l.Others = append(l.Others, &Other{Descriptor: d, Raw: raw, Document: doc})
	return nil
}

// IsImage tells whether an entry of an image index may be an image's: builders
// mark what they say about one by the platform unknown/unknown.
func IsImage(d ocispec.Descriptor) bool {
	p := PlatformOf(d)
	return p.OS != "unknown" || p.Architecture != "unknown"
}

// checkPlatforms refuses two images for one platform: which one is meant,
// readers may disagree about.
func checkPlatforms(listed []ocispec.Descriptor) error {
	by := map[string]digest.Digest{}
	for _, d := range listed {
		// Windows has an image for each of its versions.
		key := strings.Join(append([]string{PlatformOf(d).normal().String(), d.Platform.OSVersion}, d.Platform.OSFeatures...), " ")
		if have := by[key]; have != "" && have != d.Digest {
			return fmt.Errorf("it lists two images for %s, %s and %s", Printable(PlatformOf(d).String(), maxQuoted), have, d.Digest)
		}
		by[key] = d.Digest
	}
	return nil
}
