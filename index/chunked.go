package index

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage/pkg/chunked/compressor"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// ReadLayer reads a layer's tar, compressed or not, for Flatten, and stores nothing. The layer's DiffID is what was read.
// It is for layers that one has written oneself: none of Limits bounds them.
func ReadLayer(ctx context.Context, a fsverity.Algorithm, tar io.Reader) (*Layer, error) {
	j := &layerJob{hashers: startHashers(hashed{a}), to: hashed{a}, alg: a, limits: noLimits()}
	defer j.hashers.stop()
	r, err := j.read(ctx, tar, -1)
	if err != nil {
		return nil, err
	}
	return r.layer, nil
}

// FindManifest finds an image by its manifest, whatever it is called, with the image that was made of it by these rules.
func FindManifest(s *store.Store, manifest digest.Digest, r Rules) (*Info, error) {
	i, err := readInfo(s, manifest, r)
	if err != nil {
		return nil, fmt.Errorf("find manifest %s: %w", manifest, err)
	}
	return i, nil
}

// StoredLayers are an image's layers, for StoredTree.
func (i *Info) StoredLayers() []StoredLayer {
	layers := make([]StoredLayer, len(i.Layers))
	for n, l := range i.Layers {
		layers[n] = StoredLayer{DiffID: l.DiffID, Stream: l.Stream}
	}
	return layers
}

// ErrNotKept says that the blob of a layer was not kept as it was.
var ErrNotKept = errors.New("its blob was not kept: pull the image with --keep-blobs")

// zstdChunked is zstd with a table of contents at its end: see toc.go.
const zstdChunked = "zstd:chunked"

// LayerCompressions lists what a LayerCompressor can do.
func LayerCompressions() []string { return []string{gz, zst, zstdChunked, plain} }

// LayerCompressor compresses layers' tars in one way. What it writes depends on nothing but that and the tar. It may be used
// concurrently.
type LayerCompressor struct {
	Compression string // one of LayerCompressions
	compressors compressors
}

// Open begins a layer. The media type is OCI's. Once it is closed, annotations has what the layer's descriptor has to say of it
// besides.
func (c *LayerCompressor) Open(w io.Writer, annotations map[string]string) (z io.WriteCloser, mediaType string, err error) {
	switch c.Compression {
	case plain:
		return nopCloser{w}, ocispec.MediaTypeImageLayer, nil
	case zstdChunked:
		z, err = compressor.ZstdCompressor(w, annotations, nil)
		return z, ocispec.MediaTypeImageLayerZstd, err
	case gz:
		mediaType = ocispec.MediaTypeImageLayerGzip
	case zst:
		mediaType = ocispec.MediaTypeImageLayerZstd
	default:
		return nil, "", fmt.Errorf("unknown compression %q", c.Compression)
	}
	z, err = c.compressors.open(c.Compression, w)
	return z, mediaType, err
}

// IsCompressed tells whether the blob that a layer's descriptor is of is, by what that says of it, one of a LayerCompressor's.
func IsCompressed(desc ocispec.Descriptor, compression string) bool {
	_, err := findTables(desc)
	switch compression {
	case plain:
		return desc.MediaType == ocispec.MediaTypeImageLayer
	case gz:
		return desc.MediaType == ocispec.MediaTypeImageLayerGzip
	case zst:
		return desc.MediaType == ocispec.MediaTypeImageLayerZstd && err == errNotChunked
	case zstdChunked:
		return desc.MediaType == ocispec.MediaTypeImageLayerZstd && err == nil
	}
	return false
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// LoadLayer reads a layer that a store has, for Flatten.
func LoadLayer(ctx context.Context, s *store.Store, l StoredLayer) (*Layer, error) {
	limits := noLimits()
	return loadLayer(ctx, s, l.DiffID, l.Stream, limits, newBounds(limits))
}
