package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// hurt is a store with images that share their lowest layer, and where they came from.
type hurt struct {
	testing.TB
	s       *store.Store
	names   []string
	sources []*memSource
	images  []*oci.Image
	digests []fsverity.Digest
}

// newHurt pulls images. The layer that they share is in the store before, as another encoder wrote it, if foreign is set.
func newHurt(t testing.TB, a fsverity.Algorithm, foreign bool) *hurt {
	t.Helper()
	h := &hurt{TB: t, s: fastStore(t, a)}
	if foreign {
		h.adoptForeign(buildTar(t, hurtText))
	}
	h.pull("first", OCI1, ocitest.Image{Layers: text(t, hurtText, sparseText)})
	h.pull("second", Faithful1, ocitest.Image{Layers: text(t, hurtText, wholeText, goodText)})
	// Another manifest of the same config, and one of its own rule.
	h.pull("third", OCI1, ocitest.Image{Layers: text(t, hurtText, sparseText), EditManifest: func(m *ocispec.Manifest) {
		m.Annotations = map[string]string{"a": "b"}
	}})
	return h
}

func (h *hurt) pull(name string, r Rules, m ocitest.Image) {
	h.Helper()
	m.Compression = []ocitest.Compression{ocitest.Gzip}
	src := newSource(h, m)
	src.name = "test:" + name
	report, err := Import(context.Background(), h.s, src, ImportOptions{Image: writeImage, Name: name, Rules: r})
	must(h, err)
	img, err := src.Image(context.Background())
	must(h, err)
	h.names, h.sources = append(h.names, name), append(h.sources, src)
	h.images, h.digests = append(h.images, img), append(h.digests, report.Image)
}

// adoptForeign puts a layer into the store as another encoder writes it: its objects are in another order.
func (h *hurt) adoptForeign(tar []byte) {
	h.Helper()
	d := oci.DiffID(digest.FromBytes(tar))
	other := fastStore(h, h.s.Algorithm())
	_, img := pullInto(h, other, newSource(h, ocitest.Image{Layers: [][]byte{tar}}))
	l, err := openLayer(other, mustEntry(h, other, LayerEntry(img.Layers[0].DiffID)))
	must(h, err)
	defer l.Close()
	objects := l.ObjectRefs()
	for _, o := range objects {
		b, err := os.ReadFile(objectPath(other, o))
		must(h, err)
		_, err = h.s.PutObject(o, b)
		must(h, err)
	}
	id, err := putStream(h.s, stream.OCILayer, func(w *stream.Writer) error {
		slices.Reverse(objects)
		for _, o := range objects {
			must(h, w.Keep(o))
		}
		chunks := l.Chunks()
		defer chunks.Close()
		for {
			c, err := chunks.Next()
			if err != nil {
				return noEOF(err)
			}
			if c.Object < 0 {
				b := make([]byte, c.Inline)
				for n := 0; n < len(b); {
					m, err := chunks.Read(b[n:])
					must(h, err)
					n += m
				}
				must(h, w.Inline(b))
				continue
			}
			fi, err := os.Stat(objectPath(h.s, l.Object(c.Object)))
			must(h, err)
			must(h, w.External(l.Object(c.Object), fi.Size()))
		}
	})
	must(h, err)
	_, err = h.s.Link(store.Streams, LayerEntry(d), id)
	must(h, err)
}

// layer is the entry of a layer of an image.
func (h *hurt) layer(image, n int) string { return LayerEntry(h.images[image].Layers[n].DiffID) }

func (h *hurt) config(image int) string {
	return configEntry(h.images[image].ConfigDescriptor.Digest)
}

func (h *hurt) manifest(image int) string { return manifestEntry(h.images[image].Descriptor.Digest) }

