package index

import (
	"bytes"
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

func manifestEntry(d digest.Digest) string { return "oci-manifest-" + d.String() }
func configEntry(d digest.Digest) string   { return "oci-config-" + d.String() }

// documents are an image's config and manifest as streams, stored but not named.
type documents struct {
	config, manifest     digest.Digest
	configID, manifestID fsverity.Digest
}

// putDocuments stores config and manifest, with references to the layers' streams and the image. A config or manifest that
// the store has already keeps its stream if that has all of them.
func (im *importer) putDocuments() (*documents, error) {
	d := &documents{config: im.img.ConfigDescriptor.Digest, manifest: im.img.Descriptor.Digest}
	refs := make([]stream.NamedRef, 0, len(im.layers)+1)
	for _, l := range im.layers {
		refs = append(refs, stream.NamedRef{Name: l.DiffID.String(), ID: l.id})
	}
	// The manifest names its config first, then the layers; the config the layers, then images.
	image := stream.NamedRef{Name: imageKey(im.Rules), ID: im.report.Image}
	var err error
	d.configID, err = putDocument(im.s, stream.OCIConfig, configEntry(d.config), im.img.Config, append(slices.Clone(refs), image))
	if err != nil {
		return nil, fmt.Errorf("store config %s: %w", d.config, err)
	}
	config := stream.NamedRef{Name: stream.ConfigPrefix + d.config.String(), ID: d.configID}
	d.manifestID, err = putDocument(im.s, stream.OCIManifest, manifestEntry(d.manifest), im.img.Manifest,
		append([]stream.NamedRef{config}, refs...))
	if err != nil {
		return nil, fmt.Errorf("store manifest %s: %w", d.manifest, err)
	}
	return d, nil
}

// putDocument stores a JSON document as a stream. If entry leads to one already, what that refers to is kept.
func putDocument(s *store.Store, t stream.ContentType, entry string, raw []byte, refs []stream.NamedRef) (fsverity.Digest, error) {
	id, old, err := entryRefs(s, entry)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return id, err
	case containsRefs(old, refs):
		return id, nil
	default:
		refs = mergeRefs(old, refs)
	}
	object := fsverity.Sum(s.Algorithm(), raw)
	if _, err := s.PutObject(object, raw); err != nil {
		return id, err
	}
	return putDocumentStream(s, t, object, int64(len(raw)), refs)
}

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

// name makes the entries. A config that gets another stream takes all manifests along that name it: they refer to the
// stream, not to the entry, and gc would lose what only the old one leads to.
func (d *documents) name(s *store.Store) error {
	got, err := s.Link(store.Streams, configEntry(d.config), d.configID)
	if err != nil {
		return err
	}
	if got != d.configID {
		if err := s.Relink(store.Streams, configEntry(d.config), d.configID); err != nil {
			return err
		}
		if err := renameConfig(s, d); err != nil {
			return err
		}
	}
	got, err = s.Link(store.Streams, manifestEntry(d.manifest), d.manifestID)
	if err == nil && got != d.manifestID {
		err = s.Relink(store.Streams, manifestEntry(d.manifest), d.manifestID)
	}
	return err
}

// renameConfig rewrites the other manifests that name a config whose stream has changed.
func renameConfig(s *store.Store, d *documents) error {
	r := &rewriting{s: s, want: map[string]fsverity.Digest{stream.ConfigPrefix + d.config.String(): d.configID}}
	manifests, err := r.documents(manifestEntry(""))
	if err != nil {
		return err
	}
	delete(manifests, d.manifest.String())
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
