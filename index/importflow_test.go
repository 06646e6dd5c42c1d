package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/store/stream"
)

// stalled is a blob that gives some bytes and then nothing, until its context ends, as a connection to a silent server.
type stalled struct {
	ctx     context.Context
	rest    []byte
	waiting func() // called once nothing comes any more
}

func (s *stalled) Read(p []byte) (int, error) {
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, nil
	}
	if s.waiting != nil {
		s.waiting()
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (s *stalled) Close() error { return nil }

// stall makes the blob of layer i give n bytes and then nothing.
func (s *memSource) stall(i, n int, waiting func()) {
	b := s.built.Blobs[i]
	s.open[b.Descriptor.Digest] = func(ctx context.Context) io.ReadCloser {
		return &stalled{ctx, b.Data[:n], waiting}
	}
}

// TestCancel ends imports wherever they may wait. They return at once, leave nothing running and nothing named.
func TestCancel(t *testing.T) {
	layers := text(t, goodText, sampleText)
	for _, as := range []ocitest.Compression{ocitest.Gzip, ocitest.Zstd, ocitest.None} {
		for _, n := range []int{0, 1, 100, 600, 3000, 200_000, 1_400_000} {
			t.Run(fmt.Sprintf("%d after %d bytes", as, n), func(t *testing.T) {
				goroutines := runtime.NumGoroutine()
				s := storetest.New(t, store.InitOptions{})
				src := newSource(t, ocitest.Image{Layers: layers, Compression: []ocitest.Compression{as}})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				src.stall(1, min(n, len(src.built.Blobs[1].Data)-1), cancel)
				_, err := Import(ctx, s, src, ImportOptions{Image: writeImage, Name: "image"})
				if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), "context canceled") != 1 {
					t.Errorf("%v", err)
				}
				checkUnnamed(t, s)
				checkDescriptors(t, s)
				checkGoroutines(t, goroutines)
			})
		}
	}
}

// TestCancelEarly is about a context that has ended before.
func TestCancelEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := storetest.New(t, store.InitOptions{})
	before := len(named(t, s))
	_, err := Import(ctx, s, newSource(t, ocitest.Image{Layers: text(t, sampleText)}), ImportOptions{Image: writeImage, Name: "image"})
	if !errors.Is(err, context.Canceled) || len(named(t, s)) != before {
		t.Errorf("%v; named: %q", err, named(t, s))
	}
}

// TestFirstCause checks that the error is about the layer that is at fault, not about those that were given up for it, and
// comes although another layer's server says nothing.
func TestFirstCause(t *testing.T) {
	layers := text(t, "file 1 size=3000000", "file 2 size=3000000", "file 3 size=3000000", "file 4 size=3000000")
	for i := range 20 {
		src := newSource(t, ocitest.Image{Layers: layers, Compression: []ocitest.Compression{ocitest.Compression(i % 3)}})
		for layer := range 3 {
			src.stall(layer, len(src.built.Blobs[layer].Data)/2, nil)
		}
		bad := &src.built.Blobs[3]
		bad.Data = bad.Data[:len(bad.Data)-1-i]
		s := storetest.New(t, store.InitOptions{})
		_, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
		checkError(t, err, []string{"layer 4 (", "the blob ends after"})
		checkUnnamed(t, s)
	}
}

// TestStalledLayer has a layer that is at fault before its server falls silent.
func TestStalledLayer(t *testing.T) {
	src := newSource(t, ocitest.Image{Layers: text(t, "type V bad\nfile a size=3000000"), Compression: []ocitest.Compression{ocitest.None}})
	src.stall(0, chunkBytes+1000, nil) // in the second chunk, while the first is being cut
	s := storetest.New(t, store.InitOptions{})
	_, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
	checkError(t, err, []string{"layer 1 (", "entry type 'V'"})
}

// TestCutContents cuts tars within contents of all sizes: the error says where, whoever comes to know of it first, and no
// part of a file becomes an object.
func TestCutContents(t *testing.T) {
	h := startHashers(hashed{fsverity.SHA256})
	defer h.stop()
	for _, size := range []int{65, 5000, 600_000, 3_000_000} {
		tar := buildTar(t, fmt.Sprintf("file a size=%d", size))[:tarBlock+size/2]
		for range 100 {
			_, err := (&layerJob{hashers: h, to: h.to, alg: fsverity.SHA256}).read(context.Background(), bytes.NewReader(tar), -1)
			checkError(t, err, []string{`tar entry 1, "a", at byte 0: read content: unexpected EOF`})
		}
		s := storetest.New(t, store.InitOptions{})
		src := newSource(t, ocitest.Image{Layers: [][]byte{tar}})
		_, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
		checkError(t, err, []string{"layer 1 (", `tar entry 1, "a", at byte 0: read content: unexpected EOF`})
		for o, err := range s.Objects() {
			t.Errorf("object of %d bytes, %v", o.Size, err)
		}
	}
}

