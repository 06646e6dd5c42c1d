package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
)

// chunkBase is what stays as it is below the layers that are written. A nil one is none.
type chunkBase struct {
	layers []index.LayerInfo
	tree   *tree.Tree
	above  *chunk.Above
}

func (b *chunkBase) treeOrNil() *tree.Tree {
	if b == nil {
		return nil
	}
	return b.tree
}

func (b *chunkBase) hasOrNil() func(tree.Node) bool {
	if b == nil {
		return nil
	}
	return b.above.Has
}

// numLayers are those of the base, and the one that says what of it has gone.
func (b *chunkBase) numLayers() int {
	switch {
	case b == nil:
		return 0
	case b.above.Changes():
		return len(b.layers) + 1
	}
	return len(b.layers)
}

// checkBase makes sure that the blobs of the base can be had, before minutes of work.
func (j *chunkJob) checkBase(ctx context.Context, to oci.Sink) error {
	if j.base == nil {
		return nil
	}
	for n, l := range j.base.layers {
		if l.HasBlob() {
			continue
		}
		b := j.src.blob(n)
		has, err := to.HasBlob(ctx, b.Layer.Descriptor)
		if err == nil && !has {
			has, err = index.MountBlob(ctx, to, b)
		}
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("layer %d of the base (%s): %w", n+1, l.DiffID, index.ErrNotKept)
		}
	}
	return nil
}

// readBase finds the layers that stay, and their tree.
func (j *chunkJob) readBase(ctx context.Context) error {
	if j.o.keepBase == "" {
		return nil
	}
	n, err := strconv.Atoi(j.o.keepBase)
	if err != nil {
		n, err = j.countBase(ctx)
	}
	if err != nil {
		return fmt.Errorf("--keep-base: %w", err)
	}
	if n < 1 || n > len(j.src.info.Layers) {
		return fmt.Errorf("--keep-base: %s has %s, and %d can't be kept", j.src.name, counted(len(j.src.info.Layers), "layer"), n)
	}
	j.base = &chunkBase{layers: j.src.info.Layers[:n]}
	j.base.tree, err = index.StoredTree(ctx, j.src.store, j.src.info.StoredLayers()[:n], index.Faithful1)
	return err
}

// countBase counts the layers of the base image, which have to be SOURCE's lowest ones.
func (j *chunkJob) countBase(ctx context.Context) (int, error) {
	f, err := j.find(j.o.keepBase, treeOptions{reading: j.o.reading})
	if err != nil {
		return 0, err
	}
	defer f.Close()
	src, err := f.layered()
	if err != nil {
		return 0, err
	}
	img, err := src.Image(ctx)
	if err != nil {
		return 0, err
	}
	own := j.src.image.DiffIDs()
	for n, d := range img.DiffIDs() {
		if n >= len(own) || own[n] != d {
			return 0, fmt.Errorf("%s is not the base of %s: its layer %d is %s, and not that there", j.o.keepBase, j.src.name, n+1, d)
		}
	}
	return len(img.Layers), nil
}

// compareBase finds out what has to lie above the base, once times are what they are to be.
func (j *chunkJob) compareBase() (err error) {
	if j.base != nil {
		j.base.above, err = chunk.AboveBase(j.base.tree, j.src.tree)
	}
	return err
}
