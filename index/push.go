package index

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Compressions for a push that are none.
const (
	// AsItWas sends the blobs that the image's manifest lists: those that were kept, those that the destination has or takes over
	// from another repository, and tars that are not compressed there.
	AsItWas = "original"
	// AsCanBe does so as far as it can be done, and compresses all other layers with gzip.
	AsCanBe = "auto"
)

// Compressions lists what PushOptions.Compression may be.
func Compressions() []string { return []string{AsCanBe, AsItWas, gz, zst, plain} }

// PushOptions are Push's.
type PushOptions struct {
	// Compression is that of the layers at the destination: one of Compressions; empty: AsCanBe.
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
	// Originals are the layers whose blobs are those of the image's manifest, Mounted those of them that were taken over from
	// another repository.
	Originals int `json:"originals"`
	Mounted   int `json:"mounted"`
	// SameManifest: it is the one that the image has.
	SameManifest bool `json:"same_manifest"`
}

// Push writes an image that the store has to a sink: the same layers, tar for tar, and the same config. Blobs that are not sent
// as they were are made anew, always the same way; then the manifest is another one.
func Push(ctx context.Context, s *store.Store, i *Info, to oci.Sink, o PushOptions) (*PushReport, error) {
	if i.Manifest == "" {
		return nil, fmt.Errorf("%s was built from a dump: it has no layers that could be pushed", i.Name)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	p := &pusher{PushOptions: o, s: s, to: to, docker: i.MediaType == oci.MediaTypeDockerManifest}
	if err := p.compression(i); err != nil {
		return nil, err
	}
	p.report = PushReport{Name: i.Name, Config: i.Config}
	layers := make([]ocispec.Descriptor, len(i.Layers))
	for n, l := range i.Layers {
		var err error
		if layers[n], err = p.layer(ctx, l); err != nil {
			return nil, fmt.Errorf("push layer %d (%s): %w", n+1, l.DiffID, err)
		}
	}
	return p.documents(ctx, i, layers)
}

// compression decides how layers are sent.
func (p *pusher) compression(i *Info) error {
	switch c := p.Compression; c {
	case "", AsCanBe:
		p.original = true
		p.Compression = gz
		// Of an image that was built here no manifest is anywhere yet that could stay the same.
		p.from = manifestPlace(p.s, i.Manifest)
	case AsItWas:
		p.original, p.only = true, true
		p.from = manifestPlace(p.s, i.Manifest)
	case zst:
		if p.docker {
			return errors.New("a Docker schema 2 image can't have zstd layers: use gzip or none")
		}
	case gz, plain:
	default:
		return fmt.Errorf("unknown compression %q: use one of %s", c, strings.Join(Compressions(), ", "))
	}
	return nil
}

// manifestPlace is where a manifest came from; nil: it was built, or nobody knows.
func manifestPlace(s *store.Store, d digest.Digest) *oci.Reference {
	o, err := ManifestOrigin(s, d)
	if err != nil {
		return nil
	}
	return parsedPlace(o)
}

func parsedPlace(o Origin) *oci.Reference {
	ref, err := oci.ParseReference(o.Repository)
	if err != nil {
		return nil
	}
	return &ref
}

type pusher struct {
	PushOptions
	s        *store.Store
	to       oci.Sink
	docker   bool
	original bool           // blobs are sent as they were if they can be had
	only     bool           // or nothing is
	from     *oci.Reference // where the manifest came from
	report   PushReport
}

func (p *pusher) layer(ctx context.Context, l LayerInfo) (ocispec.Descriptor, error) {
	p.report.Layers.Total++
	if p.original {
		sent, err := p.asItWas(ctx, l)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if sent {
			p.report.Originals++
			return l.descriptor(), nil
		}
		if p.only {
			return ocispec.Descriptor{}, fmt.Errorf("its blob %s was not kept, and the destination does not have it: "+
				"pull the image with --keep-blobs, or have the layer compressed anew", l.Blob)
		}
	}
	if p.Compression == plain {
		return p.plainLayer(ctx, l, p.layerType())
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
	_, err = blob.Seek(0, io.SeekStart)
	if err != nil {
		return desc, err
	}
	return desc, p.put(ctx, desc, blob)
}

// asItWas has the destination get the very blob of a layer, if that can be had; false: it can't.
func (p *pusher) asItWas(ctx context.Context, l LayerInfo) (bool, error) {
	isTar := l.Blob == digest.Digest(l.DiffID)
	if isTar && p.from == nil && !p.only {
		return false, nil
	}
	desc := l.descriptor()
	if has, err := p.reused(ctx, desc); has || err != nil {
		return has, err
	}
	if mounted, err := p.mounted(ctx, l); mounted || err != nil {
		return mounted, err
	}
	switch {
	case isTar:
		_, err := p.plainLayer(ctx, l, l.MediaType)
		return true, err
	case l.Kept.IsZero():
		return false, nil
	}
	f, err := openKept(p.s, l.Kept, desc)
	if err != nil {
		return false, fmt.Errorf("the blob that was kept can't be read (flatroot pull and flatroot fsck --repair fetch it anew, --compress=gzip does without): %w", err)
	}
	defer f.Close()
	tell := p.Progress.Start(oci.Layer{DiffID: l.DiffID, Descriptor: desc})
	err = p.send(ctx, desc, &tellReader{ReadSeeker: f, tell: tell})
	if tell != nil {
		tell(0)
	}
	return true, err
}

// mounted has the destination take a blob over from where its layer or its manifest came from.
func (p *pusher) mounted(ctx context.Context, l LayerInfo) (bool, error) {
	m, ok := p.to.(oci.Mounter)
	if !ok {
		return false, nil
	}
	places := []*oci.Reference{p.from}
	if o, err := LayerOrigin(p.s, l.DiffID); err == nil && o.Blob == l.Blob {
		places = append(places, parsedPlace(o))
	}
	for _, from := range places {
		if from == nil {
			continue
		}
		if ok, err := m.MountBlob(ctx, l.descriptor(), *from); ok || err != nil {
			if ok {
				p.report.Layers.Reused++
				p.report.Mounted++
			}
			return ok, err
		}
	}
	return false, nil
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
		return oci.MediaTypeDockerLayer
	case p.docker:
		return oci.MediaTypeDockerLayerGzip
	case p.Compression == plain:
		return ocispec.MediaTypeImageLayer
	case p.Compression == zst:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.MediaTypeImageLayerGzip
}

// plainLayer pushes a tar as it is; its digest is known.
func (p *pusher) plainLayer(ctx context.Context, l LayerInfo, mediaType string) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(l.DiffID), Size: l.TarSize}
	tell := p.Progress.Start(oci.Layer{DiffID: l.DiffID, Descriptor: desc})
	tar := &reopener{open: func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(WriteTar(ctx, p.s, l.DiffID, w)) }()
		return r, nil
	}}
	defer tar.Close()
	err := p.put(ctx, desc, &tellReader{ReadSeeker: tar, tell: tell})
	if tell != nil {
		tell(0)
	}
	return desc, err
}

// put sends a layer's blob unless the destination has it.
func (p *pusher) put(ctx context.Context, desc ocispec.Descriptor, r io.ReadSeeker) error {
	if has, err := p.reused(ctx, desc); has || err != nil {
		return err
	}
	return p.send(ctx, desc, r)
}

func (p *pusher) reused(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	has, err := p.to.HasBlob(ctx, desc)
	if has {
		p.report.Layers.Reused++
	}
	return has, err
}

func (p *pusher) send(ctx context.Context, desc ocispec.Descriptor, r io.ReadSeeker) error {
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
	has, err := p.to.HasBlob(ctx, m.Config)
	if err == nil && !has {
		err = p.to.PutBlob(ctx, m.Config, bytes.NewReader(i.ConfigRaw))
	}
	if err != nil {
		return nil, fmt.Errorf("push config: %w", err)
	}
	desc := oci.Describe(i.MediaType, raw)
	p.report.Manifest, p.report.SameManifest = desc.Digest, desc.Digest == i.Manifest
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
