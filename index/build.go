package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// Build makes an image of one layer from a tar, compressed or not, that what names in messages. Manifest and config depend
// on nothing but the tar and the platform.
func Build(ctx context.Context, s *store.Store, tar io.Reader, what string, o ImportOptions) (*Report, error) {
	im := newImporter(s.Algorithm(), builtSource(what), o)
	im.s = s
	if err := im.build(ctx, tar); err != nil {
		return nil, fmt.Errorf("build from %s: %w", what, err)
	}
	t, err := im.flatten(ctx)
	if err != nil {
		return nil, err
	}
	return im.done(im.finish(ctx, t))
}

// BuildDigest computes the digest of the image that Build would make, and stores nothing.
func BuildDigest(ctx context.Context, a fsverity.Algorithm, tar io.Reader, what string, o ImportOptions) (*Report, error) {
	im := newImporter(a, builtSource(what), o)
	t, err := im.buildTree(ctx, tar, what)
	if err != nil {
		return nil, err
	}
	return im.done(im.digestImage(t))
}

// BuildTree gives the tree of the image that Build would make, and stores nothing. The tar itself is not hashed, only what is
// in it.
func BuildTree(ctx context.Context, a fsverity.Algorithm, tar io.Reader, what string, o ImportOptions) (*tree.Tree, error) {
	im := newImporter(a, builtSource(what), o)
	im.unnamed = true
	return im.buildTree(ctx, tar, what)
}

func (im *importer) buildTree(ctx context.Context, tar io.Reader, what string) (*tree.Tree, error) {
	if err := im.build(ctx, tar); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return im.flatten(ctx)
}

// build reads the one layer and makes the documents for it.
func (im *importer) build(ctx context.Context, tar io.Reader) (err error) {
	im.hashers = startHashers(im.contents())
	defer im.hashers.stop()
	l := &importedLayer{number: 1, Layer: oci.Layer{Descriptor: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Size: -1,
	}}}
	j := &layerJob{
		hashers: im.hashers, to: im.contents(), alg: im.report.Algorithm, limits: im.Limits, unnamed: im.unnamed,
		tell: im.Progress.Start(Reading, l.Layer),
	}
	if im.s != nil {
		j.stream = stream.NewWriter(im.s.Algorithm(), stream.OCILayer, stream.WriterOptions{Scratch: im.s.Scratch})
		defer func() { err = errors.Join(err, j.stream.Close()) }()
	}
	r, err := j.read(ctx, tar, -1)
	if err != nil {
		return err
	}
	l.result, l.tar = r, r.layer
	l.DiffID, l.Descriptor.Digest, l.Descriptor.Size = r.diffID, digest.Digest(r.diffID), r.tarSize
	if im.s != nil {
		if err := im.findBuilt(ctx, l, j, r); err != nil {
			return err
		}
	}
	im.layers = []*importedLayer{l}
	im.report.Layers.Total = 1
	im.countLayers()
	im.img, err = builtImage(l.Layer, im.Platform)
	return err
}

// findBuilt takes the stream that the store has of this very layer, or stores the new one.
func (im *importer) findBuilt(ctx context.Context, l *importedLayer, j *layerJob, r *layerResult) error {
	id, err := im.s.Entry(store.Streams, LayerEntry(l.DiffID))
	if err == nil {
		var whole bool
		if whole, err = im.usable(ctx, l.DiffID, id); whole || err != nil {
			l.id, l.objects = id, j.stream.NumObjects()
			return err
		}
		l.replaces = true
		l.healed.Streams++
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	l.id, l.objects, err = storeStream(ctx, im.s, j.stream, r, l.replaces)
	return err
}

// usable tells whether a stream gives back a layer's tar, now that all of its files are in the store.
func (im *importer) usable(ctx context.Context, d oci.DiffID, id fsverity.Digest) (bool, error) {
	refs, err := im.streamObjects(ctx, id, false)
	if err != nil || refs == nil {
		return false, err
	}
	if lost, err := im.lost(unsized(refs)); err != nil || len(lost) > 0 {
		return false, err
	}
	if err := im.verifyStream(ctx, d, id); err != nil {
		if isDamage(err) {
			err = markRotten(im.s, id)
		}
		return false, err
	}
	return true, nil
}

func builtImage(l oci.Layer, p oci.Platform) (*oci.Image, error) {
	if p == (oci.Platform{}) {
		p = oci.DefaultPlatform()
	}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{Architecture: p.Architecture, OS: p.OS, Variant: p.Variant},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(l.DiffID)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    oci.Describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{l.Descriptor},
	})
	if err != nil {
		return nil, err
	}
	return oci.ParseImage(oci.Describe(ocispec.MediaTypeImageManifest, manifest), manifest, config)
}

// builtSource stands for the source of an image that is built.
type builtSource string

func (b builtSource) String() string { return string(b) }

func (b builtSource) Close() error { return nil }

var errBuilt = errors.New("an image that is built has no source")

func (b builtSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errBuilt
}

func (b builtSource) Image(context.Context) (*oci.Image, error) { return nil, errBuilt }

func (b builtSource) OpenBlob(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, errBuilt
}

// AddImage stores the image of a tree that came from no layers, and names it. It can be mounted, but not pushed.
func AddImage(s *store.Store, t *tree.Tree, o ImportOptions) (*Report, error) {
	im := newImporter(s.Algorithm(), builtSource("tree"), o)
	im.s = s
	im.report.Rules = ""
	if err := im.writeImage(t); err != nil {
		return nil, err
	}
	if err := im.expected(im.report.Image); err != nil {
		return nil, err
	}
	if err := s.Sync(); err != nil {
		return nil, err
	}
	if _, err := s.Link(store.Images, im.report.Image.String(), im.report.Image); err != nil {
		return nil, err
	}
	if err := setName(s, o.Name, standing{image: im.report.Image.String()}); err != nil {
		return nil, err
	}
	return im.done(settle(s))
}
