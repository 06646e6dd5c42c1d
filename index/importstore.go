package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tree"
)

// Directories of notes below flatroot/ in a store. Losing them loses no content, only time.
const (
	notesVerified = "verified" // diffID → ID of the stream that was hashed here
	notesBlobs    = "blobs"    // digest of a blob → diffID that was computed for it
	notesIndexes  = "indexes"  // digest of an image index, platform → digest of its manifest
	dirOrigins    = "origins"  // diffID.json: where the layer came from
)

// imageKey is the name under which a config stream refers to its image. Only images of the rule oci-1 have the name by
// which other composefs tools look.
func imageKey(r Rules) string {
	if r == OCI1 {
		return stream.ImageV1
	}
	return ownImagePrefix + "v1." + string(r)
}

// ownImagePrefix begins the names of images that other composefs tools don't look for.
const ownImagePrefix = "flatroot.image."

// reuse takes a layer that the store has. A stream that was not verified here is hashed once.
func (im *importer) reuse(ctx context.Context, l *importedLayer) (bool, error) {
	id, err := im.s.Entry(store.Streams, LayerEntry(l.DiffID))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := im.verifyStream(ctx, l.DiffID, id); err != nil {
		return false, err
	}
	im.Progress.Reused(l.Layer)
	if l.tar, err = loadLayer(ctx, im.s, l.DiffID, id, im.Limits, im.bounds); err != nil {
		return false, err
	}
	l.id, l.objects = id, l.tar.refs
	return true, nil
}

