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
	Jobs        int // layers at once; 0: DefaultJobs
	Progress    Progress
}

// PushReport says what a push did.
type PushReport struct {
	Name     string        `json:"name"`
	Manifest digest.Digest `json:"manifest"` // at the destination; of an image index: that
	Config   digest.Digest `json:"config,omitempty"`
	Platform string        `json:"platform,omitempty"` // of an image of an image index
	Layers   LayerCounts   `json:"layers"`             // reused: the destination has them; fetched: written
	Bytes    int64         `json:"bytes"`              // written
	// Originals are the layers whose blobs are those of the image's manifest, Mounted those of them that were taken over from
	// another repository.
	Originals int `json:"originals"`
	Mounted   int `json:"mounted"`
	// SameManifest: it is the one that the image has.
	SameManifest bool `json:"same_manifest"`
	// Images are those of an image index, LeftOut its manifests that are no images' and were not sent.
	Images  []*PushReport `json:"images,omitempty"`
	LeftOut int           `json:"left_out,omitempty"`
}

// Push writes an image that the store has to a sink: the same layers, tar for tar, and the same config. Blobs that are not sent
// as they were are made anew, always the same way; then the manifest is another one.
func Push(ctx context.Context, s *store.Store, i *Info, to oci.Sink, o PushOptions) (*PushReport, error) {
	p, err := push(ctx, s, i, to, o)
	if err != nil {
		return nil, err
	}
	if err := to.PutManifest(ctx, p.raw, p.desc); err != nil {
		return nil, fmt.Errorf("push manifest: %w", err)
	}
	return &p.report, nil
}

