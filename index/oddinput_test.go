package index

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// halves compresses the two halves of a plain tar apart, with something between them.
func halves(t *testing.T, as ocitest.Compression, between string) func([]byte) []byte {
	return func(tar []byte) []byte {
		var parts [][]byte
		for _, half := range [][]byte{tar[:len(tar)/2+1], tar[len(tar)/2+1:]} {
			b, err := ocitest.Image{Layers: [][]byte{half}, Compression: []ocitest.Compression{as}}.Build()
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, b.Find("layer").Data)
		}
		return bytes.Join(parts, []byte(between))
	}
}

// skippable is a zstd frame that decoders skip, with five bytes in it (RFC 8878, 3.1.2).
const skippable = "\x5e\x2a\x4d\x18\x05\x00\x00\x00hello"

// TestOddBlobs imports blobs that are unusual, but right. All of them hold the same tar.
func TestOddBlobs(t *testing.T) {
	tar := buildTar(t, sampleText)
	want := ""
	for _, odd := range []badImage{
		{name: "plain", as: ocitest.None},
		{name: "gzip", as: ocitest.Gzip},
		{name: "zstd", as: ocitest.Zstd},
		{name: "gzip of two members", as: ocitest.None, blob: halves(t, ocitest.Gzip, "")},
		{name: "gzip of two members, one between them empty", as: ocitest.None, blob: halves(t, ocitest.Gzip, string(gzipped(nil)))},
		{name: "zstd of two frames", as: ocitest.None, blob: halves(t, ocitest.Zstd, "")},
		{name: "zstd with a skippable frame between", as: ocitest.None, blob: halves(t, ocitest.Zstd, skippable)},
		{name: "zstd with a skippable frame before", as: ocitest.Zstd, blob: func(b []byte) []byte { return append([]byte(skippable), b...) }},
		{name: "zstd with a skippable frame behind", as: ocitest.Zstd, blob: tail(skippable)},
		{name: "gzip that is called plain", as: ocitest.None, blob: gzipped},
		{name: "plain that is called gzip", as: ocitest.Gzip, blob: func([]byte) []byte { return tar }},
		{name: "gzip that is called zstd", as: ocitest.Zstd, blob: func([]byte) []byte { return gzipped(tar) }},
	} {
		t.Run(odd.name, func(t *testing.T) {
			odd.layers = [][]byte{tar}
			s := storetest.New(t, store.InitOptions{})
			src := odd.build(t)
			r, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "odd"})
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				want = r.Image.String()
			}
			if r.Image.String() != want || r.Bytes.Fetched != int64(len(last(src).Data)) {
				t.Errorf("image %s, want %s; %d bytes fetched of %d", r.Image, want, r.Bytes.Fetched, len(last(src).Data))
			}
			checkTars(t, s, src, ocitest.Image{Layers: odd.layers})
		})
	}
}

