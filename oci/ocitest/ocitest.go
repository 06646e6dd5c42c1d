// Package ocitest makes small container images in memory, writes them to a
// layout directory or pushes them to a registry, and runs one suite of tests
// over any oci.Source.
//
// It has its own few lines for writing layouts and talking to registries, so
// that a mistake in the packages under test can't hide itself here. The same
// Image always gives the same bytes. Whoever needs a broken image builds a
// whole one and damages the Blobs before writing it.
package ocitest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Compression is how a layer is stored.
type Compression int

// The compressions that builders use; layers are gzip if nothing is said.
const (
	Gzip Compression = iota
	Zstd
	None
)

// Image is an image to be made. The zero Image is one without layers.
type Image struct {
	Layers      [][]byte      // uncompressed tars, lowest first
	Compression []Compression // of each layer; the last one goes for the rest
	Docker      bool          // Docker schema 2 types in place of OCI's
	Platform    oci.Platform  // zero: this machine's
	Labels      map[string]string
	// EditConfig and EditManifest may make them lie before they are written.
	EditConfig   func(*ocispec.Image)
	EditManifest func(*ocispec.Manifest)
}

// Index is an image index to be made.
type Index struct {
	Images  []Image
	Indexes []Index // after the images
	Docker  bool
	// NoPlatform leaves the platforms out.
	NoPlatform bool
	// Attested adds for each image a manifest of how it was made, as BuildKit does.
	Attested bool
	// Edit may make it lie before it is written.
	Edit func(*ocispec.Index)
}

// Blob is a blob and what refers to it.
type Blob struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// Built is an image or image index as bytes: all blobs, each after those it
// refers to, the last one being the whole.
type Built struct {
	Blobs []Blob
}

// Root returns the descriptor of the whole.
func (b *Built) Root() ocispec.Descriptor { return b.Blobs[len(b.Blobs)-1].Descriptor }

// Find returns the first blob of a kind: "manifest", "index", "config" or
// "layer". It panics if there is none, as only a wrong test can ask so.
func (b *Built) Find(kind string) *Blob {
	is := map[string]func(string) bool{
		"manifest": oci.IsManifest, "index": oci.IsIndex, "config": oci.IsConfig, "layer": oci.IsLayer,
	}[kind]
	for i := range b.Blobs {
		if is(b.Blobs[i].Descriptor.MediaType) {
			return &b.Blobs[i]
		}
	}
	panic("no " + kind + " in the image")
}

// add appends a blob and returns its descriptor.
func (b *Built) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.Blobs = append(b.Blobs, Blob{Descriptor: d, Data: data})
	return d
}

// addJSON appends a document.
func (b *Built) addJSON(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.add(mediaType, data), nil
}

// Build makes the image's bytes.
func (m Image) Build() (*Built, error) {
	b := new(Built)
	if _, err := m.build(b); err != nil {
		return nil, err
	}
	return b, nil
}

// build appends the image's blobs and returns its manifest's descriptor.
func (m Image) build(b *Built) (ocispec.Descriptor, error) {
	p := m.platform()
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant},
		Config:   ocispec.ImageConfig{Labels: m.Labels},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: m.pick(oci.MediaTypeDockerManifest, ocispec.MediaTypeImageManifest),
		Layers:    []ocispec.Descriptor{},
	}
	for i, tar := range m.Layers {
		c := m.compression(i)
		blob, err := compress(tar, c)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, b.add(m.layerType(c), blob))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(tar))
	}
	if m.EditConfig != nil {
		m.EditConfig(&config)
	}
	d, err := b.addJSON(m.pick(oci.MediaTypeDockerConfig, ocispec.MediaTypeImageConfig), config)
	if err != nil {
		return d, err
	}
	manifest.Config = d
	if m.EditManifest != nil {
		m.EditManifest(&manifest)
	}
	return b.addJSON(manifest.MediaType, manifest)
}

// platform returns the image's platform.
func (m Image) platform() oci.Platform {
	if m.Platform == (oci.Platform{}) {
		return oci.DefaultPlatform()
	}
	return m.Platform
}

// pick returns Docker's or OCI's word.
func (m Image) pick(docker, open string) string {
	if m.Docker {
		return docker
	}
	return open
}

// compression returns how layer i is stored.
func (m Image) compression(i int) Compression {
	if len(m.Compression) == 0 {
		return Gzip
	}
	return m.Compression[min(i, len(m.Compression)-1)]
}

// layerType returns the media type of a layer.
func (m Image) layerType(c Compression) string {
	switch c {
	case Zstd:
		return m.pick(oci.MediaTypeDockerLayerZstd, ocispec.MediaTypeImageLayerZstd)
	case None:
		return m.pick(oci.MediaTypeDockerLayer, ocispec.MediaTypeImageLayer)
	}
	return m.pick(oci.MediaTypeDockerLayerGzip, ocispec.MediaTypeImageLayerGzip)
}

// compress stores a tar as asked for.
func compress(tar []byte, c Compression) ([]byte, error) {
	if c == None {
		return tar, nil
	}
	var out bytes.Buffer
	w := io.WriteCloser(gzip.NewWriter(&out))
	if c == Zstd {
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		w = z
	}
	if _, err := w.Write(tar); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Build makes the image index's bytes.
func (x Index) Build() (*Built, error) {
	b := new(Built)
	if _, err := x.build(b); err != nil {
		return nil, err
	}
	return b, nil
}

// build appends the blobs of an image index and all below it.
func (x Index) build(b *Built) (ocispec.Descriptor, error) {
	mediaType := ocispec.MediaTypeImageIndex
	if x.Docker {
		mediaType = oci.MediaTypeDockerManifestList
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: []ocispec.Descriptor{}}
	for _, m := range x.Images {
		d, err := m.build(b)
		if err != nil {
			return d, err
		}
		if p := m.platform(); !x.NoPlatform {
			d.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
		}
		index.Manifests = append(index.Manifests, d)
	}
	for _, sub := range x.Indexes {
		d, err := sub.build(b)
		if err != nil {
			return d, err
		}
		index.Manifests = append(index.Manifests, d)
	}
	if x.Attested {
		for _, d := range slices.Clone(index.Manifests) {
			a, err := b.attest(d)
			if err != nil {
				return d, err
			}
			index.Manifests = append(index.Manifests, a)
		}
	}
	if x.Edit != nil {
		x.Edit(&index)
	}
	return b.addJSON(mediaType, index)
}

// attest appends a manifest that says something about another one, by which
// it is no image's, though its config is one.
func (b *Built) attest(of ocispec.Descriptor) (ocispec.Descriptor, error) {
	statement := b.add("application/vnd.in-toto+json", []byte(`{"_type":"https://in-toto.io/Statement/v0.1","subject":["`+of.Digest.String()+`"]}`))
	config, err := b.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{statement.Digest}},
	})
	if err != nil {
		return of, err
	}
	d, err := b.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{statement},
	})
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{
		"vnd.docker.reference.digest": of.Digest.String(), "vnd.docker.reference.type": "attestation-manifest",
	}
	return d, err
}
