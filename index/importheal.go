package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// ImageObjects visits the objects that the image in a file refers to, with their sizes in bytes.
type ImageObjects func(f *os.File, visit func(d fsverity.Digest, size int64) error) error

// HealCounts counts what was damaged or missing and is whole again: contents of files and documents, streams, images.
type HealCounts struct {
	Objects int `json:"objects"`
	Streams int `json:"streams"`
	Images  int `json:"images"`
}

func (c *HealCounts) add(d HealCounts) {
	c.Objects += d.Objects
	c.Streams += d.Streams
	c.Images += d.Images
}

// Any tells whether there was anything.
func (c HealCounts) Any() bool { return c != HealCounts{} }

// HealError says that something in the store is damaged and that the source of an import did not help.
type HealError struct{ Err error }

// Error says what can be done.
func (e *HealError) Error() string {
	return fmt.Sprintf("%v; what is damaged stays as it is: pull the image from another source, or try `flatroot fsck --repair --from SOURCE`", e.Err)
}

// Unwrap returns what was wrong with the source.
func (e *HealError) Unwrap() error { return e.Err }

// sized is an object and its length in bytes, -1 if that is not known.
type sized struct {
	fsverity.Digest
	size int64
}

// inParts has parts of a list worked on by all processors.
func inParts[T any](ctx context.Context, list []T, work func(ctx context.Context, part []T) error) error {
	n := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	for part := range slices.Chunk(list, max((len(list)+n-1)/n, 256)) {
		g.Go(func() error { return work(ctx, part) })
	}
	return g.Wait()
}

// lost lists those objects that are missing, have another length, or are noted as damaged.
func (im *importer) lost(ctx context.Context, objects []sized) (lost []fsverity.Digest, err error) {
	var mu sync.Mutex
	err = inParts(ctx, objects, func(ctx context.Context, part []sized) error {
		for _, o := range part {
			whole, err := im.s.LooksWhole(o.Digest, o.size)
			if err != nil {
				return err
			}
			if !whole {
				mu.Lock()
				lost = append(lost, o.Digest)
				mu.Unlock()
			}
		}
		return ctx.Err()
	})
	sortDigests(lost)
	return slices.Compact(lost), err
}

// readAll reads objects, and notes as damaged those that are not what their names say. Each is read once in an import.
func (im *importer) readAll(ctx context.Context, ds []fsverity.Digest) error {
	im.mu.Lock()
	var todo []fsverity.Digest
	for _, d := range ds {
		if !im.read[d] {
			im.read[d] = true
			todo = append(todo, d)
		}
	}
	im.mu.Unlock()
	return inParts(ctx, todo, func(ctx context.Context, part []fsverity.Digest) error {
		for _, d := range part {
			if err := errors.Join(ctx.Err(), markRotten(im.s, d)); err != nil {
				return err
			}
		}
		return nil
	})
}

// reuse takes a layer that the store has. A stream that was not verified here is hashed once, and what is damaged or missing
// of the layer's files is restored. A stream that is damaged itself is not used: the layer is fetched to replace it.
func (im *importer) reuse(ctx context.Context, l *importedLayer) (bool, error) {
	id, err := im.s.Entry(store.Streams, LayerEntry(l.DiffID))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil && !isDamage(err):
		return false, err
	case err == nil:
		// What can't be read may be so for the sake of an object whose damage doesn't show: then all of them are read.
		for _, read := range []bool{im.Verify, true} {
			whole, err := im.reuseStream(ctx, l, id, read)
			if err != nil {
				return false, err
			}
			if whole {
				im.Progress.Reused(l.Layer)
				return true, nil
			}
		}
	}
	l.replaces = true
	l.healed.Streams++
	return false, nil
}