// TestOddImages imports images that are unusual, but right.
func TestOddImages(t *testing.T) {
	a, b := buildTar(t, "dir usr\nfile usr/a data=a"), buildTar(t, "file usr/.wh.a\nfile usr/b data=b")
	for _, tt := range []struct {
		name   string
		layers [][]byte
		as     []ocitest.Compression
		want   LayerCounts
		tree   string // names
	}{
		{"no layers", nil, nil, LayerCounts{}, "/"},
		{"an empty layer", [][]byte{nil, a}, []ocitest.Compression{ocitest.None}, LayerCounts{Total: 2, Fetched: 2}, "/ /usr /usr/a"},
		{"an empty layer, gzip", [][]byte{nil, a}, nil, LayerCounts{Total: 2, Fetched: 2}, "/ /usr /usr/a"},
		{"a layer twice", [][]byte{a, b, a}, nil, LayerCounts{Total: 2, Fetched: 2}, "/ /usr /usr/a /usr/b"},
		{"a layer twice, compressed in two ways", [][]byte{a, b, a}, []ocitest.Compression{ocitest.Gzip, ocitest.Zstd, ocitest.None},
			LayerCounts{Total: 2, Fetched: 2}, "/ /usr /usr/a /usr/b"},
		{"a layer 127 times", bytes.SplitAfter(bytes.Repeat(a, 127), a)[:127], nil, LayerCounts{Total: 1, Fetched: 1}, "/ /usr /usr/a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := storetest.New(t, store.InitOptions{})
			m := ocitest.Image{Layers: tt.layers, Compression: tt.as}
			src := newSource(t, m)
			o := ImportOptions{Image: writeImage, Name: "odd"}
			r, err := Import(context.Background(), s, src, o)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for line := range strings.Lines(dumpTree(t, imageTree(t, s, r.Image))) {
				names = append(names, strings.Fields(line)[0])
			}
			if got := strings.Join(names, " "); got != tt.tree || r.Layers != tt.want {
				t.Errorf("%s, %+v; want %s, %+v", got, r.Layers, tt.tree, tt.want)
			}
			checkTars(t, s, src, m)
			if again, err := Import(context.Background(), s, src, o); err != nil || again.Image != r.Image || again.Layers.Fetched != 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

// TestBadDocuments imports from layouts whose manifest or config is wrong. No layer is looked at.
func TestBadDocuments(t *testing.T) {
	sample := text(t, goodText, sampleText)
	sha512 := digest.Digest("sha512:" + strings.Repeat("0", 128))
	for _, tt := range []struct {
		name     string
		config   func(*ocispec.Image)
		manifest func(*ocispec.Manifest)
		built    func(*ocitest.Built)
		err      string
	}{
		{name: "a diffID too few", config: func(c *ocispec.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[1:] }, err: "has 1 diff_ids, manifest"},
		{name: "a diffID too many", config: func(c *ocispec.Image) { c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, c.RootFS.DiffIDs[0]) }, err: "has 3 diff_ids, manifest"},
		{name: "a diffID that is a path", config: func(c *ocispec.Image) { c.RootFS.DiffIDs[0] = "sha256:../../../etc/passwd" }, err: "diff_ids[0]"},
		{name: "a diffID of another hash", config: func(c *ocispec.Image) { c.RootFS.DiffIDs[0] = sha512 }, err: "diff_ids[0]"},
		{name: "a layer of another hash", manifest: func(m *ocispec.Manifest) { m.Layers[0].Digest = sha512 }, err: "layers[0]"},
		{name: "a layer without a digest", manifest: func(m *ocispec.Manifest) { m.Layers[0].Digest = "" }, err: "layers[0]"},
		{name: "a layer of negative size", manifest: func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }, err: "layers[0]"},
		{name: "an encrypted layer", manifest: func(m *ocispec.Manifest) { m.Layers[0].MediaType += "+encrypted" }, err: "is no file system layer's"},
		{name: "an artifact", manifest: func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.example" }, err: "artifact"},
		{name: "a config that is too large", manifest: func(m *ocispec.Manifest) { m.Config.Size = 5 << 20 }, err: "config has 5242880 bytes, more than 4194304"},
		{name: "another config", built: func(b *ocitest.Built) {
			c := b.Find("config")
			c.Data = bytes.Replace(c.Data, []byte("linux"), []byte("minix"), 1)
		}, err: "has digest sha256:"},
		{name: "a config that is cut off", built: func(b *ocitest.Built) { c := b.Find("config"); c.Data = c.Data[:20] }, err: "config"},
		{name: "another manifest", built: func(b *ocitest.Built) {
			m := b.Find("manifest")
			m.Data = bytes.Replace(m.Data, []byte(`"size":`), []byte(`"Size":`), 1)
		}, err: "has digest sha256:"},
		{name: "schema 1", built: reroot(`{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[]}`), err: "docker schema 1"},
		{name: "manifest and image index at once", built: reroot(`{"schemaVersion":2,"layers":[],"manifests":[]}`), err: "readers may disagree"},
		{name: "two members of one name", built: reroot(`{"schemaVersion":2,"layers":[],"layers":[]}`), err: "layers"},
		{name: "no JSON", built: reroot(`layers`), err: "manifest"},
		{name: "a manifest of 5 MiB", built: reroot(`{"schemaVersion":2,"x":"` + strings.Repeat("x", 5<<20) + `"}`), err: "more than 4194304"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := ocitest.Image{Layers: sample, EditConfig: tt.config, EditManifest: tt.manifest}.Build()
			if err != nil {
				t.Fatal(err)
			}
			if tt.built != nil {
				tt.built(b)
			}
			dir := t.TempDir()
			if err := b.WriteLayout(dir, "v1"); err != nil {
				t.Fatal(err)
			}
			checkRefused(t, dir, tt.err)
		})
	}
}

// reroot puts another document in the manifest's place, with the right digest.
func reroot(doc string) func(*ocitest.Built) {
	return func(b *ocitest.Built) {
		m := b.Find("manifest")
		m.Data, m.Descriptor.Digest, m.Descriptor.Size = []byte(doc), digest.FromString(doc), int64(len(doc))
	}
}

// checkRefused imports from a layout, which fails before anything is stored.
func checkRefused(t *testing.T, dir, want string) {
	t.Helper()
	ref, err := oci.ParseReference("oci:" + dir + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	src, err := layout.Open(ref, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	s := storetest.New(t, store.InitOptions{})
	before := named(t, s)
	_, err = Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"})
	checkError(t, err, []string{want})
	if after := named(t, s); len(after) != len(before) {
		t.Errorf("names: %q, before %q", after, before)
	}
	if objects, err := os.ReadDir(filepath.Join(s.Dir(), "objects")); err != nil || len(objects) > 0 {
		t.Errorf("objects: %v, %v", objects, err)
	}
}
