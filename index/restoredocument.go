package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// RestoreDocument makes the stream of a config, manifest or image index anew, or the JSON that it holds, and its entry. find gives
// the document of a digest where the store's own stream doesn't: from a source, or DocumentInObjects. What it refers to has to be
// there: layers by their entries, of a manifest the config by its entry, and of an image index all that it lists. References of a
// stream that can still be read are kept; else those to images are found by making them, with w. What names a config or manifest
// that gets another stream is rewritten. All is durable in the end.
func RestoreDocument(ctx context.Context, s *store.Store, entry string, find func(digest.Digest) ([]byte, error), w ImageWriter) error {
	if err := restoreDocument(ctx, s, entry, find, w); err != nil {
		return fmt.Errorf("restore %s: %w", entry, err)
	}
	return nil
}

func restoreDocument(ctx context.Context, s *store.Store, entry string, find func(digest.Digest) ([]byte, error), w ImageWriter) error {
	r := &documentRestoring{s: s, entry: entry, image: w}
	var ok bool
	if r.digest, ok = cutDigest(entry, configEntry("")); ok {
		r.kind = stream.OCIConfig
	} else if r.digest, ok = cutDigest(entry, manifestEntry("")); ok {
		r.kind = stream.OCIManifest
	} else if r.digest, ok = cutDigest(entry, indexPrefix); ok {
		r.kind = stream.OCIIndex
	} else {
		return errors.New("that is no config's entry, no manifest's and no image index's")
	}
	// What find asks may take its time, and nobody is to wait for that. The document is what its digest says whatever
	// changes meanwhile; what is to refer to what is read again.
	if err := r.readOld(); err != nil {
		return err
	}
	if err := r.findJSON(find); err != nil {
		return err
	}
	unlock, err := s.LockEntries(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r.linked, r.old = fsverity.Digest{}, nil
	if err := r.readOld(); err != nil {
		return err
	}
	if err := r.findRefs(ctx); err != nil {
		return err
	}
	return r.write()
}

func cutDigest(entry, prefix string) (digest.Digest, bool) {
	d, ok := strings.CutPrefix(entry, prefix)
	return digest.Digest(d), ok && oci.CheckDigest(digest.Digest(d)) == nil
}

// documentRestoring is the work on one document.
type documentRestoring struct {
	s      *store.Store
	entry  string
	digest digest.Digest
	kind   stream.ContentType
	image  ImageWriter

	linked fsverity.Digest // what the entry leads to; zero: nothing
	old    *document       // the first of the streams that are named for it which can be read; nil: none
	raw    []byte
	refs   []stream.NamedRef
}

// readOld reads the streams that are named for the document, and notes which of them are damaged.
func (r *documentRestoring) readOld() error {
	var ids []fsverity.Digest
	if id, err := r.s.Entry(store.Streams, r.entry); err == nil {
		r.linked = id
		ids = append(ids, id)
	}
	if above, name := r.namedIn(); above != "" {
		docs, err := (&rewriting{s: r.s}).documents(above)
		if err != nil {
			return err
		}
		ids = append(ids, namedBy(docs, name)...)
	}
	for _, id := range ids {
		refs, err := readOld(r.s, id)
		about := false
		if err == nil {
			about, err = r.isAbout(id)
		}
		if err != nil && !isDamage(err) {
			return err
		}
		if err == nil && about && r.old == nil {
			r.old = &document{id, refs}
		}
	}
	return nil
}

// namedIn is where documents are that may refer to this one, by their entries, and the name by which they do.
func (r *documentRestoring) namedIn() (prefix, name string) {
	switch r.kind {
	case stream.OCIConfig:
		return manifestPrefix, stream.ConfigPrefix + r.digest.String()
	case stream.OCIManifest:
		return indexPrefix, r.entry
	}
	return "", ""
}

// isAbout tells whether a stream is the document's, as far as can be told: an entry may lead to that of another one.
func (r *documentRestoring) isAbout(id fsverity.Digest) (bool, error) {
	l, err := openLayer(r.s, id)
	if err != nil {
		return false, err
	}
	defer l.Close()
	if l.Type() != r.kind {
		return false, nil
	}
	raw, err := readDocument(r.s, id)
	switch {
	case err == nil:
		return digest.FromBytes(raw) == r.digest, nil
	case isDamage(err):
		return true, nil // what it refers to can still be read
	}
	return false, err
}

// findJSON takes the document from the old stream, or from where find has it.
func (r *documentRestoring) findJSON(find func(digest.Digest) ([]byte, error)) error {
	if r.old != nil {
		raw, err := readDocument(r.s, r.old.id)
		if err == nil && digest.FromBytes(raw) == r.digest {
			r.raw = raw
			return nil
		}
		if err != nil && !isDamage(err) {
			return err
		}
	}
	raw, err := find(r.digest)
	if err != nil {
		return err
	}
	if got := digest.FromBytes(raw); got != r.digest {
		return &oci.DigestError{What: "document", Want: r.digest, Got: got}
	}
	r.raw = raw
	return nil
}

// findRefs finds what the document has to refer to.
func (r *documentRestoring) findRefs(ctx context.Context) error {
	var old []stream.NamedRef
	if r.old != nil {
		old = r.old.refs
	}
	var err error
	switch r.kind {
	case stream.OCIConfig:
		r.refs, err = r.configRefs(ctx, old)
	case stream.OCIManifest:
		r.refs, err = r.manifestRefs()
	default:
		r.refs, err = r.indexRefs()
	}
	if err == nil {
		r.refs = mergeRefs(old, r.refs)
	}
	return err
}

func (r *documentRestoring) configRefs(ctx context.Context, old []stream.NamedRef) ([]stream.NamedRef, error) {
	c, err := oci.ParseConfig(r.raw)
	if err != nil {
		return nil, err
	}
	var refs []stream.NamedRef
	var layers []StoredLayer
	for _, d := range c.DiffIDs {
		id, err := r.layerStream(ctx, oci.DiffID(d), old)
		if err != nil {
			return nil, fmt.Errorf("its layer %s has to be restored first: %w", d, err)
		}
		layers = append(layers, StoredLayer{d, id})
		if ref := (stream.NamedRef{Name: d.String(), ID: id}); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	if slices.ContainsFunc(old, func(r stream.NamedRef) bool { return IsImageName(r.Name) }) {
		return refs, nil
	}
	images, err := imageRefs(ctx, r.s, layers, r.image)
	return append(refs, images...), err
}

// layerStream is the stream of a layer that its entry leads to, or else the one that was referred to before: one that is
// known to give the tar back, or found to. An entry may lead astray, as a reference may.
func (r *documentRestoring) layerStream(ctx context.Context, d oci.DiffID, old []stream.NamedRef) (fsverity.Digest, error) {
	id, err := r.s.Entry(store.Streams, LayerEntry(d))
	if err != nil {
		return id, err
	}
	before, had := refNamed(old, d.String())
	if had && before == id {
		return id, nil
	}
	if noted, err := VerifiedStream(r.s, d); err == nil && noted == id {
		return id, nil
	}
	for _, candidate := range []fsverity.Digest{id, before} {
		if candidate.IsZero() {
			continue
		}
		if good, err := givesTar(ctx, r.s, candidate, d); good || err != nil {
			return candidate, err
		}
	}
	return id, fmt.Errorf("stream %s, to which its entry leads, gives back another tar", id)
}

// manifestRefs are the config and what that refers to of layers.
func (r *documentRestoring) manifestRefs() ([]stream.NamedRef, error) {
	doc, err := oci.ParseDocument(r.raw, "")
	if err != nil {
		return nil, err
	}
	if doc.IsIndex() {
		return nil, errors.New("it is an image index, no manifest")
	}
	config := doc.Config.Digest
	id, old, err := entryRefs(r.s, configEntry(config))
	if err != nil {
		return nil, fmt.Errorf("its config has to be restored first: %w", err)
	}
	if err := r.inOrder(id, old); err != nil {
		return nil, err
	}
	refs := []stream.NamedRef{{Name: stream.ConfigPrefix + config.String(), ID: id}}
	for _, o := range old {
		if oci.CheckDigest(digest.Digest(o.Name)) == nil {
			refs = append(refs, o)
		}
	}
	return append(refs, r.keptBlobs(doc.Layers)...), nil
}

// indexRefs are all that the image index lists, as what it is in the store, and the blobs that are kept of what is no image.
func (r *documentRestoring) indexRefs() (refs []stream.NamedRef, err error) {
	doc, err := oci.ParseDocument(r.raw, "")
	if err == nil && !doc.IsIndex() {
		err = oci.ErrNoIndex
	}
	if err != nil {
		return nil, err
	}
	var blobs []stream.NamedRef
	for _, m := range doc.Manifests {
		ref := stream.NamedRef{Name: manifestEntry(m.Digest)}
		if ref.ID, err = r.s.Entry(store.Streams, ref.Name); err != nil {
			ref.Name = BlobEntry(m.Digest)
			if ref.ID, err = r.s.Entry(store.Streams, ref.Name); err != nil {
				return nil, fmt.Errorf("manifest %s, which it lists, has to be restored first: %w", m.Digest, err)
			}
			blobs = append(blobs, r.otherBlobs(ref.ID, m.MediaType)...)
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return mergeRefs(blobs, refs), nil
}

// otherBlobs are references to the blobs that are kept of a manifest which is no image's.
func (r *documentRestoring) otherBlobs(id fsverity.Digest, mediaType string) []stream.NamedRef {
	raw, err := readDocument(r.s, id)
	if err != nil {
		return nil
	}
	doc, err := oci.ParseAttachment(raw, mediaType)
	if err != nil {
		return nil
	}
	return storedBlobRefs(r.s, (&oci.Other{Document: doc}).Blobs())
}

// keptBlobs are references to the blobs that are kept of the manifest: those that it has had, or if that can't be read, all
// that there are.
func (r *documentRestoring) keptBlobs(layers []ocispec.Descriptor) []stream.NamedRef {
	refs := storedBlobRefs(r.s, layers)
	if r.old == nil {
		return refs
	}
	return slices.DeleteFunc(refs, func(ref stream.NamedRef) bool {
		_, had := refNamed(r.old.refs, ref.Name)
		return !had
	})
}

// inOrder sorts references to layers by the order that the config has them in, if that can be read. An import stores them
// so: then the stream comes out as it was, and takes the place of the damaged one.
func (r *documentRestoring) inOrder(config fsverity.Digest, refs []stream.NamedRef) error {
	raw, err := readDocument(r.s, config)
	if err != nil {
		if isDamage(err) {
			return nil
		}
		return err
	}
	c, err := oci.ParseConfig(raw)
	if err != nil {
		return nil
	}
	place := map[string]int{}
	for i, d := range slices.Backward(c.DiffIDs) {
		place[d.String()] = i - len(c.DiffIDs) // others have 0, and come last
	}
	slices.SortStableFunc(refs, func(a, b stream.NamedRef) int { return cmp.Compare(place[a.Name], place[b.Name]) })
	return nil
}

// write stores the document and points its entry, and whatever refers to it, at the stream.
func (r *documentRestoring) write() error {
	object := fsverity.Sum(r.s.Algorithm(), r.raw)
	if err := markRotten(r.s, object); err != nil {
		return err
	}
	if _, err := r.s.PutObject(object, r.raw); err != nil {
		return err
	}
	id, err := r.stream(object)
	if err != nil {
		return err
	}
	if err := r.s.Sync(); err != nil {
		return err
	}
	if id != r.linked {
		if err := r.s.Relink(store.Streams, r.entry, id); err != nil {
			return err
		}
	}
	switch r.kind {
	case stream.OCIConfig:
		err = renameConfig(r.s, r.digest, id, "")
	case stream.OCIManifest:
		err = renameInIndexes(r.s, r.entry, id)
	}
	if err != nil {
		return err
	}
	return r.s.Sync()
}

// stream is the old stream if that has all, else a new one.
func (r *documentRestoring) stream(object fsverity.Digest) (fsverity.Digest, error) {
	if r.old != nil && containsRefs(r.old.refs, r.refs) {
		if holdsDocument(r.s, r.old.id, object, int64(len(r.raw))) {
			return r.old.id, nil
		}
	}
	return putDocumentStream(r.s, r.kind, object, int64(len(r.raw)), r.refs)
}

// holdsDocument tells whether a stream gives back a document, of which the object is there: that one and nothing else, or the
// same bytes inline, as old tools have them.
func holdsDocument(s *store.Store, id, object fsverity.Digest, size int64) bool {
	l, err := openLayer(s, id)
	if err != nil {
		return false
	}
	defer l.Close()
	if l.NumObjects() == 1 {
		return l.Size() == size && firstObject(l.Stream) == object
	}
	raw, err := readDocument(s, id)
	return err == nil && l.NumObjects() == 0 && fsverity.Sum(s.Algorithm(), raw) == object
}

// DocumentInObjects looks for the document of a digest among the objects of a store that are small enough and begin as one
// does; store.ErrNotFound. It reads all of those.
func DocumentInObjects(ctx context.Context, s *store.Store, d digest.Digest) ([]byte, error) {
	for o, err := range s.Objects() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || o.Size == 0 || o.Size > oci.MaxManifestSize {
			continue
		}
		if b := readJSON(s, o); b != nil && digest.FromBytes(b) == d {
			return b, nil
		}
	}
	return nil, fmt.Errorf("document %s: %w", d, store.ErrNotFound)
}

// readJSON reads an object that begins with a brace; nil: it does not, or can't be read.
func readJSON(s *store.Store, o store.ObjectInfo) []byte {
	f, err := s.OpenObject(o.Digest)
	if err != nil {
		return nil
	}
	defer f.Close()
	var first [1]byte
	if _, err := f.ReadAt(first[:], 0); err != nil || first[0] != '{' {
		return nil
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, oci.MaxManifestSize))
	if err != nil {
		return nil
	}
	return b
}
