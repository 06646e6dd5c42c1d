package index

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Media types of Docker's schema 2, which has no zstd.
const (
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// PushOptions are Push's.
type PushOptions struct {
	// Compression is that of the layers at the destination: "gzip" (the default), "zstd" or "none".
	Compression string
	Progress    Progress
}

// PushReport says what a push did.
type PushReport struct {
	Name     string        `json:"name"`
	Manifest digest.Digest `json:"manifest"` // at the destination
	Config   digest.Digest `json:"config"`
	Layers   LayerCounts   `json:"layers"` // reused: the destination has them; fetched: written
	Bytes    int64         `json:"bytes"`  // written
}

// Push writes an image that the store has to a sink: the same layers, tar for tar, and the same config. Their blobs are
// made anew, always the same way, so that the manifest is another one unless the layers were not compressed in the first
// place and stay so.
func Push(ctx context.Context, s *store.Store, i *Info, to oci.Sink, o PushOptions) (*PushReport, error) {
	if i.Manifest == "" {
		return nil, fmt.Errorf("%s was built from a dump: it has no layers that could be pushed", i.Name)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	var err error
	if o.Compression, err = compressionFor(o.Compression, i.MediaType); err != nil {
		return nil, err
	}
	p := &pusher{PushOptions: o, s: s, to: to, docker: i.MediaType == dockerManifest}
	p.report = PushReport{Name: i.Name, Config: i.Config}
	layers := make([]ocispec.Descriptor, len(i.Layers))
	for n, l := range i.Layers {
		if layers[n], err = p.layer(ctx, l); err != nil {
			return nil, fmt.Errorf("push layer %d (%s): %w", n+1, l.DiffID, err)
		}
	}
	return p.documents(ctx, i, layers)
}

func compressionFor(c, manifestType string) (string, error) {
	switch c {
	case "":
		return gz, nil
	case zst:
		if manifestType == dockerManifest {
			return "", errors.New("a Docker schema 2 image can't have zstd layers: use gzip or none")
		}
		return c, nil
	case gz, plain:
		return c, nil
	}
	return "", fmt.Errorf("unknown compression %q: use gzip, zstd or none", c)
}

type pusher struct {
	PushOptions
	s      *store.Store
	to     oci.Sink
	docker bool
	report PushReport
}

func (p *pusher) layer(ctx context.Context, l LayerInfo) (ocispec.Descriptor, error) {
	p.report.Layers.Total++
	if p.Compression == plain {
		return p.plainLayer(ctx, l)
	}
	tell := p.Progress.Start(oci.Layer{DiffID: l.DiffID, Descriptor: ocispec.Descriptor{Digest: l.Blob, Size: l.TarSize}})
	blob, err := p.s.Scratch()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer blob.Close()
	desc, err := p.compress(ctx, l.DiffID, blob, tell)
	if err != nil {
		return desc, err
	}
	if tell != nil {
		tell(0)
	}
	return desc, p.put(ctx, desc, func() (io.ReadCloser, error) {
		_, err := blob.Seek(0, io.SeekStart)
		return io.NopCloser(blob), err
	})
}

// compress writes a layer's blob to a file.
func (p *pusher) compress(ctx context.Context, d oci.DiffID, blob *os.File, tell func(int64)) (ocispec.Descriptor, error) {
	hash := digest.SHA256.Digester()
	count := &countWriter{}
	// Compressors write what they have in small pieces.
	buffer := bufio.NewWriterSize(blob, 128<<10)
	z, err := compressor(p.Compression, io.MultiWriter(buffer, hash.Hash(), count))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := WriteTar(ctx, p.s, d, tellWriter{z, tell}); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := buffer.Flush(); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: p.layerType(), Digest: hash.Digest(), Size: count.n}, nil
}

type tellWriter struct {
	io.Writer
	tell func(int64)
}

func (w tellWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if w.tell != nil && n > 0 {
		w.tell(int64(n))
	}
	return n, err
}

// compressor's output depends on nothing but its input: fixed levels, one thread, no names or times.
func compressor(c string, w io.Writer) (io.WriteCloser, error) {
	if c == zst {
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, 6)
}

func (p *pusher) layerType() string {
	switch {
	case p.docker && p.Compression == plain:
		return dockerLayer
	case p.docker:
		return dockerLayerGzip
	case p.Compression == plain:
		return ocispec.MediaTypeImageLayer
	case p.Compression == zst:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// plainLayer pushes a tar as it is; its digest is known.
func (p *pusher) plainLayer(ctx context.Context, l LayerInfo) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: p.layerType(), Digest: digest.Digest(l.DiffID), Size: l.TarSize}
	tell := p.Progress.Start(oci.Layer{DiffID: l.DiffID, Descriptor: desc})
	err := p.put(ctx, desc, func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(WriteTar(ctx, p.s, l.DiffID, tellWriter{w, tell})) }()
		return r, nil
	})
	if tell != nil {
		tell(0)
	}
	return desc, err
}

func (p *pusher) put(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	has, err := p.to.HasBlob(ctx, desc)
	if err != nil {
		return err
	}
	if has {
		p.report.Layers.Reused++
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := p.to.PutBlob(ctx, desc, r); err != nil {
		return err
	}
	p.report.Layers.Fetched++
	p.report.Bytes += desc.Size
	return nil
}

// documents pushes config and manifest; the manifest is changed only where the layers' descriptors are.
func (p *pusher) documents(ctx context.Context, i *Info, layers []ocispec.Descriptor) (*PushReport, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(i.ManifestRaw, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", i.Manifest, err)
	}
	raw := i.ManifestRaw
	if replaceLayers(m.Layers, layers) {
		var err error
		if raw, err = json.Marshal(m); err != nil {
			return nil, err
		}
	}
	if err := p.to.PutBlob(ctx, m.Config, newReader(i.ConfigRaw)); err != nil {
		return nil, fmt.Errorf("push config: %w", err)
	}
	desc := describe(i.MediaType, raw)
	p.report.Manifest = desc.Digest
	if err := p.to.PutManifest(ctx, raw, desc); err != nil {
		return nil, fmt.Errorf("push manifest: %w", err)
	}
	return &p.report, nil
}

// replaceLayers puts new blobs into a manifest's descriptors, whose annotations stay, and tells whether one is new.
func replaceLayers(have, layers []ocispec.Descriptor) bool {
	changed := false
	for n := range have {
		l := layers[n]
		if have[n].Digest != l.Digest || have[n].Size != l.Size {
			have[n].MediaType, have[n].Digest, have[n].Size = l.MediaType, l.Digest, l.Size
			have[n].URLs = nil
			changed = true
		}
	}
	return changed
}
