package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// ImageWriter writes the image of a tree, of format version 1. It is erofs.Write, lent by who calls Import. What it writes
// to computes the digest.
type ImageWriter func(w io.Writer, t *tree.Tree) error

// Work is what is done to a layer.
type Work string

// What there is to do: blobs are read and sent, tars are compressed.
const (
	Reading     Work = "reading"
	Compressing Work = "compressing"
	Sending     Work = "sending"
)

// Progress hears of the layers of an import or a push. Its methods are called from several goroutines.
type Progress interface {
	// Start announces work on a layer, whose descriptor has the size of what is worked on; the function it returns is told
	// bytes of that as they are done, and 0 at the end.
	Start(w Work, l oci.Layer) func(n int64)
	// Reused announces a layer of which nothing is fetched.
	Reused(l oci.Layer)
	// Step announces work on the image as a whole.
	Step(what string)
}

// ImportOptions are Import's and Digest's. Image is required, all else may be zero.
type ImportOptions struct {
	Image    ImageWriter
	Name     string // tag to set; empty: none, and the next gc takes the image away
	Rules    Rules
	Expect   fsverity.Digest // the image must have this digest
	Platform oci.Platform    // for which the source was opened; under it an image index is remembered
	Limits   Limits
	Jobs     int // layers at once; 0: DefaultJobs
	Progress Progress
	// ImageObjects has the sizes compared of what an image refers to that is complete in the store; nil: they are not.
	ImageObjects ImageObjects
	// KeepBlobs keeps the blobs of layers that are compressed as they are, for a push with the same manifest.
	KeepBlobs bool
	// Verify has everything read that the store has of the image already.
	Verify bool
	// Only tells which layers ReadTree reads; nil: all.
	Only func(oci.DiffID) bool
	// Accept decides whether the image may come in; nil: any may.
	Accept Accept
}

// DefaultJobs is how many layers are read at once.
const DefaultJobs = 4

// Report says what an import did. Its JSON form is part of the command's interface.
type Report struct {
	Name       string             `json:"name,omitempty"`
	Platform   string             `json:"platform,omitempty"` // of an image of an image index
	Manifest   digest.Digest      `json:"manifest,omitempty"`
	Config     digest.Digest      `json:"config,omitempty"`
	Image      fsverity.Digest    `json:"image"`
	Algorithm  fsverity.Algorithm `json:"algorithm"`
	Format     int                `json:"format"`
	Rules      Rules              `json:"rules"`
	ImageBytes int64              `json:"image_bytes"`
	Layers     LayerCounts        `json:"layers"`
	Bytes      ByteCounts         `json:"bytes"`
	Objects    ObjectCounts       `json:"objects"`
	Blobs      BlobCounts         `json:"kept_blobs"`
	Healed     HealCounts         `json:"healed"`
	SignedBy   []digest.Digest    `json:"signed_by,omitempty"` // fingerprints of the keys whose signatures were verified
}

// LayerCounts counts an image's layers, a layer that occurs twice once.
type LayerCounts struct {
	Total   int `json:"total"`
	Reused  int `json:"reused"`
	Fetched int `json:"fetched"`
}

// ByteCounts counts bytes: of blobs as they are stored at the source, of new objects, and of those among them that were
// cloned from files of the source. Resumed are those of fetched layers that an earlier process got.
type ByteCounts struct {
	Fetched       int64 `json:"fetched"`
	Resumed       int64 `json:"resumed"`
	Reused        int64 `json:"reused"`
	ObjectsNew    int64 `json:"objects_new"`
	ObjectsCloned int64 `json:"objects_cloned"`
}

// ObjectCounts counts objects: those that each layer refers to, and those of them that were not there before.
type ObjectCounts struct {
	Total int `json:"total"`
	New   int `json:"new"`
}

// ExpectError says that an image has another digest than the one asked for.
type ExpectError struct {
	Want, Got fsverity.Digest
	Rules     Rules
}

// Error names both digests.
func (e *ExpectError) Error() string {
	return fmt.Sprintf("the image has digest %s by the rules %s, not the expected %s; nothing was named", e.Got, e.Rules, e.Want)
}

