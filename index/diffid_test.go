package index

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/tree"
)

// badWriter writes no image.
func badWriter(err error) ImageWriter { return func(io.Writer, *tree.Tree) error { return err } }

// lieAbout has a config claim that a layer is another tar.
func lieAbout(layer int, tar []byte) func(*ocispec.Image) {
	return func(c *ocispec.Image) { c.RootFS.DiffIDs[layer] = digest.FromBytes(tar) }
}

// TestBuiltLayerIsKnown pulls from a registry what was built here, compressed in several ways: no byte of a layer is fetched.
func TestBuiltLayerIsKnown(t *testing.T) {
	o := newOnline(t)
	s := storetest.New(t, store.InitOptions{})
	tar := incompressible(1, 100_000)
	built, err := Build(context.Background(), s, bytes.NewReader(tar), "tar", ImportOptions{Image: writeImage, Name: "built"})
	if err != nil {
		t.Fatal(err)
	}
	for name, as := range map[string]ocitest.Compression{"gzip": ocitest.Gzip, "zstd": ocitest.Zstd, "plain": ocitest.None} {
		b := o.push(t, ocitest.Image{Layers: [][]byte{tar}, Compression: []ocitest.Compression{as}}, name)
		r := o.mustPull(t, s, name)
		if r.Image != built.Image || r.Layers != (LayerCounts{Total: 1, Reused: 1}) || r.Bytes.Fetched != 0 || o.given(b.Blobs[0]) != 0 {
			t.Errorf("%s: %+v; %v", name, r, o.Requests())
		}
	}
}

// TestRebuiltLayer pulls an image of which one layer has changed, and then one whose blobs are compressed anew: only what
// changed is fetched.
func TestRebuiltLayer(t *testing.T) {
	o := newOnline(t)
	s := storetest.New(t, store.InitOptions{})
	layers := [][]byte{incompressible(1, 50_000), incompressible(2, 50_000), incompressible(3, 50_000)}
	o.push(t, ocitest.Image{Layers: layers}, "app")
	first := o.mustPull(t, s, "app")

	layers[1] = incompressible(4, 60_000)
	b := o.push(t, ocitest.Image{Layers: layers}, "app")
	changed := b.Blobs[1]
	r := o.mustPull(t, s, "app")
	if r.Layers != (LayerCounts{Total: 3, Reused: 2, Fetched: 1}) || r.Bytes.Fetched != changed.Descriptor.Size || r.Image == first.Image {
		t.Errorf("%+v", r)
	}
	for i, l := range b.Blobs[:3] {
		if n := o.given(l); (n > 0) != (i == 1) {
			t.Errorf("%d bytes of layer %d were given", n, i+1)
		}
	}

	b = o.push(t, ocitest.Image{Layers: layers, Compression: []ocitest.Compression{ocitest.Zstd}}, "app")
	again := o.mustPull(t, s, "app")
	if again.Image != r.Image || again.Layers.Fetched != 0 || again.Bytes.Fetched != 0 || again.Manifest == r.Manifest {
		t.Errorf("%+v", again)
	}
	for _, l := range b.Blobs[:3] {
		if o.given(l) != 0 {
			t.Errorf("asked for %v", o.Requests())
		}
	}
}

// TestLyingConfig has configs that claim other diffIDs than their blobs have.
func TestLyingConfig(t *testing.T) {
	o := newOnline(t)
	honest, other := incompressible(1, 80_000), incompressible(2, 80_000)
	good := o.push(t, ocitest.Image{Layers: [][]byte{honest}}, "honest")
	// The liar has a blob of its own, and says that it is the honest image's layer.
	liar := o.push(t, ocitest.Image{Layers: [][]byte{other}, EditConfig: lieAbout(0, honest)}, "liar")
	blob := liar.Blobs[0]
	claimed := oci.DiffID(digest.FromBytes(honest))

	t.Run("comes first", func(t *testing.T) {
		s := storetest.New(t, store.InitOptions{})
		_, err := o.pull(t, s, "liar", 0)
		checkError(t, err, []string{"layer 1 (", o.host, "the config's diffID", claimed.String()})
		checkUnnamed(t, s)
		checkNoPair(t, s, blob)
		if _, err := s.Entry(store.Streams, LayerEntry(claimed)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the layer has a name: %v", err)
		}
	})
	t.Run("comes second", func(t *testing.T) {
		s := storetest.New(t, store.InitOptions{})
		want := o.mustPull(t, s, "honest")
		o.Forget()
		r := o.mustPull(t, s, "liar")
		if r.Image != want.Image || r.Layers != (LayerCounts{Total: 1, Reused: 1}) || r.Bytes.Fetched != 0 {
			t.Errorf("%+v, want image %s", r, want.Image)
		}
		if o.given(blob) != 0 {
			t.Errorf("the blob was asked for: %v", o.Requests())
		}
		checkNoPair(t, s, blob)
		from, err := LayerOrigin(s, claimed)
		if err != nil || from.Blob != good.Blobs[0].Descriptor.Digest {
			t.Errorf("the layer is from %+v, %v", from, err)
		}
	})
}

// checkNoPair wants nothing noted of a blob.
func checkNoPair(t *testing.T, s *store.Store, b ocitest.Blob) {
	t.Helper()
	if note, err := s.Note(notesBlobs, b.Descriptor.Digest.String()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("noted of the blob: %q, %v", note, err)
	}
}
