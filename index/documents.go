package index

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

func manifestEntry(d digest.Digest) string { return manifestPrefix + d.String() }
func configEntry(d digest.Digest) string   { return "oci-config-" + d.String() }

// documents are an image's config and manifest as streams, stored but not named.
type documents struct {
	config, manifest documentPut
}

// documentPut is a config or manifest that was stored.
type documentPut struct {
	entry   string
	id, old fsverity.Digest // its stream, and what the entry led to before; zero: to nothing
	healed  HealCounts
}

// putDocuments stores config and manifest, with references to the layers' streams and the image. A config or manifest that
// the store has already keeps its stream if that has all of them.
func (im *importer) putDocuments() (*documents, error) {
	config, manifest := im.img.ConfigDescriptor.Digest, im.img.Descriptor.Digest
	refs := make([]stream.NamedRef, 0, len(im.layers)+1)
	for _, l := range im.layers {
		refs = append(refs, stream.NamedRef{Name: l.DiffID.String(), ID: l.id})
	}
	// The manifest names its config first, then the layers, then blobs that are kept; the config the layers, then images.
	image := stream.NamedRef{Name: imageKey(im.Rules), ID: im.report.Image}
	d := &documents{}
	var err error
	d.config, err = putDocument(im.s, stream.OCIConfig, configEntry(config), im.img.Config, append(slices.Clone(refs), image))
	if err != nil {
		return nil, fmt.Errorf("store config %s: %w", config, err)
	}
	d.manifest, err = putDocument(im.s, stream.OCIManifest, manifestEntry(manifest), im.img.Manifest,
		slices.Concat([]stream.NamedRef{{Name: stream.ConfigPrefix + config.String(), ID: d.config.id}}, refs, im.blobRefs()))
	if err != nil {
		return nil, fmt.Errorf("store manifest %s: %w", manifest, err)
	}
	return d, nil
}

// putDocument stores a JSON document as a stream. If entry leads to one already, what that refers to is kept, unless it is
// damaged; and if it has all, it stays.
func putDocument(s *store.Store, t stream.ContentType, entry string, raw []byte, refs []stream.NamedRef) (p documentPut, err error) {
	p.entry = entry
	if p.old, err = linkedTo(s, entry); err != nil {
		return p, err
	}
	object := fsverity.Sum(s.Algorithm(), raw)
	if err := markRotten(s, object); err != nil {
		return p, err
	}
	isNew, err := s.PutObject(object, raw)
	if err != nil {
		return p, err
	}
	if !p.old.IsZero() {
		if isNew {
			p.healed.Objects++
		}
		old, err := readOld(s, p.old)
		switch {
		case err != nil && !isDamage(err):
			return p, err
		case err != nil:
			p.healed.Streams++
		case containsRefs(old, refs) && holdsDocument(s, p.old, object, int64(len(raw))):
			p.id = p.old
			return p, nil
		default:
			refs = mergeRefs(old, refs)
		}
	}
	p.id, err = putDocumentStream(s, t, object, int64(len(raw)), refs)
	return p, err
}

// linkedTo is what an entry leads to; zero if there is none, or it is none.
func linkedTo(s *store.Store, entry string) (fsverity.Digest, error) {
	id, err := s.Entry(store.Streams, entry)
	if err != nil && isDamage(err) {
		return fsverity.Digest{}, nil
	}
	return id, err
}

// readOld reads the references of a stream, which is small, once it is sure that it is what its name says.
func readOld(s *store.Store, id fsverity.Digest) ([]stream.NamedRef, error) {
	if err := markRotten(s, id); err != nil {
		return nil, err
	}
	if bad, err := s.IsBad(id); bad || err != nil {
		return nil, cmp.Or(err, errDamaged)
	}
	return streamRefs(s, id)
}

var errDamaged = errors.New("it is noted as damaged")

func putDocumentStream(s *store.Store, t stream.ContentType, object fsverity.Digest, size int64, refs []stream.NamedRef) (fsverity.Digest, error) {
	return putStream(s, t, func(w *stream.Writer) error {
		for _, r := range refs {
			if err := w.NamedRef(r.Name, r.ID); err != nil {
				return err
			}
		}
		return w.External(object, size)
	})
}

