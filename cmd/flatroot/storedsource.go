package main

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// storedSource gives an image of the store as one whose layers are not compressed.
type storedSource struct {
	store *store.Store
	info  *index.Info
}

func newStoredSource(s *store.Store, i *index.Info) *storedSource { return &storedSource{s, i} }

var errNoResolve = errors.New("an image of the store is not resolved")

// Resolve is for imports into a store, and not needed here.
func (s *storedSource) Resolve(context.Context) (d ocispec.Descriptor, err error) {
	return d, errNoResolve
}

// Image returns the documents that the store has, with the layers' tars for their blobs.
func (s *storedSource) Image(context.Context) (*oci.Image, error) {
	m := s.info
	img := &oci.Image{
		Descriptor: ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Manifest, Size: int64(len(m.ManifestRaw))}, Manifest: m.ManifestRaw,
		ConfigDescriptor: ocispec.Descriptor{Digest: m.Config, Size: int64(len(m.ConfigRaw))}, Config: m.ConfigRaw,
		Reference: m.Name,
	}
	for _, l := range m.Layers {
		blob := ocispec.Descriptor{Digest: digest.Digest(l.DiffID), Size: l.TarSize}
		img.Layers = append(img.Layers, oci.Layer{Descriptor: blob, DiffID: l.DiffID})
	}
	return img, nil
}

// documentsOf are manifest and config of an image of the store, and the layers as these list them.
func documentsOf(i *index.Info) (*oci.Image, error) {
	desc := ocispec.Descriptor{MediaType: i.MediaType, Digest: i.Manifest, Size: int64(len(i.ManifestRaw))}
	return oci.ParseImage(desc, i.ManifestRaw, i.ConfigRaw)
}

// OpenBlob streams a layer's tar.
func (s *storedSource) OpenBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(index.WriteTar(ctx, s.store, oci.DiffID(d.Digest), w)) }()
	return r, nil
}

func (s *storedSource) String() string { return s.info.Name }

// Close does nothing: the store is the caller's.
func (s *storedSource) Close() error { return nil }
