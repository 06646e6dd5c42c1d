package index

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// RestoreLayer reads a layer anew, of which the stream is damaged or missing, and with it stores what is missing of its
// files, or damaged. Where the new stream is another than the old one, though it gives the same tar, all that refer to the old one are
// rewritten. A source that does not give the very layer changes nothing. All is durable in the end.
func RestoreLayer(ctx context.Context, s *store.Store, src oci.Source, l oci.Layer, o HealOptions) error {
	if err := restoreLayer(ctx, s, src, l, o.withDefaults()); err != nil {
		return fmt.Errorf("restore layer %s from %s: %w", l.DiffID, src, err)
	}
	return nil
}

func restoreLayer(ctx context.Context, s *store.Store, src oci.Source, l oci.Layer, o HealOptions) error {
	if err := oci.CheckDigest(digest.Digest(l.DiffID)); err != nil {
		return err
	}
	if err := markLayer(s, l.DiffID); err != nil {
		return err
	}
	im := newImporter(s.Algorithm(), src, ImportOptions{Limits: o.Limits, Progress: o.Progress})
	im.s = s
	layer := &importedLayer{Layer: l, replaces: true}
	if err := im.fetch(ctx, layer); err != nil {
		return err
	}
	if err := s.Sync(); err != nil {
		return err
	}
	unlock, err := s.LockEntries(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := moveLayer(ctx, s, l.DiffID, layer.id); err != nil {
		return err
	}
	if err := noteOrigin(s, src, l); err != nil {
		return err
	}
	return s.Sync()
}

// RelinkLayer points a layer's entry, which leads to something else, at a stream that gives back its tar, if documents refer
// to one. It is false if none does.
func RelinkLayer(ctx context.Context, s *store.Store, d oci.DiffID) (bool, error) {
	if err := oci.CheckDigest(digest.Digest(d)); err != nil {
		return false, err
	}
	unlock, err := s.LockEntries(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	ids, err := streamsOf(s, d)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		good, err := givesTar(ctx, s, id, d)
		if err != nil {
			return false, err
		}
		if good {
			_, err := moveLayer(ctx, s, d, id)
			return err == nil, err
		}
	}
	return false, nil
}

// markLayer notes the streams that a layer has, or is said to have, as damaged where they are, so that one is replaced if it
// comes out the same.
func markLayer(s *store.Store, d oci.DiffID) error {
	ids, err := streamsOf(s, d)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := markRotten(s, id); err != nil {
			return err
		}
	}
	return nil
}

// streamsOf lists the streams that a layer's entry leads to and that documents refer to for it.
func streamsOf(s *store.Store, d oci.DiffID) ([]fsverity.Digest, error) {
	var ids []fsverity.Digest
	if id, err := s.Entry(store.Streams, LayerEntry(d)); err == nil {
		ids = append(ids, id)
	}
	r := &rewriting{s: s}
	for _, prefix := range []string{configEntry(""), manifestEntry("")} {
		docs, err := r.documents(prefix)
		if err != nil {
			return nil, err
		}
		for _, id := range namedBy(docs, d.String()) {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// moveLayer makes id the stream of a layer: that of its entry, and of all documents that name the layer. If the entry leads
// to another one that is good, that is made to be it instead. It is called under store.LockEntries, once all that id refers
// to is durable, and returns the stream that it is.
func moveLayer(ctx context.Context, s *store.Store, d oci.DiffID, id fsverity.Digest) (fsverity.Digest, error) {
	have, err := s.Entry(store.Streams, LayerEntry(d))
	if err == nil && have != id {
		good, err := givesTar(ctx, s, have, d)
		if err != nil {
			return id, err
		}
		if good {
			if err := s.Bury(store.Streams, id); err != nil {
				return id, err
			}
			id = have
		}
	}
	if err != nil || have != id {
		if err := s.Relink(store.Streams, LayerEntry(d), id); err != nil {
			return id, err
		}
	}
	if err := s.SetNote(notesVerified, d.String(), id.String()); err != nil {
		return id, err
	}
	r := &rewriting{s: s, want: map[string]fsverity.Digest{d.String(): id}}
	return id, r.run()
}

// givesTar tells whether a stream gives back the tar of a layer.
func givesTar(ctx context.Context, s *store.Store, id fsverity.Digest, d oci.DiffID) (bool, error) {
	got, err := StoredDiffID(ctx, s, id)
	if err != nil && !isDamage(err) {
		return false, err
	}
	return err == nil && got == d, nil
}
