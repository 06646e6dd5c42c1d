package index

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// A layer's blob may be kept as it was fetched, compressed, so that the image can be pushed with the manifest that it has: the
// blob is one object, and a stream of its own that refers to nothing else. The manifest's stream has a named ref to that
// stream, by the name of its entry, so that a blob lives as long as a manifest that it was kept for. The config has none: other
// composefs tools take every ref of a config for a layer, and of a manifest only those that they know.
//
// A layer that is not compressed needs none of that, since its tar is its blob.

// BlobEntry is the name of the entry of a blob that is kept, and of a manifest's reference to its stream.
func BlobEntry(d digest.Digest) string { return blobPrefix + d.String() }

// CutBlobEntry is the digest in such a name; false: it is none.
func CutBlobEntry(name string) (digest.Digest, bool) { return cutDigest(name, blobPrefix) }

// BlobCounts counts the blobs that are kept of an image: all, those that were not there before, and the bytes of these.
type BlobCounts struct {
	Total    int   `json:"total"`
	New      int   `json:"new"`
	BytesNew int64 `json:"bytes_new"`
}

// keptBlob is a blob to be kept by an import.
type keptBlob struct {
	layer    *importedLayer
	desc     ocispec.Descriptor
	known    bool            // the manifest that the store has refers to it
	id       fsverity.Digest // of its stream; zero: it is not there yet
	replaces bool            // an entry of it leads to what is damaged
	isNew    bool
}

// planBlobs finds out which blobs are to be kept, and which of them are there: those that the manifest refers to already, and
// with KeepBlobs all.
func (im *importer) planBlobs(ctx context.Context) error {
	if im.s == nil {
		return nil
	}
	im.blobs = nil
	_, refs, err := entryRefs(im.s, manifestEntry(im.img.Descriptor.Digest))
	if err != nil && !isDamage(err) {
		return err
	}
	for _, l := range im.img.Layers {
		d := l.Descriptor.Digest
		if d == digest.Digest(l.DiffID) || im.blobOf(d) != nil {
			continue
		}
		_, known := refNamed(refs, BlobEntry(d))
		if !known && !im.KeepBlobs {
			continue
		}
		n := slices.IndexFunc(im.layers, func(k *importedLayer) bool { return k.DiffID == l.DiffID })
		b := &keptBlob{layer: im.layers[n], desc: l.Descriptor, known: known}
		if err := im.findBlob(ctx, b); err != nil {
			return err
		}
		im.blobs = append(im.blobs, b)
	}
	return nil
}

func (im *importer) blobOf(d digest.Digest) *keptBlob {
	for _, b := range im.blobs {
		if b.desc.Digest == d {
			return b
		}
	}
	return nil
}

// findBlob looks whether the store has a blob. One that was kept for another image, or that may be damaged, is read.
func (im *importer) findBlob(ctx context.Context, b *keptBlob) error {
	id, err := im.s.Entry(store.Streams, BlobEntry(b.desc.Digest))
	if err != nil {
		if !isDamage(err) {
			return err
		}
		b.replaces = !errors.Is(err, store.ErrNotFound)
		return nil
	}
	good, err := looksKept(im.s, id, b.desc)
	if err == nil && good && (!b.known || im.Verify || im.doubtful) {
		if err = im.readAll(ctx, []fsverity.Digest{id}); err == nil {
			good, err = givesBlob(ctx, im.s, id, b.desc)
		}
	}
	if b.replaces = !good; good {
		b.id = id
	}
	return err
}

// keptObject is the object that a blob is which a stream holds, and nothing else; false: it is no such stream.
func keptObject(s *store.Store, id fsverity.Digest, desc ocispec.Descriptor) (object fsverity.Digest, ok bool) {
	l, err := openLayer(s, id)
	if err != nil {
		return object, false
	}
	defer l.Close()
	object = firstObject(l.Stream)
	return object, l.NumObjects() == 1 && l.Size() == desc.Size && !object.IsZero()
}

// looksKept tells whether a stream gives a blob, by all that shows without reading it.
func looksKept(s *store.Store, id fsverity.Digest, desc ocispec.Descriptor) (bool, error) {
	if whole, err := s.LooksWhole(id, -1); !whole || err != nil {
		return false, err
	}
	object, ok := keptObject(s, id, desc)
	if !ok {
		return false, nil
	}
	return s.LooksWhole(object, desc.Size)
}

