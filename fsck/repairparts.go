package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// place is where a layer can be had.
type place struct {
	src   oci.Source
	layer oci.Layer
}

// source opens the place of this name once, and remembers if that failed.
func (f *fixer) source(repository string, manifest digest.Digest) *openedSource {
	for i := range f.opened {
		if o := &f.opened[i]; o.repository == repository && (o.manifest == manifest || manifest == "" && o.err == nil) {
			return o
		}
	}
	o := openedSource{repository: repository, manifest: manifest}
	if f.o.Open == nil {
		o.err = errors.New("it is not asked")
	} else {
		src, err := f.o.Open(repository, manifest)
		if o.err = err; err == nil {
			o.src = src
		}
	}
	f.opened = append(f.opened, o)
	return &f.opened[len(f.opened)-1]
}

// describe gives a source's image, asked for once.
func (o *openedSource) describe(ctx context.Context) (*oci.Image, error) {
	if o.err != nil {
		return nil, o.err
	}
	if o.image == nil && o.imageErr == nil {
		o.image, o.imageErr = o.src.Image(ctx)
	}
	return o.image, o.imageErr
}

// places finds where a layer can be had: in the sources that were given, then where it came from. The error says what
// can't be asked.
func (f *fixer) places(ctx context.Context, d oci.DiffID) (found []place, problems error) {
	for i := range f.o.Sources {
		img, err := f.opened[i].describe(ctx)
		if err != nil {
			problems = errors.Join(problems, err)
			continue
		}
		for _, l := range img.Layers {
			if l.DiffID == d {
				found = append(found, place{f.opened[i].src, l})
			}
		}
	}
	origin, err := index.LayerOrigin(f.s, d)
	if err != nil {
		return found, errors.Join(problems, fmt.Errorf("where layer %s came from is not known: %w", d, err))
	}
	src := f.source(origin.Repository, "")
	if src.err != nil {
		return found, errors.Join(problems, fmt.Errorf("%s, where layer %s came from: %w", origin.Repository, d, src.err))
	}
	return append(found, place{src.src, origin.Layer(d)}), problems
}

// objectCodes are those of problems about objects as such.
var objectCodes = []Code{ObjectDamaged, ObjectMissing, ObjectStrange, EntryDangling}