// TestConcurrent imports one image, and another with the same layers, many times at once into one store.
func TestConcurrent(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	layers := text(t, goodText, sampleText, "file usr/.wh.small\nfile usr/new size=70")
	sources := []*memSource{
		newSource(t, ocitest.Image{Layers: layers}),
		newSource(t, ocitest.Image{Layers: layers[:2], Compression: []ocitest.Compression{ocitest.Zstd}}),
	}
	var wg sync.WaitGroup
	images := make([]fsverity.Digest, 8)
	for i := range images {
		wg.Go(func() {
			own, err := store.Open(s.Dir(), store.OpenOptions{}) // as another process would
			if err != nil {
				t.Error(err)
				return
			}
			defer own.Close()
			r, err := Import(context.Background(), own, sources[i%2], ImportOptions{Image: writeImage, Name: fmt.Sprint("image-", i%3)})
			if err != nil {
				t.Error(err)
				return
			}
			images[i] = r.Image
		})
	}
	wg.Wait()
	for i, d := range images {
		if d != images[i%2] {
			t.Errorf("import %d has image %s, import %d has %s", i, d, i%2, images[i%2])
		}
	}
	for n := range 3 {
		if _, err := Find(s, fmt.Sprint("image-", n)); err != nil {
			t.Error(err)
		}
	}
}