// imageObjects visits the objects of an image's files.
func (h *hurt) imageObjects(i *Info, visit func(fsverity.Digest) error) error {
	f, err := h.s.OpenObject(i.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := erofs.Open(f, i.ImageBytes)
	if err != nil {
		return err
	}
	for o, err := range m.Objects() {
		if err == nil {
			err = visit(o.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkAll checks that every image is whole: the same image, the same tars, every object what its name says, nothing noted,
// and nothing lost by another tool's collection of garbage.
func (h *hurt) checkAll() {
	h.Helper()
	live := h.foreignLive()
	for n, name := range h.names {
		i, err := Find(h.s, name)
		if err != nil {
			h.Errorf("%s: %v", name, err)
			continue
		}
		if i.Image != h.digests[n] {
			h.Errorf("%s: image %s, want %s", name, i.Image, h.digests[n])
		}
		visit := func(d fsverity.Digest) error {
			checkObjects(h, h.s, d)
			if !live[d] {
				h.Errorf("%s: another tool's gc would lose %s", name, d)
			}
			return nil
		}
		must(h, visitObjects(h.s, i, h.imageObjects, visit))
		must(h, h.imageObjects(i, visit))
		for n, l := range h.images[n].Layers {
			var b bytes.Buffer
			if err := WriteTar(context.Background(), h.s, l.DiffID, &b); err != nil {
				h.Errorf("%s, layer %d: %v", name, n+1, err)
			}
			if id := mustEntry(h, h.s, LayerEntry(l.DiffID)); id != i.Layers[n].Stream {
				h.Errorf("%s, layer %d: its config names stream %s, its entry %s", name, n+1, i.Layers[n].Stream, id)
			}
			if v, err := VerifiedStream(h.s, l.DiffID); err != nil || v != i.Layers[n].Stream {
				h.Errorf("%s, layer %d: %s is noted as verified, %v", name, n+1, v, err)
			}
		}
	}
}

// foreignLive is what composefs-rs' collection of garbage keeps. It finds the streams to read by their entries: what a
// stream that has none refers to is lost. An image keeps its files if it is in images/refs, else the layers do.
func (h *hurt) foreignLive() map[fsverity.Digest]bool {
	h.Helper()
	live, entries, walked := map[fsverity.Digest]bool{}, map[fsverity.Digest]string{}, map[string]bool{}
	for e, err := range h.s.Entries(store.Streams) {
		must(h, err)
		entries[e.Digest] = e.Name
	}
	var walk func(entry string)
	walk = func(entry string) {
		if walked[entry] {
			return
		}
		walked[entry] = true
		l, err := openLayer(h.s, mustEntry(h, h.s, entry))
		must(h, err)
		defer l.Close()
		live[mustEntry(h, h.s, entry)] = true
		for _, o := range l.ObjectRefs() {
			live[o] = true
		}
		refs, err := l.NamedRefs()
		must(h, err)
		for _, r := range refs {
			live[r.ID] = true
			if next, ok := entries[r.ID]; ok {
				walk(next)
			}
		}
	}
	for r, err := range h.s.Refs(store.Streams, "") {
		must(h, err)
		walk(r.Entry)
	}
	for r, err := range h.s.Refs(store.Images, "") {
		must(h, err)
		d, err := fsverity.ParseDigest(r.Entry)
		must(h, err)
		live[d] = true
		must(h, h.imageObjects(&Info{Image: d, ImageBytes: h.size(d)}, func(o fsverity.Digest) error {
			live[o] = true
			return nil
		}))
	}
	return live
}

func (h *hurt) size(d fsverity.Digest) int64 {
	n, err := h.s.ObjectSize(d)
	must(h, err)
	return n
}

// state is all that has a name in the store, with what it leads to.
func (h *hurt) state() string {
	h.Helper()
	var b strings.Builder
	for _, name := range named(h, h.s) {
		to, _ := os.Readlink(filepath.Join(h.s.Dir(), name))
		fmt.Fprintln(&b, name, to)
	}
	for o, err := range h.s.Objects() {
		must(h, err)
		fmt.Fprintln(&b, o.Path, o.Size)
	}
	return b.String()
}

// checkState checks that nothing has changed but that a process at work has left its mark.
func (h *hurt) checkState(what, before string) {
	h.Helper()
	compareStates(h, what, before, h.state())
}

func compareStates(t testing.TB, what, before, after string) {
	t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	differ := func(a, b []string) (list []string) {
		for _, line := range a {
			if !slices.Contains(b, line) && !strings.HasPrefix(line, "flatroot/unclean/") {
				list = append(list, line)
			}
		}
		return list
	}
	gone, new := differ(was, is), differ(is, was)
	if len(gone)+len(new) > 0 {
		t.Errorf("%s: gone %q, new %q", what, gone, new)
	}
}

func (h *hurt) restoreLayer(image, n int) {
	h.Helper()
	must(h, RestoreLayer(context.Background(), h.s, h.sources[image], h.images[image].Layers[n], HealOptions{}))
}

// TestRestoreLayer damages the stream of a layer in every way, of our encoder and of another one, whose ID can't be had
// again. All images that have the layer are whole afterwards, and doing it once more changes nothing.
func TestRestoreLayer(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		for layer := range 2 {
			for n, damage := range damages {
				t.Run(fmt.Sprintf("foreign %t, layer %d, %s", foreign, layer, damage.name), func(t *testing.T) {
					t.Parallel()
					h := newHurt(t, []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}[n%2], foreign)
					before := mustEntry(t, h.s, h.layer(0, layer))
					damage.do(t, objectPath(h.s, before))
					h.restoreLayer(0, layer)
					after := mustEntry(t, h.s, h.layer(0, layer))
					if moved := after != before; moved != (foreign && layer == 0) {
						t.Errorf("the stream was %s and is %s", before, after)
					}
					h.checkAll()
					state := h.state()
					h.restoreLayer(2, layer)
					h.checkState("once more", state)
					h.forgetDamaged()
				})
			}
		}
	}
}

// forgetDamaged removes damaged objects that nothing refers to any more, as gc does, for the store's check in the end.
func (h *hurt) forgetDamaged() {
	h.Helper()
	must(h, h.s.LockExclusive(context.Background(), nil))
	bad, err := h.s.Bad()
	must(h, err)
	live := h.foreignLive()
	for d := range bad {
		if live[d] {
			h.Errorf("%s is noted as damaged, and needed", d)
		}
		if err := h.s.Quarantine(d); errors.Is(err, store.ErrNotFound) {
			must(h, h.s.ClearBad(d))
		} else {
			must(h, err)
		}
	}
	for o, err := range h.s.Objects() {
		must(h, err)
		if c, err := h.s.CheckObject(o.Digest, store.CheckOptions{Read: true}); (err != nil || c.Content != nil) && !live[o.Digest] {
			must(h, h.s.Quarantine(o.Digest))
		}
	}
	must(h, h.s.LockShared())
}

// TestRestoreLayerOfLostFiles has neither stream nor files, nor the entry.
func TestRestoreLayerOfLostFiles(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, true)
	for _, d := range append(layerObjects(t, h.s, h.images[0].Layers[0].DiffID), mustEntry(t, h.s, h.layer(0, 0))) {
		must(t, os.Remove(objectPath(h.s, d)))
	}
	must(t, h.s.RemoveEntry(store.Streams, h.layer(0, 0)))
	h.restoreLayer(1, 0)
	h.checkAll()
}

// TestRestoreLayerKeepsGood has a stream that is good after all: it stays, whatever its source would make of it, and so do
// the documents; those that refer to another one are put right.
func TestRestoreLayerKeepsGood(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, true)
	state := h.state()
	h.restoreLayer(0, 0)
	// There is a trace of the stream that was not needed, and where the layer was found.
	for _, line := range strings.Split(h.state(), "\n") {
		if !strings.Contains(state, line) && !strings.HasPrefix(line, "flatroot/") && !strings.HasPrefix(line, "objects/") {
			t.Errorf("new: %s", line)
		}
	}
	h.checkAll()
	id := h.rewriteConfig(0, fsverity.Sum(h.s.Algorithm(), []byte("gone")))
	must(t, h.s.Relink(store.Streams, h.config(0), id))
	h.restoreLayer(0, 0)
	h.checkAll()
}

// rewriteConfig makes a stream of a config that refers to another stream of its lowest layer.
func (h *hurt) rewriteConfig(image int, layer fsverity.Digest) fsverity.Digest {
	h.Helper()
	id, refs, err := entryRefs(h.s, h.config(image))
	must(h, err)
	for i, r := range refs {
		if r.Name == h.images[image].Layers[0].DiffID.String() {
			refs[i].ID = layer
		}
	}
	id, err = restream(h.s, id, refs)
	must(h, err)
	return id
}

// TestRestoreLayerFromBadSource has sources that don't give the layer: nothing changes, and the error says what is wrong.
func TestRestoreLayerFromBadSource(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, true)
	id := mustEntry(t, h.s, h.layer(0, 0))
	must(t, os.WriteFile(objectPath(h.s, id), []byte("rubbish"), 0o644))
	src, l := h.sources[0], h.images[0].Layers[0]
	good := src.built.Blobs[0].Data
	for name, bad := range map[string]struct {
		blob []byte
		err  string
	}{
		"cut":           {good[:len(good)-20], "the blob ends after"},
		"nonsense":      {[]byte(strings.Repeat("nonsense", len(good)/8+1))[:len(good)], "tar entry 1"},
		"another layer": {append(gzipped(buildTar(t, goodText)), make([]byte, 0)...), "ends after"},
	} {
		state := h.links()
		src.built.Blobs[0].Data = bad.blob
		err := RestoreLayer(context.Background(), h.s, src, l, HealOptions{})
		if !errorIs(err, bad.err) || !errorIs(err, l.DiffID.String()) || !errorIs(err, src.name) {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(objectPath(h.s, id)); err != nil || string(b) != "rubbish" {
			t.Errorf("%s: the damaged stream is %q now, %v", name, b, err)
		}
		compareStates(t, name, state, h.links())
	}
	lie := l
	lie.DiffID = oci.DiffID(digest.FromString("lie"))
	src.built.Blobs[0].Data = good
	if err := RestoreLayer(context.Background(), h.s, src, lie, HealOptions{}); !errorIs(err, "the config's diffID") {
		t.Errorf("another diffID: %v", err)
	}
	h.restoreLayer(0, 0)
	h.checkAll()
	h.forgetDamaged()
}

// links is what has names other than objects and the marks of damage and of work.
func (h *hurt) links() string {
	h.Helper()
	var lines []string
	for _, line := range strings.Split(h.state(), "\n") {
		if !strings.HasPrefix(line, "objects/") && !strings.HasPrefix(line, "flatroot/bad/") && !strings.HasPrefix(line, "flatroot/unclean/") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func (h *hurt) find(d digest.Digest) ([]byte, error) {
	for _, src := range h.sources {
		for _, b := range src.built.Blobs {
			if b.Descriptor.Digest == d {
				return b.Data, nil
			}
		}
	}
	return nil, fmt.Errorf("no document %s", d)
}

func (h *hurt) restoreDocument(entry string) {
	h.Helper()
	must(h, RestoreDocument(context.Background(), h.s, entry, h.find, writeImage))
}

// TestRestoreDocument damages configs and manifests, each their stream and their JSON, in every way.
func TestRestoreDocument(t *testing.T) {
	for image := range 3 {
		for n, damage := range damages {
			for _, what := range []string{"stream", "JSON", "both", "entry"} {
				for _, config := range []bool{false, true} {
					t.Run(fmt.Sprintf("image %d, config %t, %s of %s", image, config, damage.name, what), func(t *testing.T) {
						t.Parallel()
						h := newHurt(t, []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}[n%2], image == 1)
						entry := h.manifest(image)
						if config {
							entry = h.config(image)
						}
						id := mustEntry(t, h.s, entry)
						l, err := openLayer(h.s, id)
						must(t, err)
						object := l.Object(0)
						l.Close()
						if what != "JSON" {
							damage.do(t, objectPath(h.s, id))
						}
						if what == "JSON" || what == "both" {
							damage.do(t, objectPath(h.s, object))
						}
						if what == "entry" {
							must(t, os.Remove(filepath.Join(h.s.Dir(), "streams", entry)))
						}
						h.restoreDocument(entry)
						h.checkAll()
						state := h.state()
						h.restoreDocument(entry)
						h.checkState("once more", state)
						h.forgetDamaged()
					})
				}
			}
		}
	}
}

// TestRestoreSameManifest: the stream of a manifest comes out as an import has made it, whatever order its layers are in.
func TestRestoreSameManifest(t *testing.T) {
	h := &hurt{TB: t, s: fastStore(t, fsverity.SHA256)}
	h.pull("forth", OCI1, ocitest.Image{Layers: text(t, hurtText, sparseText)})
	h.pull("back", OCI1, ocitest.Image{Layers: text(t, sparseText, hurtText)})
	for image := range h.images {
		entry := h.manifest(image)
		id := mustEntry(t, h.s, entry)
		must(t, os.Truncate(objectPath(h.s, id), 1))
		h.restoreDocument(entry)
		if got := mustEntry(t, h.s, entry); got != id {
			t.Errorf("%s: the stream was %v, is %v", h.names[image], id, got)
		}
	}
	h.checkAll()
}

// TestRestoreEverything loses all streams, documents and images, and restores them in the order that they need.
func TestRestoreEverything(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, true)
	for e, err := range h.s.Entries(store.Streams) {
		must(t, err)
		must(t, os.Remove(objectPath(h.s, e.Digest)))
	}
	for _, d := range h.digests {
		must(t, ignoreAbsent(os.Remove(objectPath(h.s, d))))
	}
	for n, img := range h.images {
		for l := range img.Layers {
			h.restoreLayer(n, l)
		}
	}
	for _, entry := range []func(int) string{h.config, h.manifest} {
		for n := range h.images {
			h.restoreDocument(entry(n))
		}
	}
	// The image of faithful-1 is found again by its entry, and that it is one's config knows then.
	for n, r := range []Rules{OCI1, Faithful1, OCI1} {
		must(t, RestoreImage(context.Background(), h.s, h.storedLayers(n), r, h.digests[n], writeImage))
	}
	h.checkAll()
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (h *hurt) storedLayers(image int) (layers []StoredLayer) {
	for _, l := range h.images[image].Layers {
		layers = append(layers, StoredLayer{l.DiffID, mustEntry(h, h.s, LayerEntry(l.DiffID))})
	}
	return layers
}

// TestRestoreDocumentErrors has what keeps a document from being restored.
func TestRestoreDocumentErrors(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, false)
	ctx := context.Background()
	find := func(b []byte, err error) func(digest.Digest) ([]byte, error) {
		return func(digest.Digest) ([]byte, error) { return b, err }
	}
	config, manifest := h.config(0), h.manifest(0)
	must(t, os.Remove(objectPath(h.s, mustEntry(t, h.s, config))))
	must(t, os.Remove(objectPath(h.s, mustEntry(t, h.s, manifest))))
	layer := mustEntry(t, h.s, h.layer(0, 0))
	must(t, h.s.RemoveEntry(store.Streams, h.layer(0, 0)))
	state := h.state()
	gone := errors.New("nobody has it")
	for _, tt := range []struct {
		entry string
		find  func(digest.Digest) ([]byte, error)
		err   string
	}{
		{h.layer(0, 1), h.find, "no config's entry, no manifest's and no image index's"},
		{"oci-config-sha256:../x", h.find, "no config's entry, no manifest's and no image index's"},
		{config, find(nil, gone), gone.Error()},
		{config, find([]byte("{}"), nil), "document has digest"},
		{config, h.find, "has to be restored first"},
		{manifest, h.find, "its config has to be restored first"},
	} {
		if err := RestoreDocument(ctx, h.s, tt.entry, tt.find, writeImage); !errorIs(err, tt.err) || !errorIs(err, tt.entry) {
			t.Errorf("%s: %v, want %q", tt.entry, err, tt.err)
		}
	}
	h.checkState("errors", state)
	_, err := h.s.Link(store.Streams, h.layer(0, 0), layer)
	must(t, err)
	h.restoreDocument(config)
	h.restoreDocument(manifest)
	h.checkAll()
}

func TestDocumentInObjects(t *testing.T) {
	h := newHurt(t, fsverity.SHA256, false)
	ctx := context.Background()
	for _, img := range h.images {
		for d, want := range map[digest.Digest][]byte{img.Descriptor.Digest: img.Manifest, img.ConfigDescriptor.Digest: img.Config} {
			if b, err := DocumentInObjects(ctx, h.s, d); err != nil || !bytes.Equal(b, want) {
				t.Errorf("%s: %q, %v", d, b, err)
			}
		}
	}
	if _, err := DocumentInObjects(ctx, h.s, digest.FromString("none")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := DocumentInObjects(ctx, h.s, digest.FromString("none")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRestoreImage damages images in every way.
func TestRestoreImage(t *testing.T) {
	for n, damage := range damages {
		h := newHurt(t, []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}[n%2], false)
		for i, r := range []Rules{OCI1, Faithful1} {
			damage.do(t, objectPath(h.s, h.digests[i]))
			must(t, RestoreImage(context.Background(), h.s, h.storedLayers(i), r, h.digests[i], writeImage))
			h.checkAll()
		}
		var wrong *ExpectError
		state := h.links()
		err := RestoreImage(context.Background(), h.s, h.storedLayers(0), Faithful1, h.digests[0], writeImage)
		if !errors.As(err, &wrong) || wrong.Want != h.digests[0] || wrong.Got.IsZero() || !errorIs(err, h.digests[0].String()) {
			t.Errorf("another rule: %v", err)
		}
		compareStates(t, "another rule", state, h.links())
	}
}