type importer struct {
	ImportOptions
	s       *store.Store
	src     oci.Source
	root    digest.Digest // what the source's reference stands for
	img     *oci.Image
	hashers *hashers
	bounds  *bounds
	unnamed bool // of a tar that is built: its digest is not wanted
	report  Report
	layers  []*importedLayer // distinct, in the image's order
	blobs   []*keptBlob      // distinct, in the image's order

	accepted   digest.Digest // the manifest that Accept has let in
	signatures []Signature   // by which
	parts      *partsShare

	// doubtful: something of the image is damaged, or may be: its object is read before it is taken for good.
	doubtful bool
	mu       sync.Mutex
	read     map[fsverity.Digest]bool       // what was read
	named    map[oci.DiffID]fsverity.Digest // streams that the image's config names for its layers, if it is doubtful
}

// importedLayer is a layer of the image at hand, from the source or from the store.
type importedLayer struct {
	oci.Layer
	number  int             // in the image, from 1
	tar     *Layer          // what it holds, once it was read
	id      fsverity.Digest // of its stream
	result  *layerResult    // nil: reused
	objects int

	known     bool // it is in the store, as part of an image that is complete there
	replaces  bool // what the store has of it is damaged
	healed    HealCounts
	refetched int64 // bytes of the blob that were read to heal it

	partial *store.Partial // of the blob; nil: nothing is kept
	resumed int64          // bytes of the blob that an earlier process got
	inParts bool           // of its blob only parts were fetched
	parts   int64          // bytes of parts that were fetched, be it in vain
}

func (l *importedLayer) String() string {
	return fmt.Sprintf("layer %d (%s)", l.number, l.Descriptor.Digest)
}

// Import brings an image into the store and gives it a name: objects and layer streams first, then one flattened image,
// then entries, then the name, each durable before the next. Of layers whose diffID the store has under a stream that was
// verified here nothing is fetched; of a manifest that is complete in the store just its digest is asked for.
func Import(ctx context.Context, s *store.Store, src oci.Source, o ImportOptions) (*Report, error) {
	im := newImporter(s.Algorithm(), src, o)
	im.s = s
	desc, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	im.root = desc.Digest
	known := im.root
	if im.Accept == nil { // who relies on the signature of an image index has to see that it leads to the manifest
		known = im.remembered(im.root)
	}
	if done, err := im.fromStore(ctx, known); done || err != nil {
		return im.done(err)
	}
	if im.img, err = src.Image(ctx); err != nil {
		return nil, err
	}
	if d := im.img.Descriptor.Digest; d != known {
		if done, err := im.fromStore(ctx, d); done || err != nil {
			return im.done(err)
		}
	}
	if err := im.accept(ctx, im.img.Descriptor.Digest); err != nil {
		return nil, err
	}
	return im.get(ctx)
}

// get fetches what the store does not have of an image whose documents are at hand, and names it.
func (im *importer) get(ctx context.Context) (*Report, error) {
	defer im.leavePartials()
	if err := im.fetchLayers(ctx); err != nil {
		return nil, errors.Join(err, im.keepFetched(ctx))
	}
	t, err := im.flatten(ctx)
	if err != nil {
		return nil, errors.Join(err, im.keepFetched(ctx))
	}
	return im.done(im.finish(ctx, t))
}

// Digest computes an image's digest and stores nothing.
func Digest(ctx context.Context, src oci.Source, a fsverity.Algorithm, o ImportOptions) (*Report, error) {
	im := newImporter(a, src, o)
	t, err := im.tree(ctx)
	if err != nil {
		return nil, err
	}
	return im.done(im.digestImage(t))
}

// digestImage computes the digest of a tree's image without storing it.
func (im *importer) digestImage(t *tree.Tree) error {
	h := fsverity.NewHasher(im.report.Algorithm)
	if err := im.Image(h, t); err != nil {
		return fmt.Errorf("write image of %s: %w", im.src, err)
	}
	im.report.Image, im.report.ImageBytes, im.report.Objects.Total = h.Sum(), h.Size(), t.NumDigests()
	return nil
}

// ReadTree gives the flattened tree of a source's image, or of some of its layers, and stores nothing.
func ReadTree(ctx context.Context, src oci.Source, a fsverity.Algorithm, o ImportOptions) (*tree.Tree, error) {
	return newImporter(a, src, o).tree(ctx)
}

