package index

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/store/stream"
)

// fastStore is a store in memory, where there is a place for that, of a hash. It is checked in the end.
func fastStore(t testing.TB, a fsverity.Algorithm) *store.Store {
	t.Helper()
	parent := ""
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "flatroot-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "store")
	if err := store.Init(path, store.InitOptions{Algorithm: a}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(path, store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			storetest.Check(t, path)
		}
		s.Close()
	})
	return s
}

// hurtText is a layer with files of all sizes that matter, sparseText one with sparse files, wholeText one that is stored whole.
const (
	hurtText = `dir usr 0750 mtime=5
		file usr/inline data=x
		file usr/first size=100 fill=first
		file usr/second size=5000 fill=second
		file usr/huge size=1500000 fill=huge
		file usr/last size=300 fill=last`
	sparseText = "dir var\nsparse var/holes 200000 0:" + longWord + " 100000:" + longWord + "\nsparse-1.0 var/tail 500000 17:" + longWord + "\nsparse var/short 3000 0:tiny"
	wholeText  = "dir opt size=4096\nfile opt/first size=100 fill=first\nfile opt/own size=70000 fill=own"
	longWord   = "0123456789012345678901234567890123456789012345678901234567890123456789"
)

func hurtSource(t testing.TB, texts ...string) *memSource {
	return newSource(t, ocitest.Image{Layers: text(t, texts...), Compression: []ocitest.Compression{ocitest.Gzip}})
}

func pullInto(t testing.TB, s *store.Store, src oci.Source) (*Report, *oci.Image) {
	t.Helper()
	r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
	if err != nil {
		t.Fatal(err)
	}
	img, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r, img
}

// layerObjects are the objects that a layer's stream refers to, in its order.
func layerObjects(t testing.TB, s *store.Store, d oci.DiffID) []fsverity.Digest {
	t.Helper()
	l, err := openLayer(s, mustEntry(t, s, LayerEntry(d)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.ObjectRefs()
}

func objectPath(s *store.Store, d fsverity.Digest) string {
	return filepath.Join(s.Dir(), "objects", d.ObjectPath())
}

// damages are ways in which an object may be damaged. The last one doesn't show.
var damages = []struct {
	name string
	do   func(t testing.TB, path string)
}{
	{"missing", func(t testing.TB, path string) { must(t, os.Remove(path)) }},
	{"empty", func(t testing.TB, path string) { must(t, os.Truncate(path, 0)) }},
	{"short", func(t testing.TB, path string) {
		fi, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, fi.Size()-1))
	}},
	{"garbage", func(t testing.TB, path string) {
		b, err := os.ReadFile(path)
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(path, b, 0o644))
	}},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkObjects reads objects: all have to be what their names say.
func checkObjects(t testing.TB, s *store.Store, ds ...fsverity.Digest) {
	t.Helper()
	for _, d := range ds {
		if c, err := s.CheckObject(d, store.CheckOptions{Read: true}); err != nil || c.Content != nil {
			t.Errorf("object %s: %v, %v", d, err, c.Content)
		}
	}
}

// TestRefetchObjects damages every object of every kind of layer, and all at once, in each way.
func TestRefetchObjects(t *testing.T) {
	for _, a := range []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512} {
		s := fastStore(t, a)
		src := hurtSource(t, hurtText, sparseText, wholeText)
		_, img := pullInto(t, s, src)
		for n, l := range img.Layers {
			objects := layerObjects(t, s, l.DiffID)
			if want := []int{4, 5, 3}[n]; len(objects) != want {
				t.Fatalf("layer %d has %d objects, want %d", n+1, len(objects), want)
			}
			for _, damage := range damages {
				for _, hurt := range append(apart(objects), objects) {
					for _, d := range hurt {
						damage.do(t, objectPath(s, d))
					}
					restored, fetched, err := RefetchObjects(context.Background(), s, src, l, hurt, HealOptions{})
					if err != nil || len(restored) != len(hurt) || fetched == 0 || fetched > l.Descriptor.Size {
						t.Fatalf("layer %d, %s: %d of %d restored, %d bytes fetched, %v", n+1, damage.name, len(restored), len(hurt), fetched, err)
					}
					checkObjects(t, s, objects...)
				}
			}
		}
		if bad, err := s.Bad(); err != nil || len(bad) != 0 {
			t.Errorf("notes are left: %v, %v", bad, err)
		}
	}
}

func apart(ds []fsverity.Digest) (list [][]fsverity.Digest) {
	for _, d := range ds {
		list = append(list, []fsverity.Digest{d})
	}
	return list
}