// reuseStream takes a layer from a stream; false: that is damaged, or an object that it needs.
func (im *importer) reuseStream(ctx context.Context, l *importedLayer, id fsverity.Digest, read bool) (bool, error) {
	refs, err := im.streamObjects(ctx, id, read)
	if err != nil || refs == nil {
		return false, err
	}
	if read {
		if err := im.heal(ctx, l, unsized(refs)); err != nil {
			return false, err
		}
	}
	err = im.verifyStream(ctx, l.DiffID, id)
	if err == nil {
		l.tar, err = loadLayer(ctx, im.s, l.DiffID, id, im.Limits, im.bounds)
	}
	var limit *LimitError
	if err != nil {
		if errors.As(err, &limit) || !isDamage(err) {
			return false, err
		}
		return false, nil
	}
	l.id, l.objects = id, l.tar.refs
	return true, im.heal(ctx, l, layerSizes(l.tar, refs))
}

// streamObjects lists what a layer's stream refers to; nil: the stream is damaged. If it is to be read, so are all of them.
func (im *importer) streamObjects(ctx context.Context, id fsverity.Digest, read bool) ([]fsverity.Digest, error) {
	if read {
		if err := im.readAll(ctx, []fsverity.Digest{id}); err != nil {
			return nil, err
		}
	}
	if whole, err := im.s.LooksWhole(id, -1); !whole || err != nil {
		return nil, err
	}
	l, err := openLayer(im.s, id)
	if err != nil {
		if isDamage(err) {
			err = markRotten(im.s, id)
		}
		return nil, err
	}
	defer l.Close()
	refs := append([]fsverity.Digest{}, l.ObjectRefs()...)
	if read {
		err = im.readAll(ctx, refs)
	}
	return refs, err
}

func unsized(ds []fsverity.Digest) []sized {
	list := make([]sized, len(ds))
	for i, d := range ds {
		list[i] = sized{d, -1}
	}
	return list
}

// layerSizes are the objects of a layer, those of its files with their lengths.
func layerSizes(l *Layer, refs []fsverity.Digest) []sized {
	size := make(map[fsverity.Digest]int64, len(refs))
	for e := range l.entries.all() {
		if e.Object < 0 {
			continue
		}
		if d, err := l.objects.at(e.Object); err == nil {
			size[d] = e.Size
		}
	}
	list := unsized(refs)
	for i, o := range list {
		if n, ok := size[o.Digest]; ok {
			list[i].size = n
		}
	}
	return list
}

// heal restores what is lost of a layer's objects: from other streams, then from the source.
func (im *importer) heal(ctx context.Context, l *importedLayer, objects []sized) error {
	lost, err := im.lost(ctx, objects)
	if err != nil || len(lost) == 0 {
		return err
	}
	restored, err := ObjectsFromStreams(ctx, im.s, lost)
	l.healed.Objects += len(restored)
	if err != nil {
		return err
	}
	return im.refetch(ctx, l, without(lost, restored))
}

func without(ds, but []fsverity.Digest) []fsverity.Digest {
	return slices.DeleteFunc(ds, func(d fsverity.Digest) bool { return slices.Contains(but, d) })
}

func (im *importer) refetch(ctx context.Context, l *importedLayer, lost []fsverity.Digest) error {
	if len(lost) == 0 {
		return nil
	}
	restored, fetched, err := refetchObjects(ctx, im.s, im.src, l.Layer, lost, HealOptions{Limits: im.Limits, Progress: im.Progress})
	l.healed.Objects += len(restored)
	l.refetched += fetched
	if errors.As(err, new(*notGivenError)) && ctx.Err() == nil {
		err = &HealError{err}
	}
	return err
}

// replace fetches a layer whose stream is damaged.
func (im *importer) replace(ctx context.Context, l *importedLayer) error {
	err := im.fetch(ctx, l)
	if own := new(*store.ObjectError); err == nil || errors.As(err, own) || ctx.Err() != nil {
		return err
	}
	return &HealError{fmt.Errorf("restore its stream: %w", err)}
}

