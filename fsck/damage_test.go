package fsck_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tests/testenv"
)

func digestOf(b []byte) digest.Digest { return digest.FromBytes(b) }

// damage is a class of damage: what it does to a store, and what has to be said of it.
type damage struct {
	name string
	do   func(w *world) finding
}

// finding is what a check has to find.
type finding struct {
	code    fsck.Code
	subject string
	// hits is nil if it does not matter which images are named.
	hits map[string][]string
	// quick: it shows without reading contents.
	quick bool
	// also are codes of what else may be found, since it follows.
	also []fsck.Code
}

// names are hits without paths.
func names(list ...string) map[string][]string {
	hits := map[string][]string{}
	for _, n := range list {
		hits[n] = []string{}
	}
	return hits
}

// objectSubject is how a problem names an object.
func objectSubject(d fsverity.Digest) string { return "objects/" + d.ObjectPath() }

// inImages names those images of which has is true.
func (w *world) inImages(has func(worldImage) bool) map[string][]string {
	var list []string
	for _, i := range w.images {
		if has(i) {
			list = append(list, i.name)
		}
	}
	return names(list...)
}

func (w *world) withLayer(i worldImage, layer string) bool {
	return slices.ContainsFunc(i.layers, func(d oci.DiffID) bool { return d.String() == layer })
}

