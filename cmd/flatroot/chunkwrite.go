package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
)

// chunkReport says what was written. Its JSON form is part of the command's interface.
type chunkReport struct {
	Dest     string             `json:"dest"`
	Manifest digest.Digest      `json:"manifest"`
	Config   digest.Digest      `json:"config"`
	Image    fsverity.Digest    `json:"image"` // the flattened one, by the rules oci-1
	Layers   chunkLayerCounts   `json:"layers"`
	Bytes    chunkByteCounts    `json:"bytes"`
	Plan     *chunk.Explanation `json:"plan"`
}

type chunkLayerCounts struct {
	Total   int `json:"total"`
	Base    int `json:"base"`    // kept as they are
	Reused  int `json:"reused"`  // DEST has their blobs
	Mounted int `json:"mounted"` // those of them that it has taken over from another repository
	Written int `json:"written"` // to DEST
}

type chunkByteCounts struct {
	Total   int64 `json:"total"`   // of all blobs, the base's included
	Written int64 `json:"written"` // to DEST
}

func (r *chunkReport) String() string {
	text := fmt.Sprintf("%s: %s (%s), %d of them written (%s)", r.Dest, counted(r.Layers.Total, "layer"), size(r.Bytes.Total), r.Layers.Written, size(r.Bytes.Written))
	if r.Layers.Mounted > 0 {
		text += fmt.Sprintf(", %d taken over from another repository", r.Layers.Mounted)
	}
	if r.Layers.Base > 0 {
		text += fmt.Sprintf(", %d kept from the base", r.Layers.Base)
	}
	return text + fmt.Sprintf("; the next update is expected to fetch %s of %s", size(r.Plan.NextBytes), size(r.Plan.Size))
}

// chunkLayer is a layer on its way: its blob, and what came of reading it back.
type chunkLayer struct {
	chunk.WrittenLayer
	title   string
	size    int64 // of its tar, in bytes, about
	write   func(ctx context.Context, w io.Writer) error
	before  *oci.Layer  // the same layer of the build before, as far as the plan knows; nil: there is none
	opened  []tree.Node // the files whose contents were put into it, in this order
	read    *index.Layer
	blob    chunkBlob // nil: DEST has it
	mounted bool      // from another repository
}

// noting opens contents, and notes whose they are.
func (l *chunkLayer) noting(open chunk.Content) chunk.Content {
	return func(n tree.Node) (io.ReadCloser, error) {
		l.opened = append(l.opened, n)
		return open(n)
	}
}

// begin tells that a layer is worked on, and what is done of it.
func (l *chunkLayer) begin(m meter, w index.Work) (tell func(int64)) {
	tell = m.Start(w, oci.Layer{Descriptor: ocispec.Descriptor{
		Size: l.size, Annotations: map[string]string{ocispec.AnnotationTitle: l.title},
	}})
	if tell == nil {
		tell = func(int64) {}
	}
	return tell
}