// fromStore answers from the store if it has all of an image, restored where that takes no more than some of its files: then
// only the name is set.
func (im *importer) fromStore(ctx context.Context, manifest digest.Digest) (bool, error) {
	if oci.CheckDigest(manifest) != nil {
		return false, nil
	}
	i, err := lookUp(im.s, manifest, im.Rules)
	if err != nil || i == nil {
		return false, err
	}
	if whole, err := im.inspect(ctx, i); !whole || err != nil {
		return false, err
	}
	r := &im.report
	r.Manifest, r.Config, r.Image, r.ImageBytes = i.Manifest, i.Config, i.Image, i.ImageBytes
	im.countLayers()
	if err := im.expected(r.Image); err != nil {
		return false, err
	}
	named, err := currentName(im.s, im.Name, manifest, im.Rules, i.Image)
	if err == nil && !named {
		err = nameManifest(im.s, im.Name, manifest, im.Rules, i.Image)
	}
	if err != nil {
		return true, err
	}
	// Also where all is there: who has named it may not have come to that yet, or was killed before.
	return true, settle(im.s)
}

// inspect looks at all objects of an image that the store has, reads them if it is told to, and restores those of its files.
// It is false if something else is damaged, which the import as a whole restores.
func (im *importer) inspect(ctx context.Context, i *Info) (bool, error) {
	im.storedLayers(i)
	parts := append([]fsverity.Digest{i.Image}, i.documents...)
	for _, l := range im.layers {
		parts = append(parts, l.id)
	}
	if im.Verify {
		im.Progress.Step("verify")
		if err := im.readAll(ctx, parts); err != nil {
			return false, err
		}
	}
	lost, err := im.lost(ctx, unsized(parts))
	if err != nil || len(lost) > 0 {
		im.doubtful = true
		return false, im.forget(err)
	}
	objects, err := im.imageObjects(i)
	if err != nil {
		if !isDamage(err) {
			return false, err
		}
		im.doubtful = true
		return false, im.forget(nil)
	}
	return im.inspectLayers(ctx, objects)
}

// forget gives up what is known of the layers, but for what was done to them.
func (im *importer) forget(err error) error {
	for _, l := range im.layers {
		im.report.Healed.add(l.healed)
		im.report.Bytes.Fetched += l.refetched
	}
	im.layers = nil
	return err
}

// storedLayers takes the layers from what the store has of an image.
func (im *importer) storedLayers(i *Info) {
	img := &oci.Image{}
	for _, l := range i.Layers {
		img.Layers = append(img.Layers, l.layer())
	}
	im.distinctLayers(img)
	for _, l := range im.layers {
		n := slices.IndexFunc(i.Layers, func(k LayerInfo) bool { return k.DiffID == l.DiffID })
		l.id, l.objects, l.known = i.Layers[n].Stream, i.Layers[n].Objects, true
	}
	im.report.Layers.Total = len(im.layers)
}

// imageObjects are the objects of an image's files, with their sizes, each once.
func (im *importer) imageObjects(i *Info) (map[fsverity.Digest]int64, error) {
	sizes := map[fsverity.Digest]int64{}
	if im.ImageObjects == nil {
		return sizes, nil
	}
	f, err := im.s.OpenObject(i.Image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = im.ImageObjects(f, func(d fsverity.Digest, size int64) error {
		sizes[d] = size
		return nil
	})
	return sizes, err
}

// inspectLayers looks at what the layers' streams refer to, and restores what is lost. Each object is looked at once.
func (im *importer) inspectLayers(ctx context.Context, sizes map[fsverity.Digest]int64) (bool, error) {
	for _, l := range im.layers {
		refs, err := im.streamObjects(ctx, l.id, im.Verify)
		if err != nil || refs == nil {
			return false, im.forget(err)
		}
		objects := make([]sized, 0, len(refs))
		for _, d := range refs {
			size, ok := sizes[d]
			switch {
			case !ok:
				size = -1
			case size == seen:
				continue
			default:
				sizes[d] = seen
			}
			objects = append(objects, sized{d, size})
		}
		if err := im.heal(ctx, l, objects); err != nil {
			return false, fmt.Errorf("%s of %s: %w", l, im.src, err)
		}
	}
	for _, size := range sizes {
		if size != seen {
			// The image refers to an object that no layer has: it is not what they come to.
			im.doubtful = true
			return false, im.forget(nil)
		}
	}
	return true, nil
}

// seen stands for the size of an object that was looked at.
const seen = -2