var damages = []damage{
	{"a bit of a file", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.flip(w.object(d))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: w.hitsOf(d)}
	}},
	{"a file cut short", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		hits, b := w.hitsOf(d), w.read(w.object(d))
		w.overwrite(w.object(d), b[:w.rng.IntN(len(b))])
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: hits, quick: true}
	}},
	{"a file grown", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.overwrite(w.object(d), append(w.read(w.object(d)), make([]byte, 1+w.rng.IntN(5000))...))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: w.hitsOf(d), quick: true}
	}},
	{"a file gone", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.must(os.Remove(w.object(d)))
		return finding{code: fsck.ObjectMissing, subject: objectSubject(d), hits: w.hitsOf(d), quick: true}
	}},
	{"another file's content", func(w *world) finding {
		all := w.allFileObjects()
		d := pick(w, all)
		other := pick(w, slices.DeleteFunc(all, func(o fsverity.Digest) bool { return o == d }))
		w.overwrite(w.object(d), w.read(w.object(other)))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: w.hitsOf(d)}
	}},
	{"a symlink for a file", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.must(os.Rename(w.object(d), w.path("elsewhere")))
		w.must(os.Symlink(w.path("elsewhere"), w.object(d)))
		return finding{code: fsck.ObjectStrange, subject: objectSubject(d), hits: w.hitsOf(d), quick: true}
	}},
	{"a directory for a file", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.must(os.Remove(w.object(d)))
		w.must(os.Mkdir(w.object(d), 0o755))
		return finding{code: fsck.ObjectStrange, subject: objectSubject(d), hits: w.hitsOf(d), quick: true}
	}},
	{"an object that nothing needs", func(w *world) finding {
		b := []byte(fmt.Sprintf("an object that no stream refers to, number %d, and long enough", w.rng.Int()))
		d := fsverity.Sum(w.s.Algorithm(), b)
		_, err := w.s.PutObject(d, b)
		w.must(err)
		w.flip(w.object(d))
		return finding{code: fsck.UnusedDamaged, subject: objectSubject(d), hits: names()}
	}},
	{"a bit of a layer's stream", func(w *world) finding {
		i := pick(w, w.images)
		layer := pick(w, i.layers).String()
		d := w.entry(store.Streams, "oci-layer-"+layer)
		w.flip(w.object(d))
		hits := w.inImages(func(i worldImage) bool { return w.withLayer(i, layer) })
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: hits}
	}},
	{"a layer's stream gone", func(w *world) finding {
		i := pick(w, w.images)
		layer := pick(w, i.layers).String()
		d := w.entry(store.Streams, "oci-layer-"+layer)
		w.must(os.Remove(w.object(d)))
		hits := w.inImages(func(i worldImage) bool { return w.withLayer(i, layer) })
		return finding{code: fsck.EntryDangling, subject: "streams/oci-layer-" + layer, hits: hits, quick: true}
	}},
	{"a bit of a config's stream", func(w *world) finding {
		i := pick(w, w.images)
		d := w.entry(store.Streams, "oci-config-"+i.config)
		w.flip(w.object(d))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: names(i.name)}
	}},
	{"a bit of a manifest's stream", func(w *world) finding {
		i := pick(w, w.images)
		d := w.entry(store.Streams, "oci-manifest-"+i.report.Manifest.String())
		w.flip(w.object(d))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), hits: names(i.name)}
	}},
	{"a bit of a config", func(w *world) finding {
		i := pick(w, w.images)
		raw := w.document("oci-config-" + i.config)
		w.flip(w.object(raw))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(raw), hits: names(i.name)}
	}},
	{"a bit of a manifest", func(w *world) finding {
		i := pick(w, w.images)
		raw := w.document("oci-manifest-" + i.report.Manifest.String())
		w.flip(w.object(raw))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(raw), hits: names(i.name)}
	}},
	{"a bit of an image", func(w *world) finding {
		i := pick(w, w.images)
		w.flip(w.object(i.report.Image))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(i.report.Image), hits: w.wholeImages(i)}
	}},
	{"an image gone", func(w *world) finding {
		i := pick(w, w.images)
		w.must(os.Remove(w.object(i.report.Image)))
		return finding{code: fsck.EntryDangling, subject: "images/" + i.report.Image.String(), hits: w.wholeImages(i), quick: true}
	}},
	{"an image's entry gone", func(w *world) finding {
		i := pick(w, w.images)
		w.must(os.Remove(w.path("images/" + i.report.Image.String())))
		return finding{code: fsck.ImageUnnamed, quick: true, also: []fsck.Code{fsck.RefDangling, fsck.ImageUnnamed}}
	}},
	{"an image's entry to another object", func(w *world) finding {
		i := pick(w, w.images)
		name := "images/" + i.report.Image.String()
		w.must(os.Remove(w.path(name)))
		w.must(os.Symlink("../objects/"+pick(w, w.allFileObjects()).ObjectPath(), w.path(name)))
		return finding{code: fsck.EntryBad, subject: name, quick: true, also: []fsck.Code{fsck.ImageUnnamed, fsck.RefDangling}}
	}},
	{"an entry that is no link", func(w *world) finding {
		name := "streams/oci-layer-" + pick(w, pick(w, w.images).layers).String()
		w.must(os.Remove(w.path(name)))
		w.overwrite(w.path(name), []byte("text"))
		return finding{code: fsck.EntryBad, subject: name, quick: true, also: []fsck.Code{fsck.EntryMissing, fsck.NoteStale}}
	}},
	{"a layer's entry gone", func(w *world) finding {
		layer := pick(w, pick(w, w.images).layers).String()
		w.must(os.Remove(w.path("streams/oci-layer-" + layer)))
		hits := w.inImages(func(i worldImage) bool { return w.withLayer(i, layer) })
		return finding{
			code: fsck.EntryMissing, subject: "streams/oci-layer-" + layer, hits: hits, quick: true,
			also: []fsck.Code{fsck.NoteStale, fsck.EntryMissing},
		}
	}},
	{"a config's entry gone", func(w *world) finding {
		i := pick(w, w.images)
		w.must(os.Remove(w.path("streams/oci-config-" + i.config)))
		return finding{code: fsck.EntryMissing, subject: "streams/oci-config-" + i.config, hits: names(i.name), quick: true}
	}},
	{"a manifest's entry gone", func(w *world) finding {
		i := pick(w, w.images)
		w.must(os.Remove(w.path("streams/oci-manifest-" + i.report.Manifest.String())))
		return finding{
			code: fsck.RefDangling, subject: "streams/refs/oci/" + i.name, hits: names(i.name), quick: true,
			also: []fsck.Code{fsck.RefUnmapped, fsck.NoteStale},
		}
	}},
	{"a tag that is no link", func(w *world) finding {
		name := "streams/refs/oci/" + pick(w, w.images).name
		w.must(os.Remove(w.path(name)))
		w.overwrite(w.path(name), nil)
		return finding{code: fsck.RefBad, subject: name, quick: true}
	}},
	{"a layer's entry to another layer", func(w *world) finding {
		w.pull("more", [][]byte{w.randomLayer(nil), w.randomLayer(nil)}, "")
		layers := w.images[len(w.images)-1].layers
		at := w.rng.IntN(2)
		name := "streams/oci-layer-" + layers[at].String()
		w.lead(name, w.entry(store.Streams, "oci-layer-"+layers[1-at].String()))
		return finding{code: fsck.LayerDiffers, subject: name, hits: names()}
	}},
	{"a layer's entry to a config", func(w *world) finding {
		i := pick(w, w.images)
		name := "streams/oci-layer-" + pick(w, i.layers).String()
		w.lead(name, w.entry(store.Streams, "oci-config-"+i.config))
		return finding{code: fsck.LayerDiffers, subject: name, hits: names(), quick: true}
	}},
	{"a config's entry to another config", func(w *world) finding {
		w.pull("more", [][]byte{w.randomLayer(nil)}, "")
		a, b := w.images[0], w.images[len(w.images)-1]
		name := "streams/oci-config-" + a.config
		w.lead(name, w.entry(store.Streams, "oci-config-"+b.config))
		return finding{code: fsck.DocumentDiffers, subject: name, hits: names(), quick: true}
	}},
	{"a manifest's entry to another manifest", func(w *world) finding {
		w.pull("more", [][]byte{w.randomLayer(nil)}, "")
		a, b := w.images[0], w.images[len(w.images)-1]
		if w.rng.IntN(2) == 0 { // whichever comes first by name
			a, b = b, a
		}
		name := "streams/oci-manifest-" + a.report.Manifest.String()
		w.lead(name, w.entry(store.Streams, "oci-manifest-"+b.report.Manifest.String()))
		return finding{code: fsck.DocumentDiffers, subject: name, hits: names(a.name), quick: true}
	}},
	{"a manifest's entry to a layer", func(w *world) finding {
		i := pick(w, w.images)
		name := "streams/oci-manifest-" + i.report.Manifest.String()
		w.lead(name, w.entry(store.Streams, "oci-layer-"+pick(w, i.layers).String()))
		return finding{code: fsck.DocumentDiffers, subject: name, hits: names(i.name), quick: true}
	}},
	{"a bit of a layer's stream and of its config's", func(w *world) finding {
		i := pick(w, w.images)
		d := w.entry(store.Streams, "oci-config-"+i.config)
		layer := w.entry(store.Streams, "oci-layer-"+pick(w, i.layers).String())
		b := w.read(w.object(d))
		// Where it names the two: who rewrites it must not make other names of them.
		for _, named := range []fsverity.Digest{i.report.Image, layer} {
			at := bytes.Index(b, named.AppendTo(nil))
			if at < 0 {
				w.t.Fatalf("the config's stream does not name %s", named)
			}
			b[at+w.rng.IntN(w.s.Algorithm().Size())] ^= 1
		}
		w.overwrite(w.object(d), b)
		w.flip(w.object(layer))
		return finding{code: fsck.ObjectDamaged, subject: objectSubject(d), also: []fsck.Code{fsck.ObjectDamaged}}
	}},
	{"a file for a directory of objects", func(w *world) finding {
		first := w.rng.IntN(256)
		for ; ; first = (first + 1) % 256 {
			if _, err := os.Lstat(w.path(fmt.Sprintf("objects/%02x", first))); err != nil {
				break
			}
		}
		name := fmt.Sprintf("objects/%02x", first)
		w.overwrite(w.path(name), nil)
		return finding{code: fsck.ObjectStrange, subject: name, hits: names(), quick: true}
	}},
	{"a file for a directory of notes", func(w *world) finding {
		w.must(os.RemoveAll(w.path("flatroot/indexes")))
		w.overwrite(w.path("flatroot/indexes"), nil)
		return finding{code: fsck.NoteBad, subject: "flatroot/indexes", hits: names(), quick: true}
	}},
	{"records that are none", func(w *world) finding {
		w.overwrite(w.path("flatroot/scrub.json"), []byte(`{"parts":{"objects/00":"never"}}`))
		return finding{code: fsck.NoteBad, subject: "flatroot/scrub.json", hits: names()} // it is written anew at once
	}},
	{"two layers' entries swapped", func(w *world) finding {
		w.pull("more", [][]byte{w.randomLayer(nil), w.randomLayer(nil)}, "")
		i := w.images[len(w.images)-1]
		a, b := "oci-layer-"+i.layers[0].String(), "oci-layer-"+i.layers[1].String()
		x, y := w.entry(store.Streams, a), w.entry(store.Streams, b)
		w.must(w.s.Relink(store.Streams, a, y))
		w.must(w.s.Relink(store.Streams, b, x))
		return finding{
			code: fsck.LayerDiffers, subject: "streams/" + a,
			also: []fsck.Code{fsck.LayerDiffers, fsck.RefUnmapped, fsck.ImageDiffers},
		}
	}},
	{"a stream that is none", func(w *world) finding {
		b := []byte("this is neither a stream nor anything else that has a form, but it is an object")
		d := fsverity.Sum(w.s.Algorithm(), b)
		_, err := w.s.PutObject(d, b)
		w.must(err)
		w.must(w.s.Relink(store.Streams, "oci-layer-sha256:"+strings.Repeat("ab", 32), d))
		return finding{code: fsck.StreamInvalid, subject: "streams/oci-layer-sha256:" + strings.Repeat("ab", 32), hits: names(), quick: true}
	}},
	{"an image that is none", func(w *world) finding {
		b := []byte("this is no image, and far too short for one")
		d := fsverity.Sum(w.s.Algorithm(), b)
		_, err := w.s.PutObject(d, b)
		w.must(err)
		_, err = w.s.Link(store.Images, d.String(), d)
		w.must(err)
		w.must(w.s.SetRef(store.Images, "bad", d.String()))
		return finding{code: fsck.ImageInvalid, subject: "images/" + d.String(), hits: map[string][]string{"bad": {"/"}}, quick: true}
	}},
	{"a config that refers to another's image", func(w *world) finding {
		w.pull("more", [][]byte{w.randomLayer(nil)}, "")
		i := w.images[len(w.images)-1]
		entry := "oci-config-" + i.config
		refs := w.namedRefs(w.entry(store.Streams, entry))
		for n := range refs {
			if refs[n].Name == stream.ImageV1 {
				refs[n].ID = w.images[0].report.Image
			}
		}
		config := w.putStream(stream.OCIConfig, refs, w.read(w.object(w.document(entry))))
		w.must(w.s.Relink(store.Streams, entry, config))
		w.moveManifest(i, config)
		return finding{code: fsck.ImageDiffers, subject: "images/" + w.images[0].report.Image.String()}
	}},
	{"a config that lacks a layer", func(w *world) finding {
		i := pick(w, w.images)
		entry := "oci-config-" + i.config
		refs := slices.DeleteFunc(w.namedRefs(w.entry(store.Streams, entry)), func(r stream.NamedRef) bool { return r.Name == i.layers[0].String() })
		config := w.putStream(stream.OCIConfig, refs, w.read(w.object(w.document(entry))))
		w.must(w.s.Relink(store.Streams, entry, config))
		w.moveManifest(i, config)
		return finding{code: fsck.DocumentIncomplete, subject: "streams/" + entry, hits: names(i.name), quick: true}
	}},
	{"another config's content", func(w *world) finding {
		i := pick(w, w.images)
		entry := "oci-config-" + i.config
		config := w.putStream(stream.OCIConfig, w.namedRefs(w.entry(store.Streams, entry)), []byte(`{"rootfs":{"type":"layers","diff_ids":[]}}`))
		w.must(w.s.Relink(store.Streams, entry, config))
		w.moveManifest(i, config)
		return finding{code: fsck.DocumentDiffers, subject: "streams/" + entry, hits: names(i.name), quick: true}
	}},
	{"a stranger among the objects", func(w *world) finding {
		name := pick(w, []string{"objects/backup", "objects/" + pick(w, w.allFileObjects()).ObjectPath() + ".orig", "objects/AB"})
		w.overwrite(w.path(name), []byte("text"))
		return finding{code: fsck.ObjectStrange, subject: name, hits: names(), quick: true}
	}},
	{"a note of nothing", func(w *world) finding {
		name := pick(w, []string{"flatroot/verified/", "flatroot/blobs/"}) + "sha256:" + strings.Repeat("cd", 32)
		w.must(os.Symlink("nonsense", w.path(name)))
		return finding{code: fsck.NoteBad, subject: name, hits: names(), quick: true}
	}},
	{"an origin that says nothing", func(w *world) finding {
		name := "flatroot/origins/" + pick(w, pick(w, w.images).layers).String() + ".json"
		w.overwrite(w.path(name), []byte("{"))
		return finding{code: fsck.NoteBad, subject: name, hits: names(), quick: true}
	}},
	{"signatures that say nothing", func(w *world) finding {
		name := "flatroot/signatures/" + pick(w, w.images).report.Manifest.String() + ".json"
		w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
		w.must(os.WriteFile(w.path(name), []byte("{"), 0o644))
		return finding{code: fsck.NoteBad, subject: name, hits: names(), quick: true}
	}},
	{"signatures of another image", func(w *world) finding {
		name := "flatroot/signatures/sha256:" + strings.Repeat("cd", 32) + ".json"
		w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
		w.must(os.WriteFile(w.path(name), []byte("[]"), 0o644))
		return finding{code: fsck.NoteStale, subject: name, hits: names(), quick: true}
	}},
	{"what a killed process left", func(w *world) finding {
		name := pick(w, []string{".symlink-abc", ".init-abc", "objects/.tmp-object-abc", "flatroot/origins/.tmp-abc"})
		w.must(os.Symlink("x", w.path(name)))
		return finding{code: fsck.Unfinished, subject: name, hits: names(), quick: true}
	}},
	{"a file that all may write", func(w *world) finding {
		d := pick(w, w.allFileObjects())
		w.must(os.Chmod(w.object(d), 0o666))
		return finding{code: fsck.ModeOdd, subject: objectSubject(d), quick: true}
	}},
}