// foreign makes what another tool would leave of a layer: a stream under the layer's name, and no note of ours.
func foreign(t *testing.T, s *store.Store, tar []byte, d oci.DiffID, whole bool) fsverity.Digest {
	t.Helper()
	id, err := putStream(s, stream.OCILayer, func(w *stream.Writer) error {
		if !whole {
			return w.Inline(tar)
		}
		object := fsverity.Sum(s.Algorithm(), tar)
		if _, err := s.PutObject(object, tar); err != nil {
			return err
		}
		return w.External(object, int64(len(tar)))
	})
	if err == nil {
		_, err = s.Link(store.Streams, LayerEntry(d), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestForeignLayer finds a layer in the store that another tool put there. It is hashed once, and kept.
func TestForeignLayer(t *testing.T) {
	tar := buildTar(t, "dir usr\nfile usr/a data=x\nfile usr/b size=5000\nfile usr/c data=y")
	for _, whole := range []bool{false, true} {
		s := storetest.New(t, store.InitOptions{})
		src := &countingSource{Source: newSource(t, ocitest.Image{Layers: [][]byte{tar}})}
		img, err := src.Image(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		d := img.Layers[0].DiffID
		id := foreign(t, s, tar, d, whole)
		o := ImportOptions{Image: writeImage, Name: "image"}
		r, err := Import(context.Background(), s, src, o)
		if err != nil {
			t.Fatal(err)
		}
		if src.opened.Load() != 0 || r.Layers.Reused != 1 || mustEntry(t, s, LayerEntry(d)) != id {
			t.Errorf("%d blobs opened, %+v", src.opened.Load(), r.Layers)
		}
		if note, err := s.Note(notesVerified, d.String()); err != nil || note != id.String() {
			t.Errorf("note %q, %v; want %s", note, err, id)
		}
		want, err := Digest(context.Background(), src, s.Algorithm(), o)
		if err != nil || want.Image != r.Image {
			t.Errorf("image %s of the foreign stream, %v of the tar, %v", r.Image, want, err)
		}
	}
}

// TestForeignLie finds a stream under a layer's name that does not give the layer's tar: it is not used, but replaced.
func TestForeignLie(t *testing.T) {
	tar := buildTar(t, "file a data=x")
	src := newSource(t, ocitest.Image{Layers: [][]byte{tar}})
	d := oci.DiffID(digest.FromBytes(tar))
	for name, make := range map[string]func(*store.Store) (fsverity.Digest, error){
		"another tar": func(s *store.Store) (fsverity.Digest, error) {
			return putStream(s, stream.OCILayer, func(w *stream.Writer) error { return w.Inline(buildTar(t, "file a data=y")) })
		},
		"no stream": func(s *store.Store) (fsverity.Digest, error) {
			return fsverity.Sum(s.Algorithm(), tar), putBytes(s, tar)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := storetest.New(t, store.InitOptions{})
			id, err := make(s)
			if err == nil {
				_, err = s.Link(store.Streams, LayerEntry(d), id)
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
			if err != nil || r.Layers.Fetched != 1 || r.Healed.Streams != 1 {
				t.Errorf("%+v, %v", r, err)
			}
			if v, err := VerifiedStream(s, d); err != nil || v == id || v != mustEntry(t, s, LayerEntry(d)) {
				t.Errorf("%s is noted as verified, %v", v, err)
			}
			if err := WriteTar(context.Background(), s, d, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLostNotes takes away what is ours alone: the next import hashes what is there and fetches nothing.
func TestLostNotes(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	src := &countingSource{Source: newSource(t, ocitest.Image{Layers: text(t, goodText, sampleText)})}
	o := ImportOptions{Image: writeImage, Name: "image"}
	first, err := Import(context.Background(), s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir(), "flatroot", notesVerified)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := Import(context.Background(), s, src, o)
		if err != nil || again.Image != first.Image || src.opened.Load() != 2 {
			t.Errorf("%+v, %v; %d blobs opened", again, err, src.opened.Load())
		}
	}
}

// TestDamagedObject breaks a file of a layer whose note is lost: that is found, and the file restored.
func TestDamagedObject(t *testing.T) {
	s := storetest.New(t, store.InitOptions{Verity: store.VerityOff})
	src := newSource(t, ocitest.Image{Layers: text(t, "dir usr\nfile usr/a size=5000")})
	o := ImportOptions{Image: writeImage, Name: "image"}
	first, err := Import(context.Background(), s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	content := []byte(strings.Repeat("x", 5000))
	object := filepath.Join(s.Dir(), "objects", fsverity.Sum(s.Algorithm(), content).ObjectPath())
	content[4000] ^= 1
	if err := os.WriteFile(object, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir(), "flatroot", notesVerified)); err != nil {
		t.Fatal(err)
	}
	r, err := Import(context.Background(), s, src, o)
	if err != nil || r.Image != first.Image || r.Layers.Reused != 1 || r.Healed != (HealCounts{Objects: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestForeignConfig finds a config that another tool stored without an image of ours. It gets one, keeps what it had, and
// another manifest that names it follows.
func TestForeignConfig(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	layers := text(t, goodText)
	a := newSource(t, ocitest.Image{Layers: layers})
	b := newSource(t, ocitest.Image{Layers: layers, EditManifest: func(m *ocispec.Manifest) {
		m.Annotations = map[string]string{"which": "b"}
	}})
	imgA, err := a.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	imgB, err := b.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	layer := foreign(t, s, layers[0], imgA.Layers[0].DiffID, false)
	theirs := stream.NamedRef{Name: "composefs.image", ID: layer} // any object will do
	config, err := putDocument(s, stream.OCIConfig, configEntry(imgA.ConfigDescriptor.Digest), imgA.Config,
		[]stream.NamedRef{{Name: imgA.Layers[0].DiffID.String(), ID: layer}, theirs})
	if err != nil {
		t.Fatal(err)
	}
	link(t, s, configEntry(imgA.ConfigDescriptor.Digest), config.id)
	toConfig := stream.NamedRef{Name: stream.ConfigPrefix + imgB.ConfigDescriptor.Digest.String(), ID: config.id}
	manifest, err := putDocument(s, stream.OCIManifest, manifestEntry(imgB.Descriptor.Digest), imgB.Manifest,
		[]stream.NamedRef{toConfig, {Name: imgB.Layers[0].DiffID.String(), ID: layer}})
	if err != nil {
		t.Fatal(err)
	}
	link(t, s, manifestEntry(imgB.Descriptor.Digest), manifest.id)

	if _, err := Import(context.Background(), s, a, ImportOptions{Image: writeImage, Name: "a"}); err != nil {
		t.Fatal(err)
	}
	id, refs, err := entryRefs(s, configEntry(imgA.ConfigDescriptor.Digest))
	if err != nil || id == config.id || !containsRefs(refs, []stream.NamedRef{theirs}) {
		t.Errorf("config %s, before %s: %v, %v", id, config.id, refs, err)
	}
	_, refs, err = entryRefs(s, manifestEntry(imgB.Descriptor.Digest))
	toConfig.ID = id
	if err != nil || !containsRefs(refs, []stream.NamedRef{toConfig}) {
		t.Errorf("the other manifest has %v, %v; want %v", refs, err, toConfig)
	}
	if i, err := lookUp(s, imgB.Descriptor.Digest, OCI1); err != nil || i == nil {
		t.Errorf("the other manifest: %v, %v", i, err)
	}
}

func link(t *testing.T, s *store.Store, entry string, id fsverity.Digest) {
	t.Helper()
	if _, err := s.Link(store.Streams, entry, id); err != nil {
		t.Fatal(err)
	}
}

func putBytes(s *store.Store, b []byte) error {
	_, err := s.PutObject(fsverity.Sum(s.Algorithm(), b), b)
	return err
}
