// Package cstorage reads and writes images in a store of containers-storage, where podman, buildah, CRI-O and skopeo keep
// theirs. A Source writes nothing, mounts nothing and needs no privilege but to read the files.
//
// A store is a directory, its graph root:
//
//	DRIVER-images/images.json              names, IDs and top layers of images
//	DRIVER-images/ID/…                     manifests and config of an image, "big data", under encoded names
//	DRIVER-layers/layers.json              layers and their parents
//	DRIVER-layers/ID.tar-split.gz          all of a layer's tar but the contents of files
//	overlay/ID/diff/, vfs/dir/ID/          a layer's files: its own, or with those below it
//
// The library for it, go.podman.io/storage, writes files and leaves a mount as soon as it opens a store. A Source uses only
// the package of it that reads storage.conf; a Sink, which is to write, leaves all else to the library.
//
// Layers are kept unpacked. tar-split gives back their tars bit for bit, but not the compressed blobs that the manifest
// lists. So Manifest and Config are the original ones, and Stored tells by which descriptor the tar of a layer can be had:
// its digest is the diffID.
//
// Invariants:
//
//   - Whoever owns a store may be somebody else than who reads it. Everything is reached by descriptors of its roots, without
//     symbolic links or with those of a layer inside that layer; devices and pipes are not opened; sizes are bounded.
//   - The locks that the store's own tools honour are held, shared, while records or layers are read.
package cstorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Options of a Source.
type Options struct {
	// Platform that the image must have. Zero takes any.
	Platform oci.Platform
	// Waiting is told of a lock, by its path, that somebody else holds and that is waited for.
	Waiting func(lock string)
}

// Source is one image of a store. It implements oci.Source.
type Source struct {
	ref   oci.Reference
	place place
	what  target
	opts  Options
	store *store

	mu   sync.Mutex
	read *contents // nil: not yet
}

var (
	_ oci.ConvertedSource = (*Source)(nil)
	_ oci.FileBlob        = (*layerReader)(nil)
)

// contents is what was read of an image and the store that it is in.
type contents struct {
	root   ocispec.Descriptor // of the manifest, or the image index that was asked for
	image  *oci.Image
	layers map[oci.DiffID]*layerRecord // of the image first, then of the whole store
}

// Open opens the store of a containers-storage: reference. The image is looked for later.
func Open(ref oci.Reference, o Options) (*Source, error) {
	s := &Source{ref: ref, opts: o}
	var err error
	if s.place, s.what, err = parse(ref.Path); err == nil {
		s.place, err = s.place.complete()
	}
	if err == nil {
		s.store, err = openStore(s.place)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return s, nil
}

// String returns the reference.
func (s *Source) String() string { return s.ref.String() }

// Origin is the reference by which the image is found whatever the configuration is.
func (s *Source) Origin() string {
	ref := s.ref
	_, rest := cutPlace(ref.Path)
	ref.Path = s.place.with(s.store.driver) + rest
	return ref.String()
}

// Close releases the store's directories. Layers that are open stay so.
func (s *Source) Close() error { return s.store.close() }

// Resolve finds the image.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	c, err := s.contents(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return c.root, nil
}

// Image returns the image as it was when the source was first asked for anything.
func (s *Source) Image(ctx context.Context) (*oci.Image, error) {
	c, err := s.contents(ctx)
	if err != nil {
		return nil, err
	}
	m := *c.image
	return &m, nil
}

// contents reads the image once, so that all answers are of one image.
func (s *Source) contents(ctx context.Context) (*contents, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		c, err := s.load(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.ref, err)
		}
		s.read = c
	}
	return s.read, nil
}

// load reads the image, its documents and all layers' records, under the locks.
func (s *Source) load(ctx context.Context) (c *contents, err error) {
	held, err := s.store.lock(ctx, s.opts.Waiting)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.release()) }()
	record, err := s.store.find(s.what)
	if err != nil {
		return nil, explainAccess(err)
	}
	c = new(contents)
	if c.image, err = s.documents(ctx, record, &c.root); err != nil {
		return nil, fmt.Errorf("image %s: %w", record.ID, explainAccess(err))
	}
	all, err := s.store.readLayers()
	if err != nil {
		return nil, explainAccess(err)
	}
	own, err := chain(all, record.TopLayer)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", record.ID, err)
	}
	c.layers, err = byDiffID(all, own, c.image)
	return c, err
}

// documents follows the manifest that is meant to manifest and config, which are big data of the image.
func (s *Source) documents(ctx context.Context, i *imageRecord, root *ocispec.Descriptor) (*oci.Image, error) {
	key := currentManifest
	if s.what.digest != "" {
		key = manifestKey(s.what.digest)
	}
	raw, err := i.data(key)
	if err != nil {
		return nil, err
	}
	*root = ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if s.what.digest != "" {
		root.Digest = s.what.digest
	}
	fetch := func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		switch {
		case d.Digest == root.Digest:
			return raw, nil
		case oci.IsManifest(d.MediaType) || oci.IsIndex(d.MediaType):
			return i.data(manifestKey(d.Digest))
		}
		return i.data(d.Digest.String())
	}
	m, err := oci.Load(ctx, *root, fetch, oci.LoadOptions{Platform: s.opts.Platform})
	if err != nil {
		return nil, err
	}
	m.Reference = s.ref.String()
	return m, nil
}

// byDiffID maps diffIDs to layers. Those of the image are known by their places in it: of layers that were pulled in part the
// store may not have a diffID.
func byDiffID(all map[string]*layerRecord, own []*layerRecord, m *oci.Image) (map[oci.DiffID]*layerRecord, error) {
	if len(own) != len(m.Layers) {
		return nil, fmt.Errorf("the store has %d layers of the image, its manifest %d", len(own), len(m.Layers))
	}
	layers := make(map[oci.DiffID]*layerRecord, len(all))
	for _, l := range all {
		if l.UncompressedDigest != "" && !l.incomplete() {
			layers[oci.DiffID(l.UncompressedDigest)] = l
		}
	}
	for n, l := range own {
		d := m.Layers[n].DiffID
		if got := l.UncompressedDigest; got != "" && oci.DiffID(got) != d {
			return nil, fmt.Errorf("layer %s has the diffID %s in the store and %s in the config", l.ID, shown(got.String()), d)
		}
		layers[d] = l
	}
	return layers, nil
}

// Stored returns the descriptor of the layer's tar.
func (s *Source) Stored(ctx context.Context, l oci.Layer) (oci.Layer, error) {
	c, err := s.contents(ctx)
	if err != nil {
		return l, err
	}
	record := c.layers[l.DiffID]
	if record == nil {
		return l, fmt.Errorf("%s: the store has no layer with the diffID %s", s.ref, l.DiffID)
	}
	size, err := s.store.tarSize(record)
	if err != nil {
		return l, fmt.Errorf("%s: %w", s.ref, err)
	}
	l.Descriptor = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(l.DiffID), Size: size}
	return l, nil
}

// OpenBlob puts a layer's tar together. There are no other blobs.
func (s *Source) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	c, err := s.contents(ctx)
	if err != nil {
		return nil, err
	}
	l := c.layers[oci.DiffID(desc.Digest)]
	if l == nil {
		return nil, fmt.Errorf("%s: the store has no layer whose tar has the digest %s", s.ref, shown(desc.Digest.String()))
	}
	r, err := s.store.openLayer(ctx, l, s.opts.Waiting)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	if r.size != desc.Size {
		return nil, errors.Join(&oci.SizeError{What: "layer " + l.ID, Want: desc.Size, Got: r.size}, r.Close())
	}
	return r, nil
}