// givesBlob reads a blob that is kept. If it is not right its object is noted as damaged where it is.
func givesBlob(ctx context.Context, s *store.Store, id fsverity.Digest, desc ocispec.Descriptor) (bool, error) {
	object, ok := keptObject(s, id, desc)
	if !ok {
		return false, nil
	}
	if bad, err := s.IsBad(id); bad || err != nil {
		return false, err
	}
	got, err := StoredDiffID(ctx, s, id)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil && digest.Digest(got) == desc.Digest {
		return true, nil
	}
	if err != nil && !isDamage(err) {
		return false, err
	}
	return false, markRotten(s, object)
}

// openKept opens a blob that is kept as a file.
func openKept(s *store.Store, id fsverity.Digest, desc ocispec.Descriptor) (*os.File, error) {
	object, ok := keptObject(s, id, desc)
	if !ok {
		return nil, fmt.Errorf("stream %s does not hold blob %s", id, desc.Digest)
	}
	return s.OpenObject(object)
}

// storeBlob makes a stream of a blob that was written, whose digest is the one that it should have. What the store has of it
// already is read before it is taken for good if doubtful.
func storeBlob(s *store.Store, o *store.ObjectWriter, doubtful bool) (id fsverity.Digest, isNew bool, err error) {
	size := o.Size()
	if doubtful {
		if err := markLost(s, o.Sum()); err != nil {
			return id, false, err
		}
	}
	object, isNew, err := o.Commit()
	if err != nil {
		return id, false, err
	}
	id, err = putDocumentStream(s, stream.OCIBlob, object, size, nil)
	return id, isNew, err
}

// took stores a blob that has passed while its layer was read.
func (im *importer) took(b *keptBlob, o *store.ObjectWriter) (err error) {
	b.id, b.isNew, err = storeBlob(im.s, o, b.replaces || im.doubtful)
	if err != nil {
		return fmt.Errorf("keep blob: %w", err)
	}
	return nil
}

// fetchBlobs fetches what is to be kept and was not read with its layer, since the store has that.
func (im *importer) fetchBlobs(ctx context.Context) error {
	for _, b := range im.blobs {
		if !b.id.IsZero() {
			continue
		}
		n, err := im.fetchBlob(ctx, b)
		b.layer.refetched += n
		if err != nil {
			err = fmt.Errorf("blob %s of %s, which is to be kept: %w", b.desc.Digest, im.src, err)
			if b.known && ctx.Err() == nil {
				err = &HealError{err}
			}
			return err
		}
	}
	return nil
}

func (im *importer) fetchBlob(ctx context.Context, b *keptBlob) (int64, error) {
	tell := im.Progress.Start(Reading, oci.Layer{Descriptor: b.desc, DiffID: b.layer.DiffID})
	o, n, err := fetchObject(ctx, im.s, im.src, b.desc, tell)
	if err != nil {
		return n, err
	}
	defer o.Abort()
	return n, im.took(b, o)
}

// fetchObject fetches a blob into a new object, once it is sure that it is the right one. n is how much was read.
func fetchObject(ctx context.Context, s *store.Store, src oci.Source, desc ocispec.Descriptor, tell func(int64)) (o *store.ObjectWriter, n int64, err error) {
	err = readBlob(ctx, src, desc, func(blob io.Reader, _ func()) error {
		if o, err = s.NewObject(); err != nil {
			return err
		}
		r := &blobReader{r: blob, hash: sha256.New(), size: desc.Size, tell: tell}
		_, err := io.CopyBuffer(struct{ io.Writer }{o}, r, make([]byte, chunkBytes))
		if n += r.n; err == nil && r.digest() != desc.Digest {
			err = &oci.DigestError{What: "blob", Want: desc.Digest, Got: r.digest()}
		}
		if err != nil {
			o.Abort()
		}
		return err
	})
	if err != nil {
		return nil, n, err
	}
	if tell != nil {
		tell(0)
	}
	return o, n, nil
}