// entryRefs is the stream that an entry leads to, and its named refs.
func entryRefs(s *store.Store, entry string) (fsverity.Digest, []stream.NamedRef, error) {
	id, err := s.Entry(store.Streams, entry)
	if err != nil {
		return id, nil, err
	}
	refs, err := streamRefs(s, id)
	return id, refs, err
}

func streamRefs(s *store.Store, id fsverity.Digest) ([]stream.NamedRef, error) {
	f, err := s.OpenObject(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := openStream(f)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", id, err)
	}
	return st.NamedRefs()
}

func containsRefs(have, want []stream.NamedRef) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// mergeRefs takes what is new and of the old all that has other names: references of kinds that we don't know included.
// A manifest names one config.
func mergeRefs(old, refs []stream.NamedRef) []stream.NamedRef {
	for _, o := range old {
		taken := slices.ContainsFunc(refs, func(r stream.NamedRef) bool {
			return r.Name == o.Name || strings.HasPrefix(r.Name, stream.ConfigPrefix) && strings.HasPrefix(o.Name, stream.ConfigPrefix)
		})
		if !taken {
			refs = append(refs, o)
		}
	}
	return refs
}

// stale tells whether an entry has changed since the documents were stored: then they have to be stored again, with what
// that leads to now.
func (d *documents) stale(s *store.Store) (bool, error) {
	for _, p := range []documentPut{d.config, d.manifest} {
		if id, err := linkedTo(s, p.entry); err != nil || id != p.old {
			return true, err
		}
	}
	return false, nil
}

// name makes the entries. A config that gets another stream takes all manifests along that name it, and a manifest all image
// indexes: they refer to the stream, not to the entry, and gc would lose what only the old one leads to. doubtful: they may do so
// without an entry.
func (d *documents) name(s *store.Store, img *oci.Image, doubtful bool) error {
	moved := d.config.id != d.config.old
	if moved {
		if err := s.Relink(store.Streams, d.config.entry, d.config.id); err != nil {
			return err
		}
	}
	if moved && !d.config.old.IsZero() || doubtful {
		if err := renameConfig(s, img.ConfigDescriptor.Digest, d.config.id, img.Descriptor.Digest); err != nil {
			return err
		}
	}
	moved = d.manifest.id != d.manifest.old
	if moved {
		if err := s.Relink(store.Streams, d.manifest.entry, d.manifest.id); err != nil {
			return err
		}
	}
	if moved && !d.manifest.old.IsZero() || doubtful {
		return renameInIndexes(s, d.manifest.entry, d.manifest.id)
	}
	return nil
}

// renameInIndexes rewrites the image indexes that name what an entry leads to, whose stream has changed.
func renameInIndexes(s *store.Store, entry string, id fsverity.Digest) error {
	return (&rewriting{s: s, want: map[string]fsverity.Digest{entry: id}}).name()
}

// renameConfig rewrites the manifests, but for one, that name a config whose stream has changed.
func renameConfig(s *store.Store, config digest.Digest, id fsverity.Digest, but digest.Digest) error {
	r := &rewriting{s: s, want: map[string]fsverity.Digest{stream.ConfigPrefix + config.String(): id}}
	manifests, err := r.documents(manifestEntry(""))
	if err != nil {
		return err
	}
	delete(manifests, but.String())
	if err := r.manifests(manifests); err != nil {
		return err
	}
	return r.name()
}

// readDocument reads the JSON that a config or manifest stream holds.
func readDocument(s *store.Store, id fsverity.Digest) ([]byte, error) {
	f, err := s.OpenObject(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := openStream(f)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", id, err)
	}
	if st.Size() > oci.MaxManifestSize {
		return nil, fmt.Errorf("stream %s: %d bytes, too large for a document", id, st.Size())
	}
	w := &limitedBuffer{left: oci.MaxManifestSize}
	if _, err := st.Copy(w, openObject(s)); err != nil {
		return nil, fmt.Errorf("stream %s: %w", id, err)
	}
	return w.Bytes(), nil
}

// limitedBuffer holds a document, whose size is a claim until it is read.
type limitedBuffer struct {
	bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("more than %d bytes, too large for a document", oci.MaxManifestSize)
	}
	return b.Buffer.Write(p)
}