// badIn gives the objects of a layer's files that are bad: not what has a form of its own, which is made anew.
func (f *fixer) badIn(n *streamNode, hit map[fsverity.Digest]bool) []fsverity.Digest {
	var list []fsverity.Digest
	for d := range hit {
		if d != n.id && f.bad[d] != nil {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, fsverity.Digest.Compare)
	return list
}

// fixObjects restores the contents of files: from other streams of the store, else from where their layers can be had.
func (f *fixer) fixObjects(ctx context.Context) error {
	hit := f.streamsHit()
	var all []fsverity.Digest
	for n, ds := range hit {
		if n.kind == stream.OCILayer {
			all = append(all, f.badIn(n, ds)...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	restored, err := index.ObjectsFromStreams(ctx, f.s, all)
	if err != nil {
		f.failAll(all, err)
	}
	f.mended(restored)
	for _, n := range f.graph.order {
		if ds := hit[n]; ds != nil && n.kind == stream.OCILayer {
			if err := f.refetch(ctx, n, f.badIn(n, ds)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fixOthers looks for objects that only images without layers refer to, in the layers of the sources that were given. Some
// may have come with the layers that were restored before.
func (f *fixer) fixOthers(ctx context.Context) error {
	others, holders := map[fsverity.Digest]bool{}, f.holders()
	for d, p := range f.bad {
		if len(holders[d]) > 0 || f.graph.streams[d] != nil || f.graph.images[d] != nil || p.Severity != IsProblem {
			continue
		}
		others[d] = true
		if f.present(d) {
			f.mended([]fsverity.Digest{d})
			delete(others, d)
		}
	}
	if len(others) == 0 {
		return nil
	}
	for i := range f.o.Sources {
		img, err := f.opened[i].describe(ctx)
		if err != nil {
			f.failAll(sortedDigests(others), err)
			continue
		}
		for _, l := range img.Layers {
			if len(others) == 0 {
				return nil
			}
			f.Progress.Step(fmt.Sprintf("look for %d objects in layer %s of %s", len(others), l.DiffID, f.opened[i].src))
			restored, _, _ := index.RefetchObjects(ctx, f.s, f.opened[i].src, l, sortedDigests(others), index.HealOptions{})
			f.mended(restored)
			for _, d := range restored {
				delete(others, d)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	f.failAll(sortedDigests(others), errors.New("no layer of the store is known to have it; --from names an image that may"))
	return nil
}

func sortedDigests(set map[fsverity.Digest]bool) []fsverity.Digest {
	return slices.SortedFunc(maps.Keys(set), fsverity.Digest.Compare)
}

// mended takes objects off the list of what is bad. The check that follows reads them.
func (f *fixer) mended(ds []fsverity.Digest) {
	for _, d := range ds {
		delete(f.failed, f.bad[d])
		delete(f.bad, d)
		f.objects.redo(d)
	}
}

func (f *fixer) failAll(ds []fsverity.Digest, err error) {
	for _, d := range ds {
		if p := f.bad[d]; p != nil {
			f.fail(p, err)
		}
	}
}

// refetch reads a layer where it can be had, until all that is wanted of it was found.
func (f *fixer) refetch(ctx context.Context, n *streamNode, wanted []fsverity.Digest) error {
	name, ok := n.original(layerPrefix)
	if !ok || len(wanted) == 0 {
		return nil
	}
	places, problems := f.places(ctx, oci.DiffID(name))
	for _, p := range places {
		f.Progress.Step(fmt.Sprintf("fetch %d objects of layer %s from %s", len(wanted), name, p.src))
		restored, _, err := index.RefetchObjects(ctx, f.s, p.src, p.layer, wanted, index.HealOptions{})
		f.mended(restored)
		wanted = slices.DeleteFunc(wanted, func(d fsverity.Digest) bool { return f.bad[d] == nil })
		if len(wanted) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		problems = errors.Join(problems, err)
	}
	f.failAll(wanted, problems)
	return nil
}

// fixLayers makes streams anew whose layers can be had.
func (f *fixer) fixLayers(ctx context.Context) error {
	return f.each(ctx, func(p *Problem) error {
		if d, ok := strings.CutPrefix(p.entry, layerPrefix); ok {
			return f.fixMisled(ctx, oci.DiffID(d))
		}
		n := f.graph.streams[p.object]
		if n == nil || f.bad[p.object] == nil && !p.derived && p.Code != StreamInvalid {
			return nil // it is about something else, or was mended
		}
		name, ok := n.original(layerPrefix)
		if !ok {
			return nil
		}
		if !f.needed(n) {
			return f.discard(n)
		}
		err := f.restoreLayer(ctx, oci.DiffID(name))
		if err == nil {
			f.mended([]fsverity.Digest{p.object})
		}
		return err
	}, append(slices.Clone(objectCodes), StreamInvalid, LayerDiffers)...)
}

// fixMisled points an entry at the stream of its layer.
func (f *fixer) fixMisled(ctx context.Context, d oci.DiffID) error {
	if found, err := index.RelinkLayer(ctx, f.s, d); found || err != nil {
		return err
	}
	return f.restoreLayer(ctx, d)
}

// restoreLayer fetches a layer from the first place that has it.
func (f *fixer) restoreLayer(ctx context.Context, d oci.DiffID) error {
	places, problems := f.places(ctx, d)
	for _, at := range places {
		f.Progress.Step(fmt.Sprintf("fetch layer %s from %s", d, at.src))
		err := index.RestoreLayer(ctx, f.s, at.src, at.layer, index.HealOptions{})
		if err == nil {
			return nil
		}
		f.halfway = true
		problems = errors.Join(problems, err)
	}
	return problems
}

// needed tells whether a ref leads to a stream. What could not be read may have hidden it, so that a layer counts as needed
// if any document names it.
func (f *fixer) needed(n *streamNode) bool {
	if f.graph.live[n] {
		return true
	}
	for _, other := range f.graph.order {
		if other != n && !other.good() {
			return true
		}
		for _, r := range other.refs {
			if r.ID == n.id {
				return true
			}
		}
	}
	return false
}

// discard takes away the entries of a stream that nothing needs and that is not what it should be.
func (f *fixer) discard(n *streamNode) error {
	if err := f.s.Bury(store.Streams, n.id); err != nil {
		return err
	}
	for _, name := range n.names {
		if err := ignoreMissing(f.s.RemoveEntry(store.Streams, name)); err != nil {
			return err
		}
	}
	return nil
}

// fixDocuments makes the streams of configs, manifests and image indexes anew, in this order.
func (f *fixer) fixDocuments(ctx context.Context) error {
	for _, prefix := range []string{configPrefix, manifestPrefix, indexPrefix} {
		holders := f.holders()
		err := f.each(ctx, func(p *Problem) error {
			for _, entry := range f.documentsOf(p, prefix, holders) {
				find := func(d digest.Digest) ([]byte, error) { return f.findDocument(ctx, d) }
				if err := index.RestoreDocument(ctx, f.s, entry, find, writeImage); err != nil {
					return err
				}
			}
			return nil
		}, append(slices.Clone(objectCodes), StreamInvalid, DocumentDiffers, DocumentIncomplete, RefUnmapped, RefDangling)...)
		if err != nil {
			return err
		}
	}
	return nil
}

// holders are the streams that refer to each bad object.
func (f *fixer) holders() map[fsverity.Digest][]*streamNode {
	holders := map[fsverity.Digest][]*streamNode{}
	for n, ds := range f.streamsHit() {
		for d := range ds {
			if d != n.id {
				holders[d] = append(holders[d], n)
			}
		}
	}
	return holders
}

// documentsOf gives the entries of the documents that a problem is about, or whose JSON its object is.
func (f *fixer) documentsOf(p *Problem, prefix string, holders map[fsverity.Digest][]*streamNode) []string {
	if p.entry != "" {
		if strings.HasPrefix(p.entry, prefix) && (p.Code != RefDangling || prefix != configPrefix) {
			return []string{p.entry}
		}
		return nil
	}
	var entries []string
	add := func(n *streamNode) {
		if d, ok := n.original(prefix); ok {
			entries = append(entries, prefix+d)
		}
	}
	if n := f.graph.streams[p.object]; n != nil {
		add(n)
	}
	if f.bad[p.object] != nil {
		for _, n := range holders[p.object] {
			add(n)
		}
	}
	slices.Sort(entries)
	return slices.Compact(entries)
}

// findDocument looks for a config or manifest among the store's objects, then in the sources that were given and where it
// came from, then where layers came from.
func (f *fixer) findDocument(ctx context.Context, d digest.Digest) ([]byte, error) {
	raw, err := index.DocumentInObjects(ctx, f.s, d)
	if err == nil {
		return raw, nil
	}
	problems := err
	asked := 0
	for _, open := range []func(digest.Digest){f.openOrigin, f.openLayerOrigins} {
		open(d)
		for i := range f.opened[asked:] {
			raw, err := f.document(ctx, &f.opened[asked+i], d)
			if err == nil {
				return raw, nil
			}
			problems = errors.Join(problems, err)
		}
		asked = len(f.opened)
	}
	return nil, fmt.Errorf("document %s is nowhere to be had (--from names more places): %w", d, problems)
}

// document gives a document of a source, whether its image's or another one.
func (f *fixer) document(ctx context.Context, o *openedSource, d digest.Digest) ([]byte, error) {
	raw, err := o.document(ctx, d)
	from, ok := o.src.(oci.DocumentSource)
	if err == nil || !ok {
		return raw, err
	}
	desc, known := f.describeDocument(ctx, from, d)
	if !known {
		return nil, err
	}
	if raw, err = from.Document(ctx, desc); err == nil {
		err = oci.Verify("document", raw, desc)
	}
	return raw, err
}

// describeDocument gives the descriptor of a document, which is what a source is to be asked for: that by which it came, that by
// which a manifest lists its config, or that of what the source's own reference stands for.
func (f *fixer) describeDocument(ctx context.Context, src oci.Source, d digest.Digest) (desc ocispec.Descriptor, ok bool) {
	if o, err := index.ManifestOrigin(f.s, d); err == nil {
		desc = o.Layer("").Descriptor
	} else if config, ok := f.configDescriptor(d); ok {
		desc = config
	} else if root, err := src.Resolve(ctx); err == nil {
		desc = root
	}
	return desc, desc.Digest == d && oci.CheckDescriptor(desc) == nil && desc.Size <= oci.MaxManifestSize
}

// configDescriptor is that by which a manifest lists a config.
func (f *fixer) configDescriptor(d digest.Digest) (desc ocispec.Descriptor, ok bool) {
	for entry, id := range f.graph.entries[store.Streams] {
		if !strings.HasPrefix(entry, manifestPrefix) || !f.namesConfig(id, d) {
			continue
		}
		raw, err := index.ReadDocument(f.s, id)
		if err != nil {
			continue
		}
		if doc, err := oci.ParseDocument(raw, ""); err == nil && doc.Config.Digest == d {
			return doc.Config, true
		}
	}
	return desc, false
}

// document gives a source's manifest or config, if that is the one of this digest.
func (o *openedSource) document(ctx context.Context, d digest.Digest) ([]byte, error) {
	img, err := o.describe(ctx)
	if err != nil {
		return nil, err
	}
	for _, raw := range [][]byte{img.Manifest, img.Config} {
		if digest.FromBytes(raw) == d {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("%s has manifest %s and config %s", o.repository, img.Descriptor.Digest, img.ConfigDescriptor.Digest)
}

// openOrigin opens the place that a manifest or image index came from; of a config, those of the manifests that name it.
func (f *fixer) openOrigin(d digest.Digest) {
	if origin, err := index.ManifestOrigin(f.s, d); err == nil {
		f.source(origin.Repository, d)
	}
	entries := f.graph.entries[store.Streams]
	for _, entry := range slices.Sorted(maps.Keys(entries)) {
		m, ok := strings.CutPrefix(entry, manifestPrefix)
		if !ok || !f.namesConfig(entries[entry], d) {
			continue
		}
		if origin, err := index.ManifestOrigin(f.s, digest.Digest(m)); err == nil {
			f.source(origin.Repository, digest.Digest(m))
		}
	}
}

// namesConfig tells whether a manifest's stream refers to that of a config.
func (f *fixer) namesConfig(manifest fsverity.Digest, config digest.Digest) bool {
	n := f.graph.streams[manifest]
	return n != nil && slices.ContainsFunc(n.refs, func(r stream.NamedRef) bool { return r.Name == stream.ConfigPrefix+config.String() })
}

// openLayerOrigins opens all places that layers came from, each as it is now and with the manifests that the store names.
func (f *fixer) openLayerOrigins(d digest.Digest) {
	for name, err := range f.s.Notes(index.DirOrigins) {
		if err != nil {
			return
		}
		origin, err := index.LayerOrigin(f.s, oci.DiffID(strings.TrimSuffix(name, ".json")))
		if err != nil {
			continue
		}
		for entry := range f.graph.entries[store.Streams] {
			if m, ok := strings.CutPrefix(entry, manifestPrefix); ok {
				f.source(origin.Repository, digest.Digest(m))
			}
		}
		f.source(origin.Repository, d)
	}
}

func writeImage(w io.Writer, t *tree.Tree) error {
	_, err := erofs.Write(w, t, erofs.WriteOptions{Format: erofs.Format1})
	return err
}

// fixImages makes images anew from their layers.
func (f *fixer) fixImages(ctx context.Context) error {
	return f.each(ctx, func(p *Problem) error {
		if p.Code == ImageDiffers {
			return errors.New("it can't be told which is right, the image or the layers: remove its names, collect garbage, and pull it again")
		}
		i := f.graph.images[p.object]
		if i == nil || f.bad[p.object] == nil && p.Code != ImageUnnamed && p.Code != ImageInvalid {
			return nil
		}
		err := errors.New("its layers are not known: make it again from what it was made of")
		for _, u := range i.configs {
			rules, ok := index.ImageRules(u.key)
			layers, known := f.layersOf(u.config)
			if !ok || !known {
				continue
			}
			if err = index.RestoreImage(ctx, f.s, layers, rules, i.id, writeImage); err == nil {
				f.mended([]fsverity.Digest{i.id})
				return nil
			}
		}
		return err
	}, append(slices.Clone(objectCodes), ImageUnnamed, ImageInvalid, ImageDiffers)...)
}
