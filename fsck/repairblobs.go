package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// fixBlobs fetches blobs anew that are kept as they were: nothing else in the store gives them back, as compressed bytes depend
// on who has compressed them.
func (f *fixer) fixBlobs(ctx context.Context) error {
	done, holders := map[*streamNode]bool{}, f.holders()
	return f.each(ctx, func(p *Problem) error {
		if d, ok := strings.CutPrefix(p.entry, blobPrefix); ok {
			return f.restoreBlob(ctx, digest.Digest(d))
		}
		for _, n := range f.blobsOf(p, holders) {
			if done[n] {
				continue
			}
			done[n] = true
			if err := f.fixBlob(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}, append(slices.Clone(objectCodes), StreamInvalid, LayerDiffers)...)
}

// blobsOf gives the blobs that a problem is about: by their streams, or by the objects that these refer to.
func (f *fixer) blobsOf(p *Problem, holders map[fsverity.Digest][]*streamNode) []*streamNode {
	if f.bad[p.object] == nil && !p.derived && p.Code != StreamInvalid {
		return nil // it was mended
	}
	nodes := slices.Clone(holders[p.object])
	if n := f.graph.streams[p.object]; n != nil {
		nodes = append(nodes, n)
	}
	return slices.DeleteFunc(nodes, func(n *streamNode) bool {
		_, ok := n.original(blobPrefix)
		return !ok
	})
}

func (f *fixer) fixBlob(ctx context.Context, n *streamNode) error {
	if !f.needed(n) {
		return f.discard(n)
	}
	name, _ := n.original(blobPrefix)
	err := f.restoreBlob(ctx, digest.Digest(name))
	if err == nil {
		f.mended(f.objectsOf(n))
	}
	return err
}

// restoreBlob fetches a blob from the first place that has it.
func (f *fixer) restoreBlob(ctx context.Context, d digest.Digest) error {
	places, problems := f.blobPlaces(ctx, d)
	for _, at := range places {
		f.Progress.Step(fmt.Sprintf("fetch blob %s from %s", d, at.src))
		err := index.RestoreBlob(ctx, f.s, at.src, at.layer.Descriptor, index.HealOptions{})
		if err == nil {
			return nil
		}
		f.halfway = true
		problems = errors.Join(problems, err)
	}
	return fmt.Errorf("nobody has the blob; without it a push compresses the layer anew: %w", problems)
}

// objectsOf are the stream of a blob and what it refers to, as far as they are bad.
func (f *fixer) objectsOf(n *streamNode) []fsverity.Digest {
	bad := []fsverity.Digest{n.id}
	for d := range f.streamsHit()[n] {
		if d != n.id {
			bad = append(bad, d)
		}
	}
	return bad
}

// blobPlaces finds where a blob can be had: in the sources that were given, then where the manifests came from for which it is
// kept. The error says what can't be asked.
func (f *fixer) blobPlaces(ctx context.Context, d digest.Digest) (found []place, problems error) {
	for i := range f.o.Sources {
		img, err := f.opened[i].describe(ctx)
		if err != nil {
			problems = errors.Join(problems, err)
			continue
		}
		for _, l := range img.Layers {
			if l.Descriptor.Digest == d {
				found = append(found, place{f.opened[i].src, l})
			}
		}
	}
	entries := f.graph.entries[store.Streams]
	for _, entry := range slices.Sorted(maps.Keys(entries)) {
		m, ok := strings.CutPrefix(entry, manifestPrefix)
		if !ok {
			continue
		}
		desc, ok := f.blobIn(entries[entry], d)
		if !ok {
			continue
		}
		origin, err := index.ManifestOrigin(f.s, digest.Digest(m))
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("where manifest %s came from is not known: %w", m, err))
			continue
		}
		src := f.source(origin.Repository, digest.Digest(m))
		if src.err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s, where manifest %s came from: %w", origin.Repository, m, src.err))
			continue
		}
		found = append(found, place{src.src, oci.Layer{Descriptor: desc}})
	}
	more, err := f.otherPlaces(d)
	return append(found, more...), errors.Join(problems, err)
}

// otherPlaces finds where a blob can be had that an image index leads to, but no image: in the sources that were given, then where
// the index came from. It may be a manifest.
func (f *fixer) otherPlaces(d digest.Digest) (found []place, problems error) {
	entries := f.graph.entries[store.Streams]
	for _, entry := range slices.Sorted(maps.Keys(entries)) {
		x, ok := strings.CutPrefix(entry, indexPrefix)
		if !ok {
			continue
		}
		desc, listed, ok := f.otherIn(entries[entry], d)
		if !ok {
			continue
		}
		sources := slices.Clone(f.o.Sources)
		origin, err := index.ManifestOrigin(f.s, digest.Digest(x))
		if err == nil {
			src := f.source(origin.Repository, digest.Digest(x))
			if err = src.err; err == nil {
				sources = append(sources, src.src)
			}
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("where image index %s came from: %w", x, err))
		}
		for _, src := range sources {
			if from, ok := src.(oci.DocumentSource); ok && listed {
				src = documentBlobs{from}
			}
			found = append(found, place{src, oci.Layer{Descriptor: desc}})
		}
	}
	return found, problems
}

// documentBlobs gives manifests as blobs.
type documentBlobs struct{ oci.DocumentSource }

// OpenBlob gives a manifest.
func (s documentBlobs) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.Size > oci.MaxManifestSize {
		return nil, fmt.Errorf("%d bytes, too large for a manifest", desc.Size)
	}
	raw, err := s.Document(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

// otherIn finds a blob among the manifests that an image index lists, or among the blobs of those that are no images'.
func (f *fixer) otherIn(x fsverity.Digest, d digest.Digest) (desc ocispec.Descriptor, listed, ok bool) {
	raw, err := index.ReadDocument(f.s, x)
	if err != nil {
		return desc, false, false
	}
	doc, err := oci.ParseDocument(raw, "")
	if err != nil {
		return desc, false, false
	}
	for _, m := range doc.Manifests {
		if m.Digest == d {
			return m, true, true
		}
		if desc, ok := f.blobIn(f.graph.entries[store.Streams][index.BlobEntry(m.Digest)], d); ok {
			return desc, false, true
		}
	}
	return desc, false, false
}

// blobIn finds a blob among those of a manifest that can be read.
func (f *fixer) blobIn(manifest fsverity.Digest, d digest.Digest) (ocispec.Descriptor, bool) {
	raw, err := index.ReadDocument(f.s, manifest)
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	doc, err := oci.ParseAttachment(raw, "")
	if err != nil {
		return ocispec.Descriptor{}, false
	}
	blobs := (&oci.Other{Document: doc}).Blobs()
	at := slices.IndexFunc(blobs, func(l ocispec.Descriptor) bool { return l.Digest == d })
	if at < 0 {
		return ocispec.Descriptor{}, false
	}
	return blobs[at], true
}
