package fsck_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// indexWorld is a world with an image index more, all blobs of which are kept, and of which the image for another machine is as
// no other image.
type indexWorld struct {
	*world
	index *index.ImageIndex
	other *index.Info
}

func newIndexWorld(t *testing.T, seed uint64) *indexWorld {
	t.Helper()
	w := &indexWorld{world: newWorld(t, seed)}
	x := ocitest.Index{Attested: true, Images: []ocitest.Image{
		{Layers: [][]byte{w.randomLayer(nil), w.randomLayer(nil)}, Platform: oci.DefaultPlatform()},
		{Layers: [][]byte{w.randomLayer(nil)}, Platform: oci.Platform{OS: "linux", Architecture: "s390x"}},
	}}
	if _, err := x.WriteLayout(w.layout, "all"); err != nil {
		t.Fatal(err)
	}
	src := w.open("all")
	defer src.Close()
	r, err := index.ImportAll(context.Background(), w.s, src, index.ImportOptions{Image: imageWriter, Name: "all", KeepBlobs: true})
	w.must(err)
	own := worldImage{name: "all", report: r.Images[0], config: r.Images[0].Config.String()}
	for _, l := range x.Images[0].Layers {
		own.layers = append(own.layers, oci.DiffID(digestOf(l)))
	}
	w.images = append(w.images, own)
	w.index, err = index.FindImageIndex(w.s, "all")
	w.must(err)
	w.other, err = index.FindFor(w.s, "all", x.Images[1].Platform)
	w.must(err)
	return w
}

func (w *indexWorld) indexEntry() string { return "oci-index-" + w.index.Digest.String() }

// stream is the stream that an entry leads to, as a path.
func (w *indexWorld) stream(entry string) string { return w.object(w.entry(store.Streams, entry)) }

// json is the object of a document, as a path.
func (w *indexWorld) json(entry string) string { return w.object(w.document(entry)) }

// attestation is the manifest of what was said about the first image, and the blob that it lists.
func (w *indexWorld) attestation() (manifest, blob string) {
	manifest = index.BlobEntry(w.index.Others[0].Digest)
	raw, err := index.ReadDocument(w.s, w.entry(store.Streams, manifest))
	w.must(err)
	doc, err := oci.ParseAttachment(raw, "")
	w.must(err)
	return manifest, index.BlobEntry(doc.Layers[0].Digest)
}

var indexDamages = []struct {
	name string
	code fsck.Code
	do   func(w *indexWorld)
}{
	{"a bit of the index", fsck.ObjectDamaged, func(w *indexWorld) { w.flip(w.json(w.indexEntry())) }},
	{"the index is gone", fsck.ObjectMissing, func(w *indexWorld) { w.must(os.Remove(w.json(w.indexEntry()))) }},
	{"a bit of its stream", fsck.ObjectDamaged, func(w *indexWorld) { w.flip(w.stream(w.indexEntry())) }},
	{"its stream is gone", fsck.EntryDangling, func(w *indexWorld) { w.must(os.Remove(w.stream(w.indexEntry()))) }},
	{"its entry is gone", fsck.RefDangling, func(w *indexWorld) { w.must(os.Remove(w.path("streams/" + w.indexEntry()))) }},
	{"its entry leads to a manifest", fsck.DocumentDiffers, func(w *indexWorld) {
		w.lead("streams/"+w.indexEntry(), w.entry(store.Streams, "oci-manifest-"+w.other.Manifest.String()))
	}},
	{"it refers to one image less", fsck.DocumentIncomplete, func(w *indexWorld) {
		id := w.entry(store.Streams, w.indexEntry())
		refs := slices.DeleteFunc(w.namedRefs(id), func(r stream.NamedRef) bool { return strings.Contains(r.Name, w.other.Manifest.String()) })
		w.lead("streams/"+w.indexEntry(), w.putStream(stream.OCIIndex, refs, w.index.Raw))
	}},
	{"it holds another index", fsck.DocumentDiffers, func(w *indexWorld) {
		other := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
		w.lead("streams/"+w.indexEntry(), w.putStream(stream.OCIIndex, nil, other))
	}},
	{"a manifest's stream", fsck.ObjectDamaged, func(w *indexWorld) { w.flip(w.stream("oci-manifest-" + w.other.Manifest.String())) }},
	{"a manifest", fsck.ObjectMissing, func(w *indexWorld) { w.must(os.Remove(w.json("oci-manifest-" + w.other.Manifest.String()))) }},
	{"a manifest's entry", fsck.EntryMissing, func(w *indexWorld) {
		w.must(os.Remove(w.path("streams/oci-manifest-" + w.other.Manifest.String())))
	}},
	{"a config", fsck.ObjectMissing, func(w *indexWorld) { w.must(os.Remove(w.json("oci-config-" + w.other.Config.String()))) }},
	{"a layer's stream", fsck.ObjectDamaged, func(w *indexWorld) { w.flip(w.object(w.other.Layers[0].Stream)) }},
	{"an attestation", fsck.ObjectMissing, func(w *indexWorld) { m, _ := w.attestation(); w.must(os.Remove(w.json(m))) }},
	{"an attestation's stream", fsck.ObjectDamaged, func(w *indexWorld) { m, _ := w.attestation(); w.flip(w.stream(m)) }},
	{"an attestation's entry", fsck.EntryMissing, func(w *indexWorld) { m, _ := w.attestation(); w.must(os.Remove(w.path("streams/" + m))) }},
	{"an attestation's blob", fsck.ObjectDamaged, func(w *indexWorld) { _, b := w.attestation(); w.flip(w.json(b)) }},
	{"all at once", fsck.ObjectDamaged, func(w *indexWorld) {
		_, b := w.attestation()
		m := "oci-manifest-" + w.other.Manifest.String()
		paths := []string{w.json(w.indexEntry()), w.json(b), w.json(m), w.stream(m), w.object(w.other.Layers[0].Stream)}
		for _, p := range append(paths, w.stream(w.indexEntry())) {
			w.flip(p)
		}
	}},
}