func newImporter(a fsverity.Algorithm, src oci.Source, o ImportOptions) *importer {
	o.Limits = o.Limits.withDefaults()
	o.Rules = cmp.Or(o.Rules, OCI1)
	o.Jobs = cmp.Or(o.Jobs, DefaultJobs)
	if o.Progress == nil {
		o.Progress = silent{}
	}
	return &importer{ImportOptions: o, src: src, bounds: newBounds(o.Limits), parts: newPartsShare(), doubtful: o.Verify, read: map[fsverity.Digest]bool{}, report: Report{Name: o.Name, Algorithm: a, Rules: o.Rules, Format: 1}}
}

// tree reads all layers without a store.
func (im *importer) tree(ctx context.Context) (*tree.Tree, error) {
	var err error
	if im.img, err = im.src.Image(ctx); err != nil {
		return nil, err
	}
	if im.Only != nil {
		some := *im.img
		some.Layers = slices.DeleteFunc(slices.Clone(some.Layers), func(l oci.Layer) bool { return !im.Only(l.DiffID) })
		im.img = &some
	}
	if err := im.fetchLayers(ctx); err != nil {
		return nil, err
	}
	return im.flatten(ctx)
}

// done completes the report, and holds the image against the digest that was asked for.
func (im *importer) done(err error) (*Report, error) {
	if err != nil {
		return nil, err
	}
	if im.img != nil {
		im.report.Manifest, im.report.Config = im.img.Descriptor.Digest, im.img.ConfigDescriptor.Digest
	}
	if err := im.expected(im.report.Image); err != nil {
		return nil, err
	}
	return &im.report, nil
}

func (im *importer) expected(d fsverity.Digest) error {
	if !im.Expect.IsZero() && d != im.Expect {
		return &ExpectError{Want: im.Expect, Got: d, Rules: im.Rules}
	}
	return nil
}

type silent struct{}

func (silent) Start(Work, oci.Layer) func(int64) { return nil }
func (silent) Reused(oci.Layer)                  {}
func (silent) Step(string)                       {}

type countWriter struct{ n int64 }

func (w *countWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return len(p), nil
}

func (im *importer) contents() contents {
	if im.s == nil {
		return hashed{im.report.Algorithm}
	}
	return stored{im.s}
}

