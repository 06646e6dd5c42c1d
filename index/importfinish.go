package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

// finish makes image, config and manifest, and then, in this order and each durable before the next, names them.
func (im *importer) finish(ctx context.Context, t *tree.Tree) error {
	im.Progress.Step("write image")
	if err := im.writeImage(t); err != nil {
		return err
	}
	if err := im.expected(im.report.Image); err != nil {
		return errors.Join(err, im.keepFetched(ctx))
	}
	docs, err := im.putDocuments()
	if err != nil {
		return err
	}
	im.Progress.Step("sync")
	if err := im.s.Sync(); err != nil {
		return err
	}
	if err := im.nameLayers(ctx); err != nil {
		return err
	}
	if err := im.nameDocuments(ctx, docs); err != nil {
		return err
	}
	if err := im.setName(); err != nil {
		return err
	}
	return settle(im.s)
}

// settle makes all of an import durable, and says so.
func settle(s *store.Store) error {
	if err := s.Sync(); err != nil {
		return err
	}
	return s.Settled()
}

func (im *importer) writeImage(t *tree.Tree) error {
	o, err := im.s.NewObject()
	if err != nil {
		return err
	}
	defer o.Abort()
	if err := im.Image(o, t); err != nil {
		return fmt.Errorf("write image of %s: %w", im.src, err)
	}
	if im.doubtful {
		if err := markRotten(im.s, o.Sum()); err != nil {
			return err
		}
	}
	im.report.ImageBytes = o.Size()
	d, isNew, err := o.Commit()
	if err != nil {
		return err
	}
	im.report.Image = d
	if _, err := im.s.Entry(store.Images, d.String()); err == nil && isNew {
		im.report.Healed.Images++
	}
	return nil
}

// keepFetched names the layers that were read whole before an import failed, so that the next one need not fetch them.
func (im *importer) keepFetched(ctx context.Context) error {
	for _, l := range im.layers {
		if l.result != nil || l.refetched > 0 {
			if err := im.s.Sync(); err != nil {
				return err
			}
			return im.nameLayers(context.WithoutCancel(ctx))
		}
	}
	return nil
}

// nameLayers makes the entries of the layers that were fetched, whose objects are durable.
func (im *importer) nameLayers(ctx context.Context) error {
	for _, l := range im.layers {
		if l.result == nil || l.replaces {
			continue
		}
		// First: who finds the layer there fetches nothing, and can't tell where it is from.
		if err := l.noteOrigin(im.s, im.src); err != nil {
			return err
		}
		id, err := im.s.Link(store.Streams, LayerEntry(l.DiffID), l.id)
		if err == nil && id == l.id {
			err = im.s.SetNote(notesVerified, l.DiffID.String(), id.String())
		}
		if err != nil {
			return err
		}
		l.dropPartial()
	}
	if err := im.replaceLayers(ctx); err != nil {
		return err
	}
	return im.nameBlobs(ctx)
}

// replaceLayers makes the streams of layers that are damaged, or have no entries, those that were found for them instead.
func (im *importer) replaceLayers(ctx context.Context) error {
	for _, l := range im.layers {
		if !l.replaces || l.id.IsZero() {
			continue
		}
		unlock, err := im.s.LockEntries(ctx)
		if err != nil {
			return err
		}
		_, err = moveLayer(ctx, im.s, l.DiffID, l.id)
		unlock()
		if err == nil && l.result != nil {
			err = l.noteOrigin(im.s, im.src)
		}
		if err != nil {
			return err
		}
		l.dropPartial()
	}
	return nil
}

// nameDocuments makes the entries of the image, its config and its manifest. What those have to refer to may have changed
// while they were stored: then they are stored again, and this time nothing can change meanwhile.
func (im *importer) nameDocuments(ctx context.Context, docs *documents) error {
	unlock, err := im.s.LockEntries(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	moved, err := im.followLayers(ctx)
	if err != nil {
		return err
	}
	movedBlobs, err := im.followBlobs(ctx)
	if err != nil {
		return err
	}
	stale, err := docs.stale(im.s)
	if err != nil {
		return err
	}
	if moved || movedBlobs || stale {
		if docs, err = im.putAgain(docs); err != nil {
			return err
		}
	}
	if _, err := im.s.Link(store.Images, im.report.Image.String(), im.report.Image); err != nil {
		return err
	}
	for _, p := range []documentPut{docs.config, docs.manifest} {
		im.report.Healed.add(p.healed)
	}
	if docs.manifest.old.IsZero() { // first, as with layers
		if err := writeOrigin(im.s, im.img.Descriptor.Digest, im.src, im.img.Descriptor); err != nil {
			return err
		}
	}
	if err := im.noteSignatures(im.img.Descriptor.Digest); err != nil {
		return err
	}
	return docs.name(im.s, im.img, im.doubtful)
}

// followLayers takes the streams that the layers' entries lead to, and tells whether one is another: somebody was faster, or
// has restored the layer. What names a layer must name that stream, or gc loses the layer.
func (im *importer) followLayers(ctx context.Context) (moved bool, err error) {
	for _, l := range im.layers {
		id, err := im.s.Entry(store.Streams, LayerEntry(l.DiffID))
		if err != nil {
			return moved, err
		}
		if id == l.id {
			continue
		}
		if err := im.verifyStream(ctx, l.DiffID, id); err != nil {
			return moved, err
		}
		if l.result != nil {
			if err := im.s.Bury(store.Streams, l.id); err != nil {
				return moved, err
			}
		}
		l.id, moved = id, true
	}
	return moved, nil
}

// putAgain stores documents once more, in place of those that refer to other streams.
func (im *importer) putAgain(old *documents) (*documents, error) {
	docs, err := im.putDocuments()
	if err != nil {
		return nil, err
	}
	if err := im.s.Sync(); err != nil {
		return nil, err
	}
	for _, ids := range [][2]fsverity.Digest{{old.config.id, docs.config.id}, {old.manifest.id, docs.manifest.id}} {
		if ids[0] != ids[1] {
			if err := im.s.Bury(store.Streams, ids[0]); err != nil {
				return nil, err
			}
		}
	}
	docs.config.healed.add(old.config.healed)
	docs.manifest.healed.add(old.manifest.healed)
	return docs, nil
}