// TestRefetchStopsEarly wants the first file of a layer whose rest can't be had: it isn't asked for.
func TestRefetchStopsEarly(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := newSource(t, ocitest.Image{Layers: text(t, hurtText), Compression: []ocitest.Compression{ocitest.None}})
	_, img := pullInto(t, s, src)
	l := img.Layers[0]
	first := layerObjects(t, s, l.DiffID)[0]
	must(t, os.Remove(objectPath(s, first)))
	src.stall(0, chunkBytes, nil) // after which nothing comes, and nobody may wait for it
	restored, fetched, err := RefetchObjects(context.Background(), s, src, l, []fsverity.Digest{first}, HealOptions{})
	if err != nil || len(restored) != 1 || fetched > chunkBytes {
		t.Errorf("%v, %d bytes, %v", restored, fetched, err)
	}
	checkObjects(t, s, first)
}

// TestRefetchFromBadSource has sources that can't give what is wanted. What is damaged stays as it is.
func TestRefetchFromBadSource(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := hurtSource(t, hurtText)
	_, img := pullInto(t, s, src)
	l := img.Layers[0]
	objects := layerObjects(t, s, l.DiffID)
	lost := objects[len(objects)-1]
	good := src.built.Blobs[0].Data
	defer func() { src.built.Blobs[0].Data = good; healAll(t, s, src, l, lost) }()
	must(t, os.WriteFile(objectPath(s, lost), []byte("rubbish"), 0o644))
	other := gzipped(text(t, goodText)[0])
	for name, bad := range map[string]struct {
		blob []byte
		err  string
	}{
		"another layer": {append(bytes.Clone(other), make([]byte, 100)...), "layer " + l.Descriptor.Digest.String()},
		"cut":           {good[:len(good)/2], "the blob ends after"},
		"empty":         {nil, "the blob ends after"},
		"nonsense":      {[]byte(strings.Repeat("nonsense", len(good)/8+1))[:len(good)], "tar entry 1"},
	} {
		src.built.Blobs[0].Data = bad.blob
		restored, _, err := RefetchObjects(context.Background(), s, src, l, []fsverity.Digest{lost}, HealOptions{})
		if len(restored) != 0 || !errorIs(err, bad.err) || !errorIs(err, src.name) || !errorIs(err, lost.String()) {
			t.Errorf("%s: %v, %v", name, restored, err)
		}
		if b, err := os.ReadFile(objectPath(s, lost)); err != nil || string(b) != "rubbish" {
			t.Errorf("%s: the damaged object is %q now, %v", name, b, err)
		}
	}
	src.built.Blobs[0].Data = good
	nowhere := fsverity.Sum(s.Algorithm(), []byte("nowhere"))
	restored, _, err := RefetchObjects(context.Background(), s, src, l, []fsverity.Digest{nowhere, lost}, HealOptions{})
	if !slices.Equal(restored, []fsverity.Digest{lost}) || !errorIs(err, nowhere.String()) || !errorIs(err, "none of its files") {
		t.Errorf("%v, %v", restored, err)
	}
	src.built.Blobs = src.built.Blobs[1:]
	if _, _, err := RefetchObjects(context.Background(), s, src, l, []fsverity.Digest{nowhere}, HealOptions{}); !errorIs(err, "no blob") {
		t.Errorf("of a blob that is gone: %v", err)
	}
	src.built.Blobs = append([]ocitest.Blob{{Descriptor: l.Descriptor, Data: good}}, src.built.Blobs...)
}

func healAll(t testing.TB, s *store.Store, src oci.Source, l oci.Layer, want ...fsverity.Digest) {
	t.Helper()
	if _, _, err := RefetchObjects(context.Background(), s, src, l, want, HealOptions{}); err != nil {
		t.Error(err)
	}
}