// fetchLayers reads the layers that the store does not have, several at once.
func (im *importer) fetchLayers(ctx context.Context) error {
	im.distinctLayers(im.img)
	im.report.Layers.Total = len(im.layers)
	if err := im.planBlobs(ctx); err != nil {
		return err
	}
	im.hashers = startHashers(im.contents())
	defer im.hashers.stop()
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(im.Jobs)
	for _, l := range im.layers {
		g.Go(func() error {
			if err := im.getLayer(group, l); err != nil {
				return fmt.Errorf("%s of %s: %w", l, im.src, err)
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		err = im.fetchBlobs(ctx)
	}
	im.countLayers()
	im.countBlobs()
	return err
}

func (im *importer) distinctLayers(img *oci.Image) {
	im.layers = nil
	seen := map[oci.DiffID]bool{}
	for i, l := range img.Layers {
		if !seen[l.DiffID] {
			seen[l.DiffID] = true
			im.layers = append(im.layers, &importedLayer{Layer: l, number: i + 1})
		}
	}
}

func (im *importer) countLayers() {
	r := &im.report
	for _, l := range im.layers {
		switch {
		case l.tar == nil && !l.known:
		case l.result == nil && l.refetched > 0:
			r.Layers.Reused++
			r.Bytes.Fetched += l.refetched
		case l.result == nil:
			r.Layers.Reused++
			r.Bytes.Reused += l.Descriptor.Size
		default:
			r.Layers.Fetched++
			l.countBytes(&r.Bytes)
			r.Objects.New += l.result.newObjects
			r.Bytes.ObjectsNew += l.result.newBytes
			r.Bytes.ObjectsCloned += l.result.cloned
		}
		if l.replaces && l.result != nil {
			l.healed.Objects += l.result.newObjects
		}
		r.Healed.add(l.healed)
		r.Objects.Total += l.objects
	}
}

// countBytes counts those of a layer that was fetched.
func (l *importedLayer) countBytes(b *ByteCounts) {
	b.Fetched += l.parts + l.refetched
	if l.inParts {
		b.Reused += max(0, l.Descriptor.Size-l.parts)
		return
	}
	b.Fetched += l.result.blobSize - l.resumed
	b.Resumed += l.resumed
}

// getLayer takes a layer from the store or from the source.
func (im *importer) getLayer(ctx context.Context, l *importedLayer) error {
	if im.s != nil {
		reused, err := im.reuse(ctx, l)
		if reused || err != nil {
			return err
		}
	}
	if l.replaces {
		return im.replace(ctx, l)
	}
	if done, err := im.fetchParts(ctx, l); done || err != nil {
		return err
	}
	return im.fetch(ctx, l)
}

// fetch reads a layer, and compares all that was computed with all that was claimed.
func (im *importer) fetch(ctx context.Context, l *importedLayer) (err error) {
	if l.Layer, err = oci.Stored(ctx, im.src, l.Layer); err != nil {
		return err
	}
	for {
		d := im.newDownload(l)
		err := im.fetchFrom(ctx, l, d)
		switch {
		case ctx.Err() != nil || !d.spoiled(err):
			return err
		case d.resumed == 0 && !d.elsewhere(err):
			l.dropPartial()
			return err
		}
		// What an earlier process got may be torn, if it was the machine that died, or have come from a mirror that is
		// wrong: from the start, then.
		l.clearPartial()
	}
}

func (im *importer) fetchFrom(ctx context.Context, l *importedLayer, d *download) (err error) {
	tell := im.Progress.Start(Reading, l.Layer)
	blobCtx, abort := context.WithCancel(ctx)
	defer abort()
	if err := d.open(blobCtx); err != nil {
		return err
	}
	defer d.Close()
	in := layerInput{
		r: d, size: l.Descriptor.Size, tell: tell, abort: abort,
		check: func(r *layerResult) error { return checkClaims(l.Layer, r) },
	}
	if b := im.blobOf(l.Descriptor.Digest); b != nil && b.id.IsZero() {
		in.keep = b
	}
	err = im.take(ctx, l, in)
	if err == nil {
		l.resumed = d.resumed
	}
	if err == nil && tell != nil {
		tell(0)
	}
	return err
}

// layerInput is what a layer is read from.
type layerInput struct {
	r     io.Reader // of its blob, or its tar
	size  int64     // announced; -1: none was
	tell  func(n int64)
	abort func() // as those of layerJob
	check func(r *layerResult) error
	keep  *keptBlob // what r gives is kept as this; nil: it isn't
}

// take reads a layer, stores it if there is a store, and keeps what it holds.
func (im *importer) take(ctx context.Context, l *importedLayer, in layerInput) (err error) {
	j := &layerJob{
		hashers: im.hashers, to: im.contents(), alg: im.report.Algorithm, limits: im.Limits, bounds: im.bounds,
		tell: in.tell, abort: in.abort,
	}
	doubtful := im.Verify || l.replaces
	if im.s != nil && doubtful { // what the store has of its files may be as damaged as the layer itself
		j.to = doubted{stored{im.s}, markRotten}
		if l.replaces {
			j.to = doubted{stored{im.s}, markLost}
		}
		j.hashers = startHashers(j.to)
		defer j.hashers.stop()
	}
	if im.s != nil {
		j.stream = stream.NewWriter(im.report.Algorithm, stream.OCILayer, stream.WriterOptions{Scratch: im.s.Scratch})
		defer func() { err = errors.Join(err, j.stream.Close()) }()
	}
	var keep *store.ObjectWriter
	if in.keep != nil {
		if keep, err = im.s.NewObject(); err != nil {
			return err
		}
		defer keep.Abort()
		j.keep = keep
	}
	r, err := j.read(ctx, in.r, in.size)
	if err != nil {
		return err
	}
	if err := in.check(r); err != nil {
		im.bounds.drop(r.kept)
		return err
	}
	if keep != nil {
		if err := im.took(in.keep, keep); err != nil {
			return err
		}
	}
	if j.stream != nil {
		if l.id, l.objects, err = storeStream(ctx, im.s, j.stream, r, doubtful); err != nil {
			return err
		}
	}
	l.result, l.tar = r, r.layer
	return nil
}

func checkClaims(l oci.Layer, r *layerResult) error {
	if r.blob != l.Descriptor.Digest {
		return &oci.DigestError{What: "blob", Want: l.Descriptor.Digest, Got: r.blob}
	}
	return checkDiffID(l, r)
}