// verifyStream makes sure that a stream gives back the tar that its name promises. That is asked once: the answer is
// noted. Nothing of it is asked of a stream that this store imported itself.
func (im *importer) verifyStream(ctx context.Context, d oci.DiffID, id fsverity.Digest) error {
	note, err := im.s.Note(notesVerified, d.String())
	if err == nil && note == id.String() {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	got, err := tarDigest(ctx, im.s, id, io.Discard)
	if err != nil {
		return err
	}
	if got != d {
		return &oci.DigestError{
			What: "layer stream that another tool left in the store", Want: digest.Digest(d), Got: digest.Digest(got),
		}
	}
	return im.s.SetNote(notesVerified, d.String(), id.String())
}

// storeStream makes an object of a layer's stream. A tar that other readers would cut elsewhere is stored whole instead.
func storeStream(ctx context.Context, s *store.Store, w *stream.Writer, r *layerResult) (id fsverity.Digest, objects int, err error) {
	if r.report.Inexact {
		return storeUncut(ctx, s, w, r)
	}
	o, err := s.NewObject()
	if err != nil {
		return id, 0, err
	}
	defer o.Abort()
	if _, err := w.WriteTo(o); err != nil {
		return id, 0, fmt.Errorf("write layer stream: %w", err)
	}
	id, _, err = o.Commit()
	return id, w.NumObjects(), err
}

// storeUncut puts the tar together again and stores it as one object. Its files' contents are objects already; the stream
// names them so that they stay.
func storeUncut(ctx context.Context, s *store.Store, w *stream.Writer, r *layerResult) (id fsverity.Digest, objects int, err error) {
	scratch, err := s.Scratch()
	if err != nil {
		return id, 0, err
	}
	defer scratch.Close()
	if _, err := w.WriteTo(scratch); err != nil {
		return id, 0, fmt.Errorf("write layer stream: %w", err)
	}
	cut, err := openStream(scratch)
	if err != nil {
		return id, 0, err
	}
	whole, err := s.NewObject()
	if err != nil {
		return id, 0, err
	}
	defer whole.Abort()
	if err := (&storedLayer{cut, s, scratch}).writeTar(ctx, whole); err != nil {
		return id, 0, err
	}
	tar, _, err := whole.Commit()
	if err != nil {
		return id, 0, err
	}
	objects = cut.NumObjects() + 1
	id, err = putStream(s, stream.OCILayer, func(w *stream.Writer) error {
		if err := w.External(tar, r.tarSize); err != nil {
			return err
		}
		for i := range cut.NumObjects() {
			if err := w.Keep(cut.Object(i)); err != nil {
				return err
			}
		}
		return nil
	})
	return id, objects, err
}

// putStream makes a stream that fill fills, and its object.
func putStream(s *store.Store, t stream.ContentType, fill func(*stream.Writer) error) (id fsverity.Digest, err error) {
	w := stream.NewWriter(s.Algorithm(), t, stream.WriterOptions{Scratch: s.Scratch})
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := fill(w); err != nil {
		return id, err
	}
	o, err := s.NewObject()
	if err != nil {
		return id, err
	}
	defer o.Abort()
	if _, err := w.WriteTo(o); err != nil {
		return id, err
	}
	id, _, err = o.Commit()
	return id, err
}

// keepFetched names the layers that were read whole before an import failed, so that the next one need not fetch them.
func (im *importer) keepFetched() error {
	for _, l := range im.layers {
		if l.result != nil {
			if err := im.s.Sync(); err != nil {
				return err
			}
			_, err := im.nameLayers()
			return err
		}
	}
	return nil
}

// nameLayers makes the entries of the layers that were fetched, whose objects are durable. It tells whether another stream
// than ours has become one of them.
func (im *importer) nameLayers() (adopted bool, err error) {
	for _, l := range im.layers {
		if l.result == nil {
			continue
		}
		id, err := im.s.Link(store.Streams, LayerEntry(l.DiffID), l.id)
		if err != nil {
			return adopted, err
		}
		if id == l.id {
			err = im.s.SetNote(notesVerified, l.DiffID.String(), id.String())
		} else {
			// Somebody was faster. What names a layer must name the stream that its entry leads to, or gc loses the layer.
			err = errors.Join(im.verifyStream(context.Background(), l.DiffID, id), im.s.Bury(store.Streams, l.id))
			l.id, adopted = id, true
		}
		if err == nil {
			err = noteOrigin(im.s, im.src, l.Layer)
		}
		if err != nil {
			return adopted, err
		}
	}
	return adopted, nil
}

func (im *importer) flatten(ctx context.Context) (*tree.Tree, error) {
	im.Progress.Step("flatten")
	byDiffID := map[oci.DiffID]*Layer{}
	for _, l := range im.layers {
		byDiffID[l.DiffID] = l.tar
		l.tar = nil // from here on only the tree needs memory
	}
	stack := make([]*Layer, len(im.img.Layers))
	for i, l := range im.img.Layers {
		stack[i] = byDiffID[l.DiffID]
	}
	t, err := Flatten(ctx, stack, FlattenOptions{
		Rules: im.Rules, Algorithm: im.report.Algorithm, MaxEntries: im.Limits.MaxImageEntries,
	})
	if err != nil {
		return nil, fmt.Errorf("flatten %s: %w", im.src, err)
	}
	return t, nil
}

// finish makes image, config and manifest, and then, in this order and each durable before the next, names them.
func (im *importer) finish(t *tree.Tree) error {
	im.Progress.Step("write image")
	if err := im.writeImage(t); err != nil {
		return err
	}
	if err := im.expected(im.report.Image); err != nil {
		return errors.Join(err, im.keepFetched())
	}
	docs, err := im.putDocuments()
	if err != nil {
		return err
	}
	im.Progress.Step("sync")
	if err := im.s.Sync(); err != nil {
		return err
	}
	adopted, err := im.nameLayers()
	if err != nil {
		return err
	}
	if adopted {
		// Config and manifest refer to streams by ID: they need those of the importer that was faster.
		if docs, err = im.putAgain(docs); err != nil {
			return err
		}
	}
	if _, err := im.s.Link(store.Images, im.report.Image.String(), im.report.Image); err != nil {
		return err
	}
	if err := docs.name(im.s); err != nil {
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

// putAgain stores documents once more, in place of those that refer to other streams.
func (im *importer) putAgain(old *documents) (*documents, error) {
	docs, err := im.putDocuments()
	if err != nil {
		return nil, err
	}
	if err := im.s.Sync(); err != nil {
		return nil, err
	}
	for _, ids := range [][2]fsverity.Digest{{old.configID, docs.configID}, {old.manifestID, docs.manifestID}} {
		if ids[0] != ids[1] {
			if err := im.s.Bury(store.Streams, ids[0]); err != nil {
				return nil, err
			}
		}
	}
	return docs, nil
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
	im.report.ImageBytes = o.Size()
	im.report.Image, _, err = o.Commit()
	return err
}

// setName points the tag at the manifest, and remembers what an image index stood for.
func (im *importer) setName() error {
	if i := im.img.IndexDigest; i != "" {
		if err := im.s.SetNote(notesIndexes, indexNote(i, im.Platform), im.img.Descriptor.Digest.String()); err != nil {
			return err
		}
	}
	return nameManifest(im.s, im.Name, im.img.Descriptor.Digest, im.Rules, im.report.Image)
}

// nameManifest points a tag at a manifest's entry. An image of another rule than oci-1 is named by itself besides: the
// manifest alone leads to the image of oci-1.
func nameManifest(s *store.Store, name string, manifest digest.Digest, r Rules, image fsverity.Digest) error {
	if name == "" {
		return nil
	}
	at, err := refsOf(name)
	if err != nil {
		return err
	}
	if r != OCI1 {
		err = s.SetRef(store.Images, at.image, image.String())
	} else {
		err = ignoreMissing(s.RemoveRef(store.Images, at.image))
	}
	if err != nil {
		return err
	}
	return s.SetRef(store.Streams, at.tag, manifestEntry(manifest))
}

// nameImage points a name at an image that has no manifest.
func nameImage(s *store.Store, name string, image fsverity.Digest) error {
	at, err := refsOf(name)
	if err != nil {
		return err
	}
	if err := s.SetRef(store.Images, at.image, image.String()); err != nil {
		return err
	}
	return ignoreMissing(s.RemoveRef(store.Streams, at.tag))
}

func indexNote(index digest.Digest, p oci.Platform) string {
	return index.String() + "@" + strings.ReplaceAll(p.String(), "/", "-")
}

// remembered is the manifest that a digest stands for: itself, or what an image index gave the last time.
func (im *importer) remembered(d digest.Digest) digest.Digest {
	if note, err := im.s.Note(notesIndexes, indexNote(d, im.Platform)); err == nil {
		return digest.Digest(note)
	}
	return d
}

// fromStore answers from the store if it has all of an image: then only the name is set.
func (im *importer) fromStore(manifest digest.Digest) (bool, error) {
	if oci.CheckDigest(manifest) != nil {
		return false, nil
	}
	i, err := lookUp(im.s, manifest, im.Rules)
	if err != nil || i == nil {
		return false, err
	}
	r := &im.report
	r.Manifest, r.Config, r.Image, r.ImageBytes = i.Manifest, i.Config, i.Image, i.ImageBytes
	r.Layers = LayerCounts{Total: len(i.Layers), Reused: len(i.Layers)}
	for _, l := range i.Layers {
		r.Objects.Total += l.Objects
		r.Bytes.Reused += l.BlobSize
	}
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
	return true, im.s.Sync()
}
