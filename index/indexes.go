package index

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// An image index is a document with a stream of its own, which refers to all that it lists by the names of entries: to the
// manifests of images, to other manifests, which are blobs, and to the blobs that these list, where they are kept. So all of
// them live as long as the index does. Other composefs tools follow the references and look no further.

func indexEntry(d digest.Digest) string { return indexPrefix + d.String() }

// ImageIndex is what a store has of an image index.
type ImageIndex struct {
	Name      string
	Digest    digest.Digest
	MediaType string
	Raw       []byte
	Images    []ocispec.Descriptor // of manifests, with the platforms that it lists them for
	Others    []ocispec.Descriptor // of what it lists besides

	stream fsverity.Digest
	refs   []stream.NamedRef
}

// FindImageIndex finds the image index that a name stands for; nil: it stands for none.
func FindImageIndex(s *store.Store, name string) (*ImageIndex, error) {
	n, err := standingOf(s, name)
	if err != nil {
		return nil, err
	}
	return findIndex(s, name, n)
}

// findIndex reads the image index that a name's refs lead to, if that ref counts.
func findIndex(s *store.Store, name string, n standing) (*ImageIndex, error) {
	if n.index == "" || n.image != "" {
		return nil, nil
	}
	d, ok := cutDigest(n.index, indexPrefix)
	if !ok {
		return nil, fmt.Errorf("%q leads to %q, which is no image index", name, n.index)
	}
	id, refs, err := entryRefs(s, n.index)
	if err == nil {
		if _, listed := refNamed(refs, n.tag); n.tag != "" && !listed {
			return nil, nil // somebody was cut off while the name changed, or another tool has changed it
		}
	}
	var x *ImageIndex
	if err == nil {
		x, err = parseIndex(s, d, id, refs)
	}
	if err != nil {
		return nil, fmt.Errorf("image index %s: parts of it are missing, pull it again: %w", d, err)
	}
	x.Name = name
	return x, nil
}

func readIndex(s *store.Store, d digest.Digest) (*ImageIndex, error) {
	id, refs, err := entryRefs(s, indexEntry(d))
	if err != nil {
		return nil, err
	}
	return parseIndex(s, d, id, refs)
}

func parseIndex(s *store.Store, d digest.Digest, id fsverity.Digest, refs []stream.NamedRef) (*ImageIndex, error) {
	x := &ImageIndex{Digest: d, stream: id, refs: refs}
	var err error
	if x.Raw, err = readDocument(s, id); err != nil {
		return nil, err
	}
	doc, err := oci.ParseDocument(x.Raw, "")
	if err == nil && !doc.IsIndex() {
		err = oci.ErrNoIndex
	}
	if err != nil {
		return nil, err
	}
	x.MediaType = doc.MediaType
	for _, m := range doc.Manifests {
		if _, is := refNamed(refs, manifestEntry(m.Digest)); !is {
			x.Others = append(x.Others, m)
			continue
		}
		if m.Platform == nil {
			if m.Platform, err = configPlatform(s, m.Digest); err != nil {
				return nil, err
			}
		}
		x.Images = append(x.Images, m)
	}
	return x, nil
}

// configPlatform is what a manifest's config says.
func configPlatform(s *store.Store, manifest digest.Digest) (*ocispec.Platform, error) {
	i, err := readInfo(s, manifest, OCI1)
	if err != nil {
		return nil, err
	}
	c, err := oci.ParseConfig(i.ConfigRaw)
	if err != nil {
		return nil, err
	}
	p := c.Platform
	return &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, nil
}

// find finds the image for a platform; zero: the one that the name's tag leads to, or the one for this machine.
func (x *ImageIndex) find(s *store.Store, tag string, p oci.Platform) (*Info, error) {
	if d, ok := cutDigest(tag, manifestPrefix); ok && p == (oci.Platform{}) {
		at := slices.IndexFunc(x.Images, func(m ocispec.Descriptor) bool { return m.Digest == d })
		if at < 0 {
			return nil, fmt.Errorf("image index %s does not list manifest %s", x.Digest, d)
		}
		return x.image(s, x.Images[at])
	}
	if p == (oci.Platform{}) {
		p = oci.DefaultPlatform()
	}
	m, err := oci.Select(x.Images, p)
	if err != nil {
		return nil, fmt.Errorf("image index %s: %w", x.Digest, err)
	}
	return x.image(s, m)
}

func (x *ImageIndex) image(s *store.Store, m ocispec.Descriptor) (*Info, error) {
	i, err := findTagged(s, x.Name, manifestEntry(m.Digest), "")
	if err != nil {
		return nil, fmt.Errorf("image for %s: %w", oci.PlatformOf(m), err)
	}
	i.Index, i.Platform = x.Digest, oci.PlatformOf(m)
	return i, nil
}

// findAny is Find, and finds an image index without an image for this machine.
func findAny(s *store.Store, name string) (*Info, error) {
	i, err := Find(s, name)
	if !errors.As(err, new(*oci.PlatformError)) {
		return i, err
	}
	x, err := FindImageIndex(s, name)
	if err == nil && x == nil {
		err = noImage(name)
	}
	if err != nil {
		return nil, err
	}
	return &Info{Name: name, Index: x.Digest}, nil
}

// Platforms lists the images of the image index that a name stands for, each platform's, in the order of the index; of an
// image of no index, that one.
func Platforms(s *store.Store, i *Info) ([]*Info, error) {
	if i.Index == "" {
		return []*Info{i}, nil
	}
	x, err := readIndex(s, i.Index)
	if err != nil {
		return nil, fmt.Errorf("image index %s: %w", i.Index, err)
	}
	x.Name = i.Name
	all := make([]*Info, len(x.Images))
	for n, m := range x.Images {
		if all[n], err = x.image(s, m); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// others are the streams that it refers to which are no images'.
func (x *ImageIndex) others() (ids []fsverity.Digest) {
	for _, r := range x.refs {
		if _, ok := CutBlobEntry(r.Name); ok {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
