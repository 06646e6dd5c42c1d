package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

// noPrevious is what --previous takes instead of an image.
const noPrevious = "none"

// chunkBefore is the build before. A nil one is none.
type chunkBefore struct {
	plan   *chunk.Previous
	image  *oci.Image
	source oci.Source // of the image
	found  *found     // has the source
	places map[digest.Digest][]oci.Reference
}

func (b *chunkBefore) planOrNil() *chunk.Previous {
	if b == nil {
		return nil
	}
	return b.plan
}

func (b *chunkBefore) close() {
	if b != nil && b.found != nil {
		b.found.Close()
	}
}

// layer is the layer with a component, by what the plan says; nil: there is none. Below those of the plan are those of a base.
func (b *chunkBefore) layer(component string) *oci.Layer {
	below := len(b.image.Layers) - len(b.plan.Layers)
	if below < 0 {
		return nil
	}
	for n, l := range b.plan.Layers {
		if slices.ContainsFunc(l.Components, func(c chunk.Recorded) bool { return c.Name == component }) {
			return &b.image.Layers[below+n]
		}
	}
	return nil
}

// others are the layers that have components which are not the same now. If it is not certain which layer has which
// components, they are all.
func (b *chunkBefore) others(components []chunk.Component) map[oci.DiffID]bool {
	same := b.plan.Same(components)
	others := map[oci.DiffID]bool{}
	for n, l := range b.image.Layers {
		if len(same) != len(b.image.Layers) || !same[n] {
			others[l.DiffID] = true
		}
	}
	return others
}

// findBefore finds the build before, and reads its plan.
func (j *chunkJob) findBefore(ctx context.Context) error {
	ref := j.o.previous
	if ref == noPrevious || ref == "" && j.o.dest == "" {
		return nil
	}
	b := new(chunkBefore)
	err := j.readPlan(ctx, b, ref)
	if err != nil || b.plan == nil {
		b.close()
	} else {
		j.before = b
	}
	if ref == "" && isAbsent(err) {
		j.noteFirst()
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the build before (--previous=none does without): %w", err)
	}
	return nil
}

// readPlan reads the plan of the build before. If it is of no use, why is told.
func (j *chunkJob) readPlan(ctx context.Context, b *chunkBefore, ref string) (err error) {
	if b.found, err = j.openPrevious(ref); err != nil {
		return err
	}
	if b.source, err = b.found.layered(); err != nil {
		return err
	}
	if b.image, err = b.found.documents(ctx); err != nil {
		return err
	}
	if b.plan, err = previousPlan(b.image, j.platform()); err != nil {
		j.talk("%s: not taken for the build before: %v", b.source, err)
		return nil
	}
	b.places = b.found.places(b.source, b.image)
	return nil
}

// openPrevious opens the build before: by default that at DEST.
func (j *chunkJob) openPrevious(ref string) (*found, error) {
	if ref != "" {
		return j.find(ref, treeOptions{reading: j.o.reading})
	}
	source, _, err := j.openSource(j.o.dest, j.o.platform)
	if err != nil {
		return nil, err
	}
	return &found{arg: j.o.dest, source: source}, nil
}

// noteFirst says that there is no build before: under another tag than the last time that may not be meant.
func (j *chunkJob) noteFirst() {
	if j.progress != progressNone {
		j.talk("there is no image at %s yet: layers are planned from nothing, unless --previous names the build before", j.o.ref)
	}
}

// platform is that of the new image.
func (j *chunkJob) platform() oci.Platform {
	if j.src.image != nil {
		return j.src.image.Platform
	}
	return cmp.Or(j.o.platform, oci.DefaultPlatform())
}

// isAbsent tells of an error that there is no image at the place that it is about.
func isAbsent(err error) bool {
	return errors.Is(err, oci.ErrNoImage) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, layout.ErrNoLayout)
}

// previousPlan is the plan of an image, unless that is for another platform than the new one: all would be different, and
// be taken for changed.
func previousPlan(img *oci.Image, p oci.Platform) (*chunk.Previous, error) {
	if have := img.Platform; have.OS != "" && p.OS != "" {
		p.Variant, have.Variant = "", ""
		if p.Match(have) == 0 {
			return nil, fmt.Errorf("it is for %s, and the new image for %s", have, p)
		}
	}
	labels, err := labelsOf(img.Config)
	if err != nil {
		return nil, err
	}
	return chunk.ReadPrevious(labels, descriptorsOf(img))
}

// places are where the blobs of an image are: a registry takes those that stay as they are over from there if DEST has them not.
func (f *found) places(src oci.Source, img *oci.Image) map[digest.Digest][]oci.Reference {
	places := map[digest.Digest][]oci.Reference{}
	if f.source == nil {
		for n := range f.info.Layers {
			b := index.StoredBlob(f.store, f.info, n)
			places[b.Layer.Descriptor.Digest] = b.From
		}
		return places
	}
	ref, err := oci.ParseReference(src.String())
	if err != nil {
		return nil // it can't be asked for anything, then
	}
	for _, l := range img.Layers {
		places[l.Descriptor.Digest] = []oci.Reference{ref}
	}
	return places
}

// readBefore reads what layers of the build before have; nil: all. It comes from a store if that has them.
func (j *chunkJob) readBefore(ctx context.Context, only func(oci.DiffID) bool) (t *tree.Tree, err error) {
	if s, i := j.storedBefore(); i != nil {
		layers := i.StoredLayers()
		if only != nil {
			layers = slices.DeleteFunc(layers, func(l index.StoredLayer) bool { return !only(l.DiffID) })
		}
		t, err = index.StoredTree(ctx, s, layers, index.Faithful1)
	} else {
		m := j.startProgress()
		defer m.stop()
		options := j.o.reading.options()
		options.Rules, options.Progress, options.Only = index.Faithful1, m, only
		t, err = index.ReadTree(ctx, j.before.source, j.src.tree.Algorithm(), options)
	}
	if err != nil {
		return nil, fmt.Errorf("read the build before (--previous=none does without): %w", err)
	}
	return t, nil
}

// storedBefore is the build before in a store that has the same digests as the source's tree; nil: none has it.
func (j *chunkJob) storedBefore() (*store.Store, *index.Info) {
	s, i := j.before.found.store, j.before.found.info
	if i == nil && j.src.store != nil {
		s = j.src.store
		i, _ = index.FindManifest(s, j.before.image.Descriptor.Digest, index.Faithful1) // if it can't be had there, DEST has it
	}
	if i == nil || s.Algorithm() != j.src.tree.Algorithm() {
		return nil, nil
	}
	return s, i
}