// push sends all of an image but its manifest.
func push(ctx context.Context, s *store.Store, i *Info, to oci.Sink, o PushOptions) (*pusher, error) {
	if i.Manifest == "" {
		return nil, fmt.Errorf("%s was built from a dump: it has no layers that could be pushed", i.Name)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	p := &pusher{
		PushOptions: o, sender: sender{to: to, progress: o.Progress}, s: s, docker: i.MediaType == oci.MediaTypeDockerManifest,
	}
	if err := p.compression(i); err != nil {
		return nil, err
	}
	if err := p.unpacking(); err != nil {
		return nil, err
	}
	p.report = PushReport{Name: i.Name, Config: i.Config, Platform: i.Platform.String()}
	layers, err := p.layers(ctx, i)
	if err != nil {
		return nil, err
	}
	return p, p.documents(ctx, i, layers)
}

// layers pushes several layers at once.
func (p *pusher) layers(ctx context.Context, i *Info) ([]ocispec.Descriptor, error) {
	done := make([]ocispec.Descriptor, len(i.Layers))
	return done, atOnce(ctx, p.inOrder(i.Layers), p.Jobs, func(ctx context.Context, n int) (err error) {
		if done[n], err = p.layer(ctx, i.Layers[n]); err != nil {
			err = fmt.Errorf("push layer %d (%s): %w", n+1, i.Layers[n].DiffID, err)
		}
		return err
	})
}

// inOrder lists layers by their numbers, together those of which one has to wait for the other: those of one tar, as the
// second one finds the blob of the first, and where layers are kept unpacked, each on the one below it, all.
func (p *pusher) inOrder(layers []LayerInfo) (groups [][]int) {
	return grouped(len(layers), func(n int) oci.DiffID {
		if p.files != nil {
			return ""
		}
		return layers[n].DiffID
	})
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
	sender
	s           *store.Store
	files       oci.LayerSink // the same, if it keeps no blobs
	docker      bool
	original    bool           // blobs are sent as they were if they can be had
	only        bool           // or nothing is
	from        *oci.Reference // where the manifest came from
	compressors compressors

	raw  []byte // the manifest at the destination
	desc ocispec.Descriptor
}

// unpacking finds out whether the destination has no blobs, and refuses to compress for it.
func (p *pusher) unpacking() error {
	p.files, _ = p.to.(oci.LayerSink)
	if p.files != nil && !p.original && p.Compression != plain {
		return fmt.Errorf("layers are kept unpacked at the destination: there is nothing to compress with %s", p.Compression)
	}
	return nil
}

func (p *pusher) layer(ctx context.Context, l LayerInfo) (ocispec.Descriptor, error) {
	p.count(func(r *PushReport) { r.Layers.Total++ })
	if p.files != nil {
		return p.unpacked(ctx, l)
	}
	if p.original {
		sent, err := p.asItWas(ctx, l)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if sent {
			p.count(func(r *PushReport) { r.Originals++ })
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
	tell := p.Progress.Start(Compressing, oci.Layer{DiffID: l.DiffID, Descriptor: ocispec.Descriptor{Digest: l.Blob, Size: l.TarSize}})
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
	return desc, p.put(ctx, l, desc, blob)
}

// asItWas has the destination get the very blob of a layer, if that can be had; false: it can't.
func (p *pusher) asItWas(ctx context.Context, l LayerInfo) (bool, error) {
	if l.isTar() && p.from == nil && !p.only {
		return false, nil
	}
	b := storedBlob(p.s, l, p.from)
	open := b.Open
	b.Open = func(ctx context.Context) (io.ReadSeekCloser, error) {
		f, err := open(ctx)
		if err != nil && !errors.Is(err, ErrNotKept) {
			err = fmt.Errorf("the blob that was kept can't be read (flatroot pull and flatroot fsck --repair fetch it anew, "+
				"--compress=gzip does without): %w", err)
		}
		return f, err
	}
	err := p.bring(ctx, b)
	if errors.Is(err, ErrNotKept) {
		return false, nil
	}
	return err == nil, err
}

// compress writes a layer's blob to a file.
func (p *pusher) compress(ctx context.Context, d oci.DiffID, blob *os.File, tell func(int64)) (ocispec.Descriptor, error) {
	hash := digest.SHA256.Digester()
	count := &countWriter{}
	// Compressors write what they have in small pieces.
	buffer := bufio.NewWriterSize(blob, 128<<10)
	z, err := p.compressors.open(p.Compression, io.MultiWriter(buffer, hash.Hash(), count))
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

// unpacked has the destination store a layer's files. The manifest stays as it is, with blobs that are not there, unless it is
// to list tars.
func (p *pusher) unpacked(ctx context.Context, l LayerInfo) (ocispec.Descriptor, error) {
	desc := l.descriptor()
	if p.original {
		p.count(func(r *PushReport) { r.Originals++ })
	} else {
		desc = describeTar(l, p.layerType())
	}
	tar := describeTar(l, ocispec.MediaTypeImageLayer)
	from := openTar(ctx, p.s, l.DiffID)
	defer from.Close()
	return desc, p.sending(Blob{Layer: oci.Layer{DiffID: l.DiffID, Descriptor: tar}}, from, func(r io.Reader) error {
		written, err := p.files.PutLayer(ctx, tar, knownBlob(p.s, l), r)
		switch {
		case err != nil:
		case written:
			p.count(func(r *PushReport) { r.sent(l.TarSize) })
		default:
			p.count(func(r *PushReport) { r.Layers.Reused++ })
		}
		return err
	})
}

// knownBlob is the blob of a layer, if its digest was computed here together with the diffID; zero: it was not.
func knownBlob(s *store.Store, l LayerInfo) ocispec.Descriptor {
	diffID, err := s.Note(notesBlobs, l.Blob.String())
	if err != nil || diffID != l.DiffID.String() {
		return ocispec.Descriptor{}
	}
	o, err := LayerOrigin(s, l.DiffID)
	if err != nil || o.Blob != l.Blob {
		return ocispec.Descriptor{}
	}
	return ocispec.Descriptor{MediaType: o.MediaType, Digest: o.Blob, Size: o.Size}
}

// describeTar describes a layer's tar.
func describeTar(l LayerInfo, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(l.DiffID), Size: l.TarSize}
}

// plainLayer pushes a tar as it is; its digest is known.
func (p *pusher) plainLayer(ctx context.Context, l LayerInfo, mediaType string) (ocispec.Descriptor, error) {
	desc := describeTar(l, mediaType)
	tar := openTar(ctx, p.s, l.DiffID)
	defer tar.Close()
	return desc, p.put(ctx, l, desc, tar)
}

// openTar is a layer's tar, which is put together as far as it is read.
func openTar(ctx context.Context, s *store.Store, d oci.DiffID) *reopener {
	return &reopener{open: func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(WriteTar(ctx, s, d, w)) }()
		return r, nil
	}}
}

// put sends a layer's blob unless the destination has it.
func (p *pusher) put(ctx context.Context, l LayerInfo, desc ocispec.Descriptor, r io.ReadSeeker) error {
	if has, err := p.reused(ctx, desc); has || err != nil {
		return err
	}
	return p.send(ctx, Blob{Layer: oci.Layer{DiffID: l.DiffID, Descriptor: desc}}, r)
}

// sent counts a layer that was written.
func (r *PushReport) sent(size int64) { r.Layers.Fetched, r.Bytes = r.Layers.Fetched+1, r.Bytes+size }

// documents pushes the config and makes the manifest, which is changed only where the layers' descriptors are.
func (p *pusher) documents(ctx context.Context, i *Info, layers []ocispec.Descriptor) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(i.ManifestRaw, &m); err != nil {
		return fmt.Errorf("manifest %s: %w", i.Manifest, err)
	}
	p.raw = i.ManifestRaw
	if replaceLayers(m.Layers, layers) {
		var err error
		if p.raw, err = json.Marshal(m); err != nil {
			return err
		}
	}
	has, err := p.to.HasBlob(ctx, m.Config)
	if err == nil && !has {
		err = p.to.PutBlob(ctx, m.Config, bytes.NewReader(i.ConfigRaw))
	}
	if err != nil {
		return fmt.Errorf("push config: %w", err)
	}
	p.desc = oci.Describe(i.MediaType, p.raw)
	p.report.Manifest, p.report.SameManifest = p.desc.Digest, p.desc.Digest == i.Manifest
	return nil
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
