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
	dirOrigins    = "origins"  // diffID.json, and a manifest's digest.json: where it came from

	dirSignatures = "signatures" // a manifest's digest.json: the signatures that were verified when it was pulled
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
// If doubtful, what the store has of it already is read before it is taken for good.
func storeStream(ctx context.Context, s *store.Store, w *stream.Writer, r *layerResult, doubtful bool) (id fsverity.Digest, objects int, err error) {
	if r.report.Inexact {
		return storeUncut(ctx, s, w, r, doubtful)
	}
	o, err := s.NewObject()
	if err != nil {
		return id, 0, err
	}
	defer o.Abort()
	if _, err := w.WriteTo(o); err != nil {
		return id, 0, fmt.Errorf("write layer stream: %w", err)
	}
	if doubtful {
		if err := markRotten(s, o.Sum()); err != nil {
			return id, 0, err
		}
	}
	id, _, err = o.Commit()
	return id, w.NumObjects(), err
}

// storeUncut puts the tar together again and stores it as one object. Its files' contents are objects already; the stream
// names them so that they stay.
func storeUncut(ctx context.Context, s *store.Store, w *stream.Writer, r *layerResult, doubtful bool) (id fsverity.Digest, objects int, err error) {
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
	if doubtful {
		if err := markRotten(s, whole.Sum()); err != nil {
			return id, 0, err
		}
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

// putStream makes a stream that fill fills, and its object. One that is there already is read first: whoever comes here has
// found no good entry for it.
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
	if err := markRotten(s, o.Sum()); err != nil {
		return id, err
	}
	id, _, err = o.Commit()
	return id, err
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

// setName points the tag at the manifest, and remembers what an image index stood for.
func (im *importer) setName() error {
	if i := im.img.IndexDigest; i != "" {
		if err := im.s.SetNote(notesIndexes, indexNote(i, im.Platform), im.img.Descriptor.Digest.String()); err != nil {
			return err
		}
	}
	return setName(im.s, im.Name, manifestStanding(im.img.Descriptor.Digest, im.Rules, im.report.Image))
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
