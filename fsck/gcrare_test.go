package fsck_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// lying gives another layer than it says.
type lying struct {
	oci.Source
	blob []byte
}

func (l lying) OpenBlob(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.blob)), nil
}

// otherLayer has one file, which nothing else has.
func (w *world) otherLayer() []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	w.must(tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 5000, Format: tar.FormatPAX}))
	w.must(second(tw.Write(bytes.Repeat([]byte("other"), 1000))))
	w.must(tw.Close())
	return b.Bytes()
}

func (w *world) reopen() {
	path := w.s.Dir()
	w.must(w.s.Close())
	var err error
	w.s, err = store.Open(path, store.OpenOptions{})
	w.must(err)
}

func (w *world) gc(o store.GCOptions) store.GCReport {
	w.t.Helper()
	o.Tracers = fsck.Tracers()
	o.Prune = func(gone func(string) bool, dry bool) (int, error) { return index.PruneNotes(w.s, gone, dry) }
	r, err := w.s.GC(context.Background(), o)
	w.must(err)
	return r
}

// TestGCAfterLies: what a source gave that was not what it said is found without a look at all objects by order.
func TestGCAfterLies(t *testing.T) {
	w := newWorld(t, 2)
	i := w.images[0]
	w.flip(w.object(w.entry(store.Streams, "oci-layer-"+i.layers[0].String())))
	src := w.open(i.name)
	defer src.Close()
	r := w.repair(fsck.RepairOptions{Sources: []oci.Source{&lying{src, w.otherLayer()}}})
	if r.Count(fsck.IsProblem) == 0 {
		t.Fatalf("nothing was wrong:\n%s", describe(r))
	}
	w.reopen()
	w.repair(fsck.RepairOptions{Open: openPlace})
	if plain := w.gc(store.GCOptions{}); plain.Removed.Objects == 0 {
		t.Errorf("nothing was found: %+v", plain)
	}
	if full := w.gc(store.GCOptions{Full: true}); full.Removed.Objects > 0 {
		t.Errorf("then all of it was looked at, and %+v found", full.Removed)
	}
}

// TestGCQuarantine: what was damaged stays until the next gc, also if the image goes by that one.
func TestGCQuarantine(t *testing.T) {
	for _, full := range []bool{false, true} {
		w := newWorld(t, 1)
		w.flip(w.object(pick(w, w.allFileObjects())))
		w.repair(fsck.RepairOptions{Open: openPlace})
		for _, i := range w.images {
			w.must(index.Remove(w.s, i.name))
		}
		said, did := w.gc(store.GCOptions{Full: full, DryRun: true}), w.gc(store.GCOptions{Full: full})
		if said.Leftovers != did.Leftovers || did.Leftovers == 0 {
			t.Errorf("said %d leftovers, did %d", said.Leftovers, did.Leftovers)
		}
		if left, err := w.s.Quarantined(); len(left) > 0 || err != nil {
			t.Errorf("full %v: in quarantine there is %v, %v", full, left, err)
		}
	}
}

// TestGCNoFile: a stream without a ref, whose object is no file, keeps nothing else from going.
func TestGCNoFile(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"symlink":   func(path string) error { return os.Symlink("nothing", path) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraphWorld(t, 3)
			garbage := g.text()
			g.link(store.Streams, "oci-layer-"+g.digestName(), g.stream(stream.OCILayer, nil, []fsverity.Digest{garbage}))
			id := g.stream(stream.OCILayer, nil, nil)
			g.link(store.Streams, "oci-layer-"+g.digestName(), id)
			g.must(g.s.Settled())
			g.must(os.Remove(g.object(id)))
			g.must(spoil(g.object(id)))
			said, err := g.gc(store.GCOptions{DryRun: true})
			g.must(err)
			did, err := g.gc(store.GCOptions{})
			g.must(err)
			if g.has(garbage) || said.Removed != did.Removed {
				t.Errorf("said %+v, did %+v; there is still garbage: %v", said.Removed, did.Removed, g.has(garbage))
			}
		})
	}
}

// TestGCUnknownImage: an image that is referred to in a way that is not known stays, with its files.
func TestGCUnknownImage(t *testing.T) {
	g := newGraphWorld(t, 8)
	file := g.text()
	image := g.image([]fsverity.Digest{file})
	g.link(store.Images, image.String(), image)
	config := g.stream(stream.OCIConfig, []stream.NamedRef{{Name: "new.image", ID: image}}, nil)
	g.link(store.Streams, "live", config)
	g.must(g.s.SetRef(store.Streams, "live", "live"))
	g.must(g.s.Settled())
	r, err := g.gc(store.GCOptions{})
	g.must(err)
	if _, err := g.s.Entry(store.Images, image.String()); err != nil || !g.has(image) || !g.has(file) {
		t.Errorf("removed %+v; its entry: %v, the image is there: %v, its file: %v", r.Removed, err, g.has(image), g.has(file))
	}
}

// TestGCLayerGone: where layers' streams are lost, the images of which they were tell what else goes.
func TestGCLayerGone(t *testing.T) {
	w := newWorld(t, 1)
	for _, l := range w.images[0].layers {
		w.must(os.Remove(w.object(w.entry(store.Streams, "oci-layer-"+l.String()))))
	}
	for _, i := range w.images {
		w.must(index.Remove(w.s, i.name))
	}
	plain := w.gc(store.GCOptions{})
	for _, i := range w.images {
		if full := w.gc(store.GCOptions{Full: true}); full.Removed.Objects > int64(len(i.layers)) { // files that upper layers hid
			t.Errorf("first %+v, then %+v", plain.Removed, full.Removed)
		}
	}
}

// tearObject leaves an object as a power cut can: with zeros, and a mark of the process that was at it.
func (w *world) tearObject(d fsverity.Digest) (was []byte) {
	was = w.read(w.object(d))
	w.must(os.Remove(w.object(d)))
	w.must(os.WriteFile(w.object(d), make([]byte, len(was)), 0o644))
	b := []byte("an object of the process that was cut off from power, long enough to be one")
	_, err := w.s.PutObject(fsverity.Sum(w.s.Algorithm(), b), b)
	w.must(err)
	w.reopen()
	return was
}

// TestPullAfterPowerCut: what was being restored when the power went is not taken for restored.
func TestPullAfterPowerCut(t *testing.T) {
	w := newWorld(t, 1)
	i := w.images[0]
	for d := range w.fileObjects(i) {
		was := w.tearObject(d)
		src := w.open(i.name)
		r, err := index.Import(context.Background(), w.s, src, index.ImportOptions{
			Image: imageWriter, Name: i.name, Rules: i.report.Rules,
		})
		w.must(err)
		w.must(src.Close())
		if !bytes.Equal(w.read(w.object(d)), was) {
			t.Fatalf("object %s is still zeros, and the pull says %+v", d, r.Healed)
		}
	}
}
