package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// rewriting gives configs and manifests other streams to refer to. They refer to streams by ID, not by entry, so that one
// whose ID changes takes all along that name it: a collection of garbage would lose what only the old one leads to, another
// tool's at once. It is done under store.LockEntries, and once all is durable that the new streams refer to.
type rewriting struct {
	s *store.Store
	// want is what every reference of a name has to lead to.
	want map[string]fsverity.Digest
	plan []relinking
}

type relinking struct {
	entry string
	id    fsverity.Digest
}

// document is a config's or manifest's stream.
type document struct {
	id   fsverity.Digest
	refs []stream.NamedRef
}

// documents reads the streams of all entries that begin with prefix, by the rest of their names. They are hashed: damage to
// one would get a digest that is right. Those that are damaged are left out: they are rewritten when they are restored.
func (r *rewriting) documents(prefix string) (map[string]document, error) {
	docs := map[string]document{}
	for e, err := range r.s.Entries(store.Streams) {
		name, ok := strings.CutPrefix(e.Name, prefix)
		if !ok {
			continue
		}
		d := document{id: e.Digest}
		if err == nil {
			d.refs, err = readOld(r.s, e.Digest)
		}
		switch {
		case err == nil:
			docs[name] = d
		case !isDamage(err):
			return nil, err
		}
	}
	return docs, nil
}

// run rewrites all that refers to something else than is wanted, and names it.
func (r *rewriting) run() error {
	manifests, err := r.documents(manifestEntry(""))
	if err != nil {
		return err
	}
	configs, err := r.documents(configEntry(""))
	if err != nil {
		return err
	}
	if err := r.configs(configs, manifests); err != nil {
		return err
	}
	if err := r.manifests(manifests); err != nil {
		return err
	}
	return r.name()
}

// configs rewrites the configs. A manifest may refer to a stream of its config that is not the entry's any more: what only
// that one refers to goes over to the new one.
func (r *rewriting) configs(configs, manifests map[string]document) error {
	for _, config := range sortedKeys(configs) {
		d := configs[config]
		name := stream.ConfigPrefix + config
		refs, stale := r.fix(d.refs)
		for _, id := range namedBy(manifests, name) {
			if id == d.id {
				continue
			}
			other, err := readOld(r.s, id)
			if err != nil {
				if !isDamage(err) {
					return err
				}
				stale = true
				continue
			}
			other, otherStale := r.fix(other)
			refs, stale = mergeRefs(other, refs), stale || otherStale
		}
		if !stale {
			continue
		}
		id := d.id
		if !slices.Equal(refs, d.refs) {
			var err error
			if id, err = restream(r.s, d.id, refs); err != nil {
				return fmt.Errorf("rewrite %s: %w", configEntry("")+config, err)
			}
		}
		r.want[name] = id
		r.relink(configEntry("")+config, d.id, id)
	}
	return nil
}

// namedBy lists the streams that documents refer to by a name, each once.
func namedBy(docs map[string]document, name string) (ids []fsverity.Digest) {
	for _, key := range sortedKeys(docs) {
		if id, ok := refNamed(docs[key].refs, name); ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (r *rewriting) manifests(manifests map[string]document) error {
	for _, manifest := range sortedKeys(manifests) {
		d := manifests[manifest]
		refs, stale := r.fix(d.refs)
		if !stale {
			continue
		}
		id, err := restream(r.s, d.id, refs)
		if err != nil {
			return fmt.Errorf("rewrite %s: %w", manifestPrefix+manifest, err)
		}
		r.relink(manifestPrefix+manifest, d.id, id)
		r.want[manifestPrefix+manifest] = id
	}
	return nil
}

// indexes rewrites the image indexes that refer to a stream which has become another.
func (r *rewriting) indexes() error {
	indexes, err := r.documents(indexPrefix)
	if err != nil {
		return err
	}
	for _, index := range sortedKeys(indexes) {
		d := indexes[index]
		refs, stale := r.fix(d.refs)
		if !stale {
			continue
		}
		id, err := restream(r.s, d.id, refs)
		if err != nil {
			return fmt.Errorf("rewrite %s: %w", indexPrefix+index, err)
		}
		r.relink(indexPrefix+index, d.id, id)
	}
	return nil
}

func (r *rewriting) relink(entry string, old, id fsverity.Digest) {
	if id != old {
		r.plan = append(r.plan, relinking{entry, id})
	}
}

// fix is refs as they have to be, and whether that is another list.
func (r *rewriting) fix(refs []stream.NamedRef) (fixed []stream.NamedRef, changed bool) {
	fixed = slices.Clone(refs)
	for i, ref := range refs {
		if id, ok := r.want[ref.Name]; ok && id != ref.ID {
			fixed[i].ID, changed = id, true
		}
	}
	return fixed, changed
}

// name points the entries at the new streams, which are made durable before, and takes along the image indexes.
func (r *rewriting) name() error {
	if err := r.indexes(); err != nil {
		return err
	}
	if len(r.plan) == 0 {
		return nil
	}
	if err := r.s.Sync(); err != nil {
		return err
	}
	for _, l := range r.plan {
		if err := r.s.Relink(store.Streams, l.entry, l.id); err != nil {
			return err
		}
	}
	return nil
}

// restream is a document's stream once more, with other references to streams. Its JSON is not looked at.
func restream(s *store.Store, id fsverity.Digest, refs []stream.NamedRef) (fsverity.Digest, error) {
	f, err := s.OpenObject(id)
	if err != nil {
		return id, err
	}
	defer f.Close()
	st, err := openStream(f)
	if err != nil {
		return id, fmt.Errorf("stream %s: %w", id, err)
	}
	return putStream(s, st.Type(), func(w *stream.Writer) error {
		for _, r := range refs {
			if err := w.NamedRef(r.Name, r.ID); err != nil {
				return err
			}
		}
		return copyDocument(w, st)
	})
}

// copyDocument writes what a document's stream holds: one object, or inline bytes as old tools have them.
func copyDocument(w *stream.Writer, st *stream.Stream) error {
	if st.Size() > oci.MaxManifestSize {
		return fmt.Errorf("%d bytes, too large for a document", st.Size())
	}
	chunks := st.Chunks()
	defer chunks.Close()
	for {
		c, err := chunks.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && c.Object >= 0 {
			err = w.External(st.Object(c.Object), st.Size()-chunks.InlineTotal())
		} else if err == nil {
			_, err = io.Copy(inlineWriter{w}, chunks)
		}
		if err != nil {
			return err
		}
	}
}

type inlineWriter struct{ w *stream.Writer }

func (w inlineWriter) Write(p []byte) (int, error) { return len(p), w.w.Inline(p) }

// isDamage tells an error in what the store has from one of the process that reads it.
func isDamage(err error) bool {
	for _, own := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.EPERM, unix.EAGAIN} {
		if errors.Is(err, own) {
			return false
		}
	}
	return err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}