// document is the object of the JSON that a stream holds.
func (w *world) document(entry string) fsverity.Digest {
	w.t.Helper()
	f, err := w.s.OpenObject(w.entry(store.Streams, entry))
	w.must(err)
	defer f.Close()
	st, err := f.Stat()
	w.must(err)
	s, err := stream.Open(f, st.Size())
	w.must(err)
	return s.Object(0)
}

// moveManifest has an image's manifest refer to another stream of its config.
func (w *world) moveManifest(i worldImage, config fsverity.Digest) {
	w.t.Helper()
	entry := "oci-manifest-" + i.report.Manifest.String()
	refs := w.namedRefs(w.entry(store.Streams, entry))
	for n := range refs {
		if strings.HasPrefix(refs[n].Name, stream.ConfigPrefix) {
			refs[n].ID = config
		}
	}
	w.must(w.s.Relink(store.Streams, entry, w.putStream(stream.OCIManifest, refs, w.read(w.object(w.document(entry))))))
}

// wholeImages are the hits of damage to an image: several names may have the same.
func (w *world) wholeImages(i worldImage) map[string][]string {
	hits := map[string][]string{}
	for _, o := range w.images {
		if o.report.Image == i.report.Image {
			hits[o.name] = []string{"/"}
		}
	}
	return hits
}

