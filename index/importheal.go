package index

import (
	"cmp"
	"context"
	"encoding/binary"
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

// looker looks at objects on all processors: whether they are there, have their lengths, and are not noted as damaged.
type looker struct {
	s    *store.Store
	work chan []sized
	next []sized
	wg   sync.WaitGroup

	mu   sync.Mutex
	lost []fsverity.Digest
	err  error
}

// lookAtOnce is how many objects a looker's goroutine gets at a time: enough that handing them over costs nothing.
const lookAtOnce = 512

func newLooker(s *store.Store) *looker {
	k := &looker{s: s, work: make(chan []sized, 8)}
	for range runtime.GOMAXPROCS(0) {
		k.wg.Go(func() {
			for part := range k.work {
				k.look(part)
			}
		})
	}
	return k
}

func (k *looker) look(part []sized) {
	for _, o := range part {
		whole, err := k.s.LooksWhole(o.Digest, o.size)
		if err == nil && whole {
			continue
		}
		k.mu.Lock()
		if err == nil {
			k.lost = append(k.lost, o.Digest)
		} else if k.err == nil {
			k.err = err
		}
		k.mu.Unlock()
	}
}

func (k *looker) add(d fsverity.Digest, size int64) {
	if k.next == nil {
		k.next = make([]sized, 0, lookAtOnce)
	}
	if k.next = append(k.next, sized{d, size}); len(k.next) == cap(k.next) {
		k.work <- k.next
		k.next = nil
	}
}

// found ends the look: what is lost, each once, in order.
func (k *looker) found() ([]fsverity.Digest, error) {
	if len(k.next) > 0 {
		k.work <- k.next
	}
	close(k.work)
	k.wg.Wait()
	sortDigests(k.lost)
	return slices.Compact(k.lost), k.err
}

func (im *importer) lost(objects []sized) (lost []fsverity.Digest, err error) {
	k := newLooker(im.s)
	for _, o := range objects {
		k.add(o.Digest, o.size)
	}
	return k.found()
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
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(todo, 64) {
		g.Go(func() error {
			for _, d := range part {
				if err := errors.Join(ctx.Err(), markRotten(im.s, d)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// reuse takes a layer that the store has. A stream that was not verified here is hashed once, and what is damaged or missing
// of the layer's files is restored. A stream that is damaged itself is not used: the layer is fetched to replace it.
func (im *importer) reuse(ctx context.Context, l *importedLayer) (bool, error) {
	id, err := im.s.Entry(store.Streams, LayerEntry(l.DiffID))
	switch {
	case err == nil:
		if whole, err := im.reuseWhole(ctx, l, id); whole || err != nil {
			return whole, err
		}
		l.healed.Streams++
	case !isDamage(err):
		return false, err
	case errors.Is(err, store.ErrNotFound) && im.named[l.DiffID].IsZero():
		return false, nil
	}
	l.replaces = true
	if named := im.named[l.DiffID]; !named.IsZero() && named != id {
		return im.reuseWhole(ctx, l, named)
	}
	return false, nil
}

// reuseWhole takes a layer from a stream, if need be once all that this refers to is read: what can't be used may be so for
// the sake of an object whose damage doesn't show.
func (im *importer) reuseWhole(ctx context.Context, l *importedLayer, id fsverity.Digest) (bool, error) {
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
	lost, err := im.lost(objects)
	if err != nil {
		return err
	}
	return im.restore(ctx, l, lost)
}

func (im *importer) restore(ctx context.Context, l *importedLayer, lost []fsverity.Digest) error {
	restored, err := ObjectsFromStreams(ctx, im.s, lost)
	l.healed.Objects += len(restored)
	if err != nil {
		return err
	}
	return im.refetch(ctx, l, without(lost, restored))
}

func without(ds, but []fsverity.Digest) []fsverity.Digest {
	has := make(map[fsverity.Digest]bool, len(but))
	for _, d := range but {
		has[d] = true
	}
	return slices.DeleteFunc(ds, func(d fsverity.Digest) bool { return has[d] })
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
	if err != nil || i == nil || im.KeepBlobs && !i.keepsBlobs() {
		return false, err
	}
	if err := im.accept(ctx, manifest); err != nil {
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
	if err := im.noteSignatures(manifest); err != nil {
		return true, err
	}
	if err := setName(im.s, im.Name, manifestStanding(manifest, im.Rules, i.Image)); err != nil {
		return true, err
	}
	// Also where all is there: who has named it may not have come to that yet, or was killed before.
	return true, settle(im.s)
}

// inspect looks at all objects of an image that the store has, reads them if it is told to, and restores those of its files.
// It is false if something else is damaged, which the import as a whole restores.
func (im *importer) inspect(ctx context.Context, i *Info) (bool, error) {
	im.storedLayers(i)
	if led, err := im.ledTo(i); !led || err != nil {
		return false, im.doubt(err)
	}
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
	lost, err := im.lost(unsized(parts))
	if err != nil || len(lost) > 0 {
		return false, im.doubt(err)
	}
	if kept, err := im.inspectBlobs(ctx, i); !kept || err != nil {
		return false, im.doubt(err)
	}
	return im.inspectFiles(ctx, i)
}

// keepsBlobs tells whether all of an image's blobs are kept that are no tars.
func (i *Info) keepsBlobs() bool {
	return !slices.ContainsFunc(i.Layers, func(l LayerInfo) bool { return l.Blob != digest.Digest(l.DiffID) && l.Kept.IsZero() })
}

// inspectBlobs looks at the blobs that are kept of an image, and reads them if it is told to.
func (im *importer) inspectBlobs(ctx context.Context, i *Info) (bool, error) {
	seen := map[digest.Digest]bool{}
	for _, l := range i.Layers {
		if l.Kept.IsZero() || seen[l.Blob] {
			continue
		}
		seen[l.Blob] = true
		id, err := linkedTo(im.s, BlobEntry(l.Blob))
		if err != nil || id != l.Kept {
			return false, err
		}
		if good, err := looksKept(im.s, id, l.descriptor()); !good || err != nil {
			return false, err
		}
		if im.Verify {
			object, _ := keptObject(im.s, id, l.descriptor())
			if err := im.readAll(ctx, []fsverity.Digest{id, object}); err != nil {
				return false, err
			}
			if good, err := looksKept(im.s, id, l.descriptor()); !good || err != nil {
				return false, err
			}
		}
	}
	im.report.Blobs = BlobCounts{Total: len(seen)}
	return true, nil
}

// doubt leaves it to the import as a whole to restore what is damaged, and gives up what is known of the layers but for what
// was done to them and the streams that they are said to have.
func (im *importer) doubt(err error) error {
	im.doubtful = true
	im.named = map[oci.DiffID]fsverity.Digest{}
	for _, l := range im.layers {
		im.report.Healed.add(l.healed)
		im.report.Bytes.Fetched += l.refetched
		im.named[l.DiffID] = l.id
	}
	im.layers, im.report.Blobs = nil, BlobCounts{}
	return err
}

// ledTo tells whether the entries of an image's config and layers lead to the streams that are named for them.
func (im *importer) ledTo(i *Info) (bool, error) {
	if id, err := linkedTo(im.s, configEntry(i.Config)); err != nil || id != i.documents[1] {
		return false, err
	}
	for _, l := range im.layers {
		if id, err := linkedTo(im.s, LayerEntry(l.DiffID)); err != nil || id != l.id {
			return false, err
		}
	}
	return true, nil
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

// inspectFiles looks at the objects of the files in an image, by their sizes, and at what else its layers' streams refer to,
// and restores what is lost.
func (im *importer) inspectFiles(ctx context.Context, i *Info) (bool, error) {
	layers, err := im.layerObjects(ctx)
	if err != nil || layers == nil {
		return false, im.doubt(err)
	}
	k := newLooker(im.s)
	seen := map[uint64]bool{}
	err = im.visitImage(i, func(d fsverity.Digest, size int64) error {
		seen[shortened(d)] = true
		k.add(d, size)
		return nil
	})
	for _, refs := range layers {
		for _, d := range refs {
			if !seen[shortened(d)] {
				k.add(d, -1)
			}
		}
	}
	lost, lerr := k.found()
	switch {
	case err != nil && isDamage(err):
		return false, im.doubt(lerr)
	case err != nil || lerr != nil:
		return false, cmp.Or(err, lerr)
	}
	return im.healFiles(ctx, layers, lost)
}

// shortened is enough of a digest to tell objects apart that need not be looked at twice.
func shortened(d fsverity.Digest) uint64 {
	var b [64]byte
	return binary.LittleEndian.Uint64(d.AppendTo(b[:0]))
}

// layerObjects is what the layers' streams refer to, which is read if everything is to be; nil: one of them is damaged.
func (im *importer) layerObjects(ctx context.Context) ([][]fsverity.Digest, error) {
	layers := make([][]fsverity.Digest, len(im.layers))
	for n, l := range im.layers {
		refs, err := im.streamObjects(ctx, l.id, im.Verify)
		if err != nil || refs == nil {
			return nil, err
		}
		layers[n] = refs
	}
	return layers, nil
}

func (im *importer) visitImage(i *Info, visit func(fsverity.Digest, int64) error) error {
	if im.ImageObjects == nil {
		return nil
	}
	f, err := im.s.OpenObject(i.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	return im.ImageObjects(f, visit)
}

// healFiles restores what is lost from the layers that have it, small ones first. If none has it, the image is not what they
// come to.
func (im *importer) healFiles(ctx context.Context, layers [][]fsverity.Digest, lost []fsverity.Digest) (bool, error) {
	order := make([]int, len(im.layers))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(im.layers[a].Descriptor.Size, im.layers[b].Descriptor.Size)
	})
	left := map[fsverity.Digest]bool{}
	for _, d := range lost {
		left[d] = true
	}
	for _, n := range order {
		var objects []fsverity.Digest
		for _, d := range layers[n] {
			if left[d] {
				delete(left, d)
				objects = append(objects, d)
			}
		}
		if err := im.restore(ctx, im.layers[n], objects); err != nil {
			return false, fmt.Errorf("%s of %s: %w", im.layers[n], im.src, err)
		}
	}
	if len(left) > 0 {
		return false, im.doubt(nil)
	}
	return true, nil
}