// nameBlobs makes the entries of what is kept, whose objects are durable.
func (im *importer) nameBlobs(ctx context.Context) error {
	for _, b := range im.blobs {
		if b.id.IsZero() {
			continue
		}
		id, err := im.s.Link(store.Streams, BlobEntry(b.desc.Digest), b.id)
		if err != nil {
			if !isDamage(err) {
				return err
			}
			b.replaces = true
		}
		if err == nil && id == b.id {
			continue
		}
		unlock, err := im.s.LockEntries(ctx)
		if err != nil {
			return err
		}
		b.id, err = moveBlob(ctx, im.s, b.desc, b.id)
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// followBlobs takes the streams that the blobs' entries lead to, and tells whether one is another, as followLayers does.
func (im *importer) followBlobs(ctx context.Context) (moved bool, err error) {
	for _, b := range im.blobs {
		id, err := moveBlob(ctx, im.s, b.desc, b.id)
		if err != nil {
			return moved, err
		}
		moved, b.id = moved || id != b.id, id
	}
	return moved, nil
}

// moveBlob makes id the stream of a blob that is kept: that of its entry, and of all manifests that refer to the blob. If the
// entry leads to another one that is good, that is made to be it instead. As moveLayer it is called under store.LockEntries,
// once all that id refers to is durable, and returns the stream that it is.
func moveBlob(ctx context.Context, s *store.Store, desc ocispec.Descriptor, id fsverity.Digest) (fsverity.Digest, error) {
	entry := BlobEntry(desc.Digest)
	have, err := s.Entry(store.Streams, entry)
	if err == nil && have == id {
		return id, nil
	}
	if err == nil {
		good, err := givesBlob(ctx, s, have, desc)
		if err != nil {
			return id, err
		}
		if good {
			return have, s.Bury(store.Streams, id)
		}
	}
	if err := s.Relink(store.Streams, entry, id); err != nil {
		return id, err
	}
	return id, renameBlob(s, entry, id)
}

// renameBlob rewrites the manifests that refer to another stream of a blob.
func renameBlob(s *store.Store, entry string, id fsverity.Digest) error {
	r := &rewriting{s: s, want: map[string]fsverity.Digest{entry: id}}
	manifests, err := r.documents(manifestEntry(""))
	if err != nil {
		return err
	}
	if err := r.manifests(manifests); err != nil {
		return err
	}
	return r.name()
}

// blobRefs are a manifest's references to what is kept, in the order of its layers.
func (im *importer) blobRefs() []stream.NamedRef {
	refs := make([]stream.NamedRef, len(im.blobs))
	for i, b := range im.blobs {
		refs[i] = stream.NamedRef{Name: BlobEntry(b.desc.Digest), ID: b.id}
	}
	return refs
}

func (im *importer) countBlobs() {
	for _, b := range im.blobs {
		c := &im.report.Blobs
		c.Total++
		switch {
		case b.isNew && b.known: // it was announced before
			im.report.Healed.Objects++
		case b.replaces && b.known:
			im.report.Healed.Streams++
		case b.isNew:
			c.New++
			c.BytesNew += b.desc.Size
		}
	}
}

// storedBlobRefs are references to the blobs of a manifest's layers that the store has entries of.
func storedBlobRefs(s *store.Store, layers []ocispec.Descriptor) (refs []stream.NamedRef) {
	for _, l := range layers {
		if oci.CheckDescriptor(l) != nil {
			continue
		}
		id, err := s.Entry(store.Streams, BlobEntry(l.Digest))
		if err != nil {
			continue
		}
		if good, err := looksKept(s, id, l); err != nil || !good {
			continue
		}
		if ref := (stream.NamedRef{Name: BlobEntry(l.Digest), ID: id}); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// RestoreBlob fetches a blob anew that is kept, and of which the stream or its object is damaged or missing. A source that does
// not give the very blob changes nothing. All is durable in the end.
func RestoreBlob(ctx context.Context, s *store.Store, src oci.Source, desc ocispec.Descriptor, o HealOptions) error {
	if err := restoreBlob(ctx, s, src, desc, o.withDefaults()); err != nil {
		return fmt.Errorf("restore blob %s from %s: %w", desc.Digest, src, err)
	}
	return nil
}

func restoreBlob(ctx context.Context, s *store.Store, src oci.Source, desc ocispec.Descriptor, o HealOptions) error {
	if err := oci.CheckDescriptor(desc); err != nil {
		return err
	}
	if id, err := s.Entry(store.Streams, BlobEntry(desc.Digest)); err == nil {
		if err := markRotten(s, id); err != nil { // it is replaced then if it comes out the same
			return err
		}
	}
	object, _, err := fetchObject(ctx, s, src, desc, o.Progress.Start(Reading, oci.Layer{Descriptor: desc}))
	if err != nil {
		return err
	}
	defer object.Abort()
	id, _, err := storeBlob(s, object, true)
	if err != nil {
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
	if _, err := moveBlob(ctx, s, desc, id); err != nil {
		return err
	}
	return s.Sync()
}