// write writes the image. Nothing is published before its tree has been found to be the one that it is to be.
func (j *chunkJob) write(ctx context.Context) (r *chunkReport, err error) {
	m := j.startProgress()
	defer m.stop()
	sink, err := openSink(ctx, j.o.ref, m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	if err := j.checkBase(ctx, sink); err != nil {
		return nil, err
	}
	layers, err := j.writeLayers(ctx, sink, m)
	defer func() {
		for _, l := range layers {
			if l.blob != nil {
				err = errors.Join(err, l.blob.Close())
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	r = &chunkReport{Dest: j.o.ref.String()}
	m.Step("comparing the new image with " + j.src.name)
	if r.Image, err = j.prove(ctx, layers); err != nil {
		return nil, err
	}
	img, err := j.image(layers)
	if err != nil {
		return nil, err
	}
	p := &publication{chunkJob: j, sink: sink, meter: m, report: r}
	return r, p.publish(ctx, img, layers)
}

// writeLayers writes the blobs of all layers, several at once. Contents are verified when all layers have been read back: by prove.
func (j *chunkJob) writeLayers(ctx context.Context, sink oci.Sink, m meter) ([]*chunkLayer, error) {
	layers := j.layers()
	w := &layerWriting{chunkJob: j, sink: sink, meter: m, compressor: index.LayerCompressor{Compression: j.o.compression}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(j.o.jobs)
	for _, l := range largestFirst(layers) {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return w.layer(ctx, l)
		})
	}
	return layers, g.Wait()
}

// layers are those to be written: that of what the base has lost first, if there is any, then those of the plan.
func (j *chunkJob) layers() (layers []*chunkLayer) {
	if j.base != nil && j.base.above.Changes() {
		layers = append(layers, &chunkLayer{
			WrittenLayer: chunk.WrittenLayer{Note: "what the base has and this image does not"}, write: j.base.above.WriteChanges,
		})
	}
	in := j.layerOf()
	for n, p := range j.planned.Layers {
		l := &chunkLayer{WrittenLayer: chunk.WrittenLayer{Components: componentNames(p)}, size: p.Size}
		if p.Kept {
			l.before = j.before.layer(p.Components[0].Name)
		}
		l.write = func(ctx context.Context, w io.Writer) error {
			return chunk.WriteLayer(ctx, w, j.src.tree, func(x tree.Node) bool { return in[x] == int32(n) }, l.noting(j.src.content))
		}
		layers = append(layers, l)
	}
	for n, l := range layers {
		l.title = fmt.Sprintf("layer %d of %d", n+1, len(layers))
	}
	return layers
}

// largestFirst is the order in which layers are done soonest, several at once.
func largestFirst(layers []*chunkLayer) []*chunkLayer {
	layers = slices.Clone(layers)
	slices.SortStableFunc(layers, func(a, b *chunkLayer) int { return cmp.Compare(b.size, a.size) })
	return layers
}

func componentNames(l chunk.Layer) (names []string) {
	for _, c := range l.Components {
		names = append(names, c.Name)
	}
	return names
}

// layerOf has the number of each node's layer, -1 for directories that only others need.
func (j *chunkJob) layerOf() []int32 {
	byName := map[string]int32{}
	for n, l := range j.planned.Layers {
		for _, c := range l.Components {
			byName[c.Name] = int32(n)
		}
	}
	in := make([]int32, j.src.tree.Len())
	for n := range in {
		in[n] = -1
		if owner := j.claims.Owners[n]; owner >= 0 {
			in[n] = byName[j.claims.Components[owner].Name]
		}
	}
	return in
}

// blobBuffer is what is written to a file at once: compressors write what they have in small pieces.
const blobBuffer = 1 << 20

// layerWriting is the writing of an image's layers.
type layerWriting struct {
	*chunkJob
	sink       oci.Sink
	meter      meter
	compressor index.LayerCompressor
}

// layer writes a layer's blob, unless DEST has it from the build before.
func (w *layerWriting) layer(ctx context.Context, l *chunkLayer) error {
	if has, err := w.find(ctx, l); has || err != nil {
		return err
	}
	return w.compress(ctx, l)
}

// find takes the blob that the build before has of a layer if nothing in that has changed, and DEST has the blob. That it is of
// the same tar is made sure. So nothing is compressed twice, and a blob stays although a newer version might compress otherwise.
func (w *layerWriting) find(ctx context.Context, l *chunkLayer) (has bool, err error) {
	if l.before == nil || !index.IsCompressed(l.before.Descriptor, w.o.compression) {
		return false, nil
	}
	if has, err = w.sink.HasBlob(ctx, l.before.Descriptor); err != nil {
		return false, err
	}
	mounted := false
	if !has {
		b := index.Blob{Layer: *l.before, From: w.before.places[l.before.Descriptor.Digest]}
		if mounted, err = index.MountBlob(ctx, w.sink, b); !mounted || err != nil {
			return false, err
		}
	}
	tell := l.begin(w.meter, index.Reading)
	defer tell(0)
	if err := w.readBack(ctx, l, io.Discard, tell); err != nil {
		return false, err
	}
	same := l.DiffID == l.before.DiffID
	if same {
		l.Descriptor, l.mounted = l.before.Descriptor, mounted
	}
	return same, nil
}

func (w *layerWriting) compress(ctx context.Context, l *chunkLayer) (err error) {
	tell := l.begin(w.meter, index.Compressing)
	defer tell(0)
	if l.blob, err = newBlob(w.sink); err != nil {
		return fmt.Errorf("begin the blob of a layer: %w", err)
	}
	buffer := bufio.NewWriterSize(l.blob, blobBuffer)
	annotations := map[string]string{}
	z, mediaType, err := w.compressor.Open(buffer, annotations)
	if err != nil {
		return err
	}
	err = w.readBack(ctx, l, z, tell)
	if err := cmp.Or(err, errors.Join(z.Close(), buffer.Flush())); err != nil {
		return err
	}
	l.Descriptor = l.blob.Descriptor()
	l.Descriptor.MediaType = mediaType
	if len(annotations) > 0 {
		l.Descriptor.Annotations = annotations
	}
	return nil
}

// readBack writes a layer's tar, and reads it back on the way.
func (j *chunkJob) readBack(ctx context.Context, l *chunkLayer, to io.Writer, tell func(int64)) error {
	l.opened = nil
	r, w := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := l.write(ctx, &toldWriter{io.MultiWriter(w, to), tell})
		w.CloseWithError(err)
		return err
	})
	g.Go(func() (err error) {
		l.read, err = index.ReadLayer(ctx, j.src.tree.Algorithm(), r)
		r.CloseWithError(err)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	l.DiffID = l.read.DiffID
	return nil
}

type toldWriter struct {
	io.Writer
	tell func(int64)
}

func (w *toldWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if n > 0 {
		w.tell(int64(n))
	}
	return n, err
}

// prove flattens the new image, as its layers were read back, and compares it with the tree that it was to have. The digest
// is that of its image by the rules oci-1.
func (j *chunkJob) prove(ctx context.Context, layers []*chunkLayer) (d fsverity.Digest, err error) {
	if err := j.learn(layers); err != nil {
		return d, err
	}
	all, err := j.allLayers(ctx, layers)
	if err != nil {
		return d, err
	}
	var want fsverity.Digest
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		want, err = imageDigest(j.src.tree)
		return err
	})
	g.Go(func() (err error) {
		_, d, err = j.flatten(ctx, all, index.OCI1)
		return err
	})
	got, faithful, err := j.flatten(ctx, all, index.Faithful1)
	if err := cmp.Or(g.Wait(), err); err != nil {
		return d, err
	}
	if faithful != want {
		return d, j.unequal(got)
	}
	return d, nil
}

// learn gives a directory's tree the digests of contents that were not read before they were put into layers. Which file they
// are of is told by the order in which they were asked for, not by the names that they have in the layers, so that a content
// under another's name is found. With a build before all are known: see hash.
func (j *chunkJob) learn(layers []*chunkLayer) error {
	if j.src.dir == nil || j.before != nil {
		return nil
	}
	for n, l := range layers {
		if got := l.read.NumObjects(); got != len(l.opened) {
			return fmt.Errorf("layer %d of the new image has %d contents where %d were written (this is an error of flatroot's)", n+1, got, len(l.opened))
		}
		for i, file := range l.opened {
			d, err := l.read.Digest(i)
			if err == nil && j.src.tree.Digest(file).IsZero() {
				err = j.src.tree.SetObject(file, d)
			}
			if err != nil {
				return fmt.Errorf("layer %d of the new image: %w", n+1, err)
			}
		}
	}
	j.claims.Measure(j.src.tree)
	j.planned.Digest(j.claims.Components)
	return nil
}

// allLayers are all of the image's: those of the base from the store, the others as they were read back.
func (j *chunkJob) allLayers(ctx context.Context, layers []*chunkLayer) (all []*index.Layer, err error) {
	if j.base != nil {
		for _, l := range j.src.info.StoredLayers()[:len(j.base.layers)] {
			layer, err := index.LoadLayer(ctx, j.src.store, l)
			if err != nil {
				return nil, err
			}
			all = append(all, layer)
		}
	}
	for _, l := range layers {
		all = append(all, l.read)
	}
	return all, nil
}

func (j *chunkJob) flatten(ctx context.Context, all []*index.Layer, r index.Rules) (*tree.Tree, fsverity.Digest, error) {
	// Each layer has the directories above what is in it: together they may have more entries than an image that comes from
	// elsewhere, and each more than a layer may that does.
	t, err := index.Flatten(ctx, all, index.FlattenOptions{Rules: r, Algorithm: j.src.tree.Algorithm(), MaxEntries: math.MaxInt64})
	if err != nil {
		return nil, fsverity.Digest{}, err
	}
	d, err := imageDigest(t)
	return t, d, err
}

func imageDigest(t *tree.Tree) (fsverity.Digest, error) {
	s, err := erofs.Write(io.Discard, t, erofs.WriteOptions{})
	return s.Digest, err
}

// unequal says where the new image is not what it should be.
func (j *chunkJob) unequal(got *tree.Tree) error {
	for ch := range diffTrees(j.src.tree, got) {
		return fmt.Errorf("the new image is not the same as %s, and was not published: %s is %s (it changed underfoot, or is damaged; else this is "+
			"an error of flatroot's)", j.src.name, ch.Path, ch.Change)
	}
	return fmt.Errorf("the new image is not the same as %s, and was not published (this is an error of flatroot's)", j.src.name)
}

// image makes config and manifest.
func (j *chunkJob) image(layers []*chunkLayer) (*oci.Image, error) {
	label, err := j.planned.Record().Label()
	if err != nil {
		return nil, err
	}
	o := chunk.ImageOptions{Source: j.src.image, Platform: j.o.platform, Created: j.o.epoch, Labels: map[string]string{chunk.PlanLabel: label}}
	if j.base != nil {
		o.KeepBase = len(j.base.layers)
	}
	var written []chunk.WrittenLayer
	for _, l := range layers {
		written = append(written, l.WrittenLayer)
	}
	return chunk.NewImage(written, o)
}

// publication brings an image to its destination.
type publication struct {
	*chunkJob
	sink   oci.Sink
	meter  meter
	report *chunkReport
}

func (p *publication) publish(ctx context.Context, img *oci.Image, layers []*chunkLayer) error {
	r := p.report
	r.Manifest, r.Config = img.Descriptor.Digest, img.ConfigDescriptor.Digest
	blobs := p.blobs(img, layers)
	sent, err := index.SendBlobs(ctx, p.sink, blobs, index.SendOptions{Jobs: p.o.jobs, Progress: p.meter})
	if err != nil {
		return err
	}
	r.Layers = chunkLayerCounts{
		Total: len(img.Layers), Base: len(img.Layers) - len(layers),
		Reused: len(img.Layers) - len(blobs) + sent.Layers.Reused, Mounted: sent.Mounted, Written: sent.Layers.Fetched,
	}
	for _, l := range layers {
		if l.mounted {
			r.Layers.Mounted++
		}
	}
	r.Bytes.Written = sent.Bytes
	for _, l := range img.Layers {
		r.Bytes.Total += l.Descriptor.Size
	}
	if err := p.sink.PutBlob(ctx, img.ConfigDescriptor, bytes.NewReader(img.Config)); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	if err := p.sink.PutManifest(ctx, img.Manifest, img.Descriptor); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// blobs are those that DEST may lack: the base's as they are, and those that were written.
func (p *publication) blobs(img *oci.Image, layers []*chunkLayer) (blobs []index.Blob) {
	base := len(img.Layers) - len(layers)
	for n, l := range img.Layers {
		var b index.Blob
		switch {
		case n < base:
			b = p.src.blob(n)
			b.Title = fmt.Sprintf("layer %d of the base", n+1)
		case layers[n-base].blob == nil:
			continue
		default:
			bringBlob(&b, layers[n-base].blob)
			b.Title = layers[n-base].title
		}
		b.Layer = l
		blobs = append(blobs, b)
	}
	return blobs
}
