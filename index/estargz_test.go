package index

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

// TestSeekableLayers imports layers that containerd's library has made seekable: eStargz is many gzip members, in which its
// table is a file of the tar, and its own zstd:chunked is many frames, some of them skipped, without tar-split data. Both are
// layers like any other, whatever the source can give.
func TestSeekableLayers(t *testing.T) {
	data := ocitest.Tar(partFiles()...)
	for _, c := range []struct {
		name      string
		mediaType string
		options   []estargz.Option
		table     bool // it is a file
	}{
		{"estargz", ocispec.MediaTypeImageLayerGzip, []estargz.Option{estargz.WithChunkSize(10_000)}, true},
		{"zstd:chunked", ocispec.MediaTypeImageLayerZstd, []estargz.Option{estargz.WithCompression(struct {
			*zstdchunked.Compressor
			*zstdchunked.Decompressor
		}{&zstdchunked.Compressor{CompressionLevel: zstd.SpeedDefault}, &zstdchunked.Decompressor{}})}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := estargz.Build(io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), c.options...)
			must(t, err)
			blob, err := io.ReadAll(b)
			must(t, err)
			must(t, b.Close())
			layer := ocitest.Blob{Data: blob, Descriptor: ocispec.Descriptor{
				MediaType: c.mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob)),
				Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: b.TOCDigest().String()},
			}}
			src := &partSource{memSource: newSource(t, ocitest.Image{
				Layers:       [][]byte{data},
				EditConfig:   func(c *ocispec.Image) { c.RootFS.DiffIDs[0] = b.DiffID() },
				EditManifest: func(m *ocispec.Manifest) { m.Layers[0] = layer.Descriptor },
			})}
			src.built.Blobs[0] = layer
			s := partsStore(t, "image", partFiles()...)
			checkPulled(t, s, src, ImportOptions{})
			if len(src.asked) > 0 || src.opened != 1 {
				t.Errorf("asked for %v, %d blobs opened", src.asked, src.opened)
			}
			names := layerNames(t, s, oci.DiffID(b.DiffID()))
			if slices.Contains(names, estargz.TOCTarName) != c.table || !slices.Contains(names, "usr/file29") {
				t.Errorf("files: %q", names)
			}
			if c.table {
				checkGunzip(t, s, blob, oci.DiffID(b.DiffID()))
			}
		})
	}
}

// layerNames are the names in the tar that the store gives back.
func layerNames(t *testing.T, s *store.Store, d oci.DiffID) (names []string) {
	var b bytes.Buffer
	must(t, WriteTar(context.Background(), s, d, &b))
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		must(t, err)
		names = append(names, h.Name)
	}
}

// checkGunzip compares the tar that the store gives back with what another gzip reader finds in the blob.
func checkGunzip(t *testing.T, s *store.Store, blob []byte, d oci.DiffID) {
	r, err := gzip.NewReader(bytes.NewReader(blob))
	must(t, err)
	want, err := io.ReadAll(r)
	must(t, err)
	var got bytes.Buffer
	must(t, WriteTar(context.Background(), s, d, &got))
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the store gives back another tar")
	}
}