// TestIndex damages an image index and what only it leads to: that is found and repaired, and the index is what it was.
func TestIndex(t *testing.T) {
	for _, d := range indexDamages {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			for seed := range fewSeeds() {
				w := newIndexWorld(t, seed)
				if r := w.check(fsck.Options{VerifyTars: true}); len(r.Problems) > 0 {
					t.Fatalf("before:\n%s", describe(r))
				}
				d.do(w)
				r := w.check(fsck.Options{})
				if !slices.ContainsFunc(r.Problems, func(p *fsck.Problem) bool { return p.Code == d.code }) {
					t.Errorf("no %s:\n%s", d.code, describe(r))
				}
				for _, p := range r.Problems {
					for _, h := range p.Images {
						if h.Name != "all" && p.Code != fsck.ObjectDamaged {
							t.Errorf("it hits %s:\n%s", h.Name, describe(r))
						}
					}
				}
				r = w.repair(fsck.RepairOptions{Open: openPlace})
				for _, p := range r.Problems {
					if p.Severity == fsck.IsProblem && !p.Repaired {
						t.Errorf("%s %s was not repaired: %v", p.Code, p.Subject, p.NotRepaired)
					}
				}
				w.stillWhole()
				w.collectAndCheck(seed)
				w.wantIndex()
			}
		})
	}
}

// wantIndex wants all of the index to be there.
func (w *indexWorld) wantIndex() {
	w.t.Helper()
	x, err := index.FindImageIndex(w.s, "all")
	w.must(err)
	if digest.FromBytes(x.Raw) != w.index.Digest || len(x.Images) != 2 || len(x.Others) != 2 {
		w.t.Errorf("the index is %+v", x)
	}
	for _, r := range w.namedRefs(w.entry(store.Streams, w.indexEntry())) {
		if id := w.entry(store.Streams, r.Name); id != r.ID {
			w.t.Errorf("it refers to %s as %s, which is %s", r.Name, r.ID, id)
		}
	}
	if i, err := index.FindFor(w.s, "all", w.other.Platform); err != nil || i.Image != w.other.Image {
		w.t.Errorf("the image for another machine is %+v, %v", i, err)
	}
}

// TestIndexNamed checks an index by its name alone, with all that it lists.
func TestIndexNamed(t *testing.T) {
	w := newIndexWorld(t, 1)
	w.flip(w.object(w.other.Layers[0].Stream))
	if r := w.check(fsck.Options{Names: []string{"all"}}); r.Count(fsck.IsProblem) == 0 || len(r.Problems[0].Images) != 1 || r.Problems[0].Images[0].Name != "all" {
		t.Errorf("of the index:\n%s", describe(r))
	}
	if r := w.check(fsck.Options{Names: []string{"image0"}}); len(r.Problems) > 0 {
		t.Errorf("of another image:\n%s", describe(r))
	}
}

// TestIndexGC: all of an index lives as long as a name stands for it, with the image for this machine or without.
func TestIndexGC(t *testing.T) {
	for _, full := range []bool{false, true} {
		w := newIndexWorld(t, 2)
		gc := func() {
			t.Helper()
			_, err := w.s.GC(context.Background(), store.GCOptions{Tracers: fsck.Tracers(), Full: full})
			w.must(err)
			if r := w.check(fsck.Options{}); r.Count(fsck.IsProblem) > 0 {
				t.Errorf("full %v:\n%s", full, describe(r))
			}
		}
		w.must(index.Tag(w.s, "all", "too"))
		w.must(index.Remove(w.s, "all"))
		w.must(w.s.RemoveRef(store.Streams, "oci/too"))
		gc()
		w.must(index.Tag(w.s, "too", "all"))
		w.must(index.Remove(w.s, "too"))
		w.wantIndex()
		w.must(index.TagFor(w.s, "all", "one", w.other.Platform))
		w.must(index.Remove(w.s, "all"))
		gc()
		if i, err := index.Find(w.s, "one"); err != nil || i.Image != w.other.Image {
			t.Errorf("full %v: one of its images: %+v, %v", full, i, err)
		}
		for e, err := range w.s.Entries(store.Streams) {
			if err != nil || strings.HasPrefix(e.Name, "oci-index-") {
				t.Errorf("full %v: there is %s, %v", full, e.Name, err)
			}
		}
		_, err := index.PruneNotes(w.s, func(string) bool { return false }, false)
		w.must(err)
		if _, err := index.ManifestOrigin(w.s, w.index.Digest); err == nil {
			t.Errorf("full %v: it is still noted where the index came from", full)
		}
	}
}