// TestRefetchCancelled ends while the source says nothing.
func TestRefetchCancelled(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := hurtSource(t, hurtText)
	_, img := pullInto(t, s, src)
	lost := layerObjects(t, s, img.Layers[0].DiffID)[3]
	must(t, os.Remove(objectPath(s, lost)))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	src.stall(0, 100, cancel)
	if _, _, err := RefetchObjects(ctx, s, src, img.Layers[0], []fsverity.Digest{lost}, HealOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	src.open = nil
	healAll(t, s, src, img.Layers[0], lost)
}

// keepBlob stores a blob as a stream, as some tools do.
func keepBlob(t testing.TB, s *store.Store, blob []byte) (object fsverity.Digest) {
	t.Helper()
	object = fsverity.Sum(s.Algorithm(), blob)
	_, err := s.PutObject(object, blob)
	must(t, err)
	id, err := putStream(s, stream.OCIBlob, func(w *stream.Writer) error { return w.External(object, int64(len(blob))) })
	must(t, err)
	_, err = s.Link(store.Streams, blobPrefix+digest.FromBytes(blob).String(), id)
	must(t, err)
	return object
}

// TestObjectsFromStreams restores what can be restored without any source.
func TestObjectsFromStreams(t *testing.T) {
	ctx := context.Background()
	layers := text(t, hurtText, sparseText, wholeText)
	const cut, sparse, whole = 0, 1, 2
	for _, tt := range []struct {
		name  string
		layer int
		keep  func(t testing.TB, s *store.Store, src *memSource) []fsverity.Digest
		lost  []int // of the layer's objects, or else what keep says
		gives int   // so many of them
	}{
		{name: "files of a layer that is whole", layer: whole, lost: []int{1, 2}, gives: 2},
		{name: "its tar", layer: whole, lost: []int{0}},
		{name: "files of a layer that is cut", layer: cut, lost: []int{0, 1, 2, 3}, gives: 1}, // which is in the whole one, too
		{name: "the expanded forms of sparse files", layer: sparse, lost: []int{1, 3, 4}, gives: 3},
		{name: "a stored form", layer: sparse, lost: []int{0}},
		{name: "both forms of one file, and the expanded one of another", layer: sparse, lost: []int{0, 1, 3}, gives: 1},
		{name: "files of a plain blob", layer: cut, lost: []int{0, 1, 2, 3}, gives: 4, keep: func(t testing.TB, s *store.Store, _ *memSource) []fsverity.Digest {
			keepBlob(t, s, layers[cut])
			return nil
		}},
		{name: "files of a compressed blob", layer: sparse, lost: []int{0, 1, 2, 3, 4}, gives: 5, keep: func(t testing.TB, s *store.Store, src *memSource) []fsverity.Digest {
			keepBlob(t, s, src.built.Blobs[sparse].Data)
			return nil
		}},
		{name: "a plain blob", layer: cut, gives: 1, keep: func(t testing.TB, s *store.Store, _ *memSource) []fsverity.Digest {
			return []fsverity.Digest{keepBlob(t, s, layers[cut])}
		}},
		{name: "a compressed blob", layer: cut, keep: func(t testing.TB, s *store.Store, src *memSource) []fsverity.Digest {
			return []fsverity.Digest{keepBlob(t, s, src.built.Blobs[cut].Data)}
		}},
		{name: "a blob that is no layer's", layer: cut, keep: func(t testing.TB, s *store.Store, _ *memSource) []fsverity.Digest {
			return []fsverity.Digest{keepBlob(t, s, []byte(longWord))}
		}},
	} {
		for _, damage := range damages {
			t.Run(tt.name+", "+damage.name, func(t *testing.T) {
				s := fastStore(t, fsverity.SHA256)
				src := newSource(t, ocitest.Image{Layers: layers, Compression: []ocitest.Compression{ocitest.Zstd}})
				_, img := pullInto(t, s, src)
				var want []fsverity.Digest
				if tt.keep != nil {
					want = tt.keep(t, s, src)
				}
				objects := layerObjects(t, s, img.Layers[tt.layer].DiffID)
				for _, i := range tt.lost {
					want = append(want, objects[i])
				}
				saved := map[fsverity.Digest][]byte{}
				for _, d := range want {
					b, err := os.ReadFile(objectPath(s, d))
					must(t, err)
					saved[d] = b
					damage.do(t, objectPath(s, d))
				}
				restored, err := ObjectsFromStreams(ctx, s, want)
				if err != nil || len(restored) != tt.gives {
					t.Errorf("%d restored of %d, want %d; %v", len(restored), len(want), tt.gives, err)
				}
				checkObjects(t, s, restored...)
				for d, b := range saved { // for the store's check in the end
					if !slices.Contains(restored, d) {
						must(t, markRotten(s, d))
						_, err := s.PutObject(d, b)
						must(t, err)
					}
				}
			})
		}
	}
}

// TestHealUnwritable checks that a failure to store what was found is told of, though failures to read are not.
func TestHealUnwritable(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	src := hurtSource(t, wholeText)
	_, img := pullInto(t, s, src)
	lost := layerObjects(t, s, img.Layers[0].DiffID)[1]
	must(t, os.Remove(objectPath(s, lost)))
	must(t, os.WriteFile(objectPath(s, lost), []byte("rubbish"), 0o644))
	must(t, s.WriteFile("quarantine", nil)) // so that it can't be replaced
	if _, err := ObjectsFromStreams(context.Background(), s, []fsverity.Digest{lost}); !errorIs(err, "quarantine") {
		t.Errorf("from streams: %v", err)
	}
	if _, _, err := RefetchObjects(context.Background(), s, src, img.Layers[0], []fsverity.Digest{lost}, HealOptions{}); !errorIs(err, "quarantine") {
		t.Errorf("from the source: %v", err)
	}
	must(t, os.Remove(filepath.Join(s.Dir(), "flatroot/quarantine")))
	healAll(t, s, src, img.Layers[0], lost)
}