// thorough tells whether to do what takes a minute: in one suite of those that run at every change.
func thorough() bool { return testenv.Nightly() || os.Getenv("FLATROOT_TEST") == "root" }

// seeds is how many stores each class of damage is tried on.
func seeds() uint64 {
	switch {
	case thorough():
		return 20
	case testenv.Racing:
		return 1
	}
	return 3
}

// fewSeeds is seeds where each store takes long.
func fewSeeds() uint64 { return min(seeds(), 3) }

func TestDamage(t *testing.T) {
	for _, d := range damages {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range seeds() {
				w := newWorld(t, seed)
				if len(w.images) < 2 {
					w.pull("second", [][]byte{w.randomLayer(nil), w.randomLayer(nil)}, "")
				}
				want := d.do(w)
				w.expect(seed, want, w.check(fsck.Options{}))
				if quick := w.check(fsck.Options{Quick: true}); want.quick {
					w.expect(seed, want, quick)
				}
			}
		})
	}
}

// expect compares what was found with what has to be.
func (w *world) expect(seed uint64, want finding, r *fsck.Report) {
	w.t.Helper()
	var found *fsck.Problem
	for _, p := range r.Problems {
		switch {
		case p.Code == want.code && (want.subject == "" || p.Subject == want.subject):
			found = p
		case !slices.Contains(want.also, p.Code) && p.Severity == fsck.IsProblem:
			w.t.Fatalf("seed %d: %s %s is no part of the damage:\n%s", seed, p.Code, p.Subject, describe(r))
		}
	}
	if found == nil {
		w.t.Fatalf("seed %d: want %s of %s, got:\n%s", seed, want.code, want.subject, describe(r))
	}
	if want.hits == nil {
		return
	}
	got := map[string][]string{}
	for _, h := range found.Images {
		got[h.Name] = h.Paths
	}
	// A hidden file hits those images too that have it in a lower layer.
	for name := range got {
		if _, ok := want.hits[name]; !ok && len(got[name]) == 0 && len(want.hits) > 0 {
			delete(got, name)
		}
	}
	if !reflect.DeepEqual(got, want.hits) {
		w.t.Fatalf("seed %d: %s of %s hits %v, want %v", seed, want.code, want.subject, got, want.hits)
	}
}

// TestHealthy: a store in order has neither problems nor remarks.
func TestHealthy(t *testing.T) {
	stores := uint64(10)
	if thorough() {
		stores = 100
	}
	for seed := range stores {
		w := newWorld(t, seed)
		for _, o := range []fsck.Options{{}, {Quick: true}, {VerifyTars: true}, {Names: []string{"image0"}}} {
			if r := w.check(o); len(r.Problems) > 0 || r.Unreferenced > 0 || r.CheckedObjects == 0 {
				t.Fatalf("seed %d, %+v: %d objects checked, %d unreferenced:\n%s", seed, o, r.CheckedObjects, r.Unreferenced, describe(r))
			}
		}
	}
}
