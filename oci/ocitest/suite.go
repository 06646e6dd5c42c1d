package ocitest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Publish puts an image where a source finds it, and returns what opens the
// source for a platform, zero being the default. Blobs that are not what
// their descriptors say, or missing, must be published as they are.
type Publish func(t *testing.T, b *Built) func(oci.Platform) (oci.Source, error)

// Trait is what makes a kind of source know less than others do.
type Trait int

const (
	// Unclaimed sources have nothing that says what the outermost document is.
	Unclaimed Trait = iota
	// Unmanifested sources have neither manifests nor image indexes, but make
	// a manifest.
	Unmanifested
)

// TestSource runs what every oci.Source has to do.
func TestSource(t *testing.T, publish Publish, traits ...Trait) {
	s := suite{publish, traits}
	t.Run("images", s.images)
	if !s.is(Unmanifested) {
		t.Run("platforms", s.platforms)
		t.Run("lies", s.lies)
		t.Run("missing", s.missing)
		t.Run("documents", s.documents)
	}
	t.Run("ranges", s.ranges)
	t.Run("concurrent", s.concurrent)
	t.Run("cancelled", s.cancelled)
}

type suite struct {
	publish Publish
	traits  []Trait
}

func (s suite) is(t Trait) bool { return slices.Contains(s.traits, t) }

// Platforms that the suite makes images for.
var (
	amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}
	arm6  = oci.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	s390x = oci.Platform{OS: "linux", Architecture: "s390x"}
)

// Sample returns an image of two small layers for a platform.
func Sample(p oci.Platform) Image {
	return Image{
		Layers: [][]byte{
			Tar(File{Name: "usr/"}, File{Name: "usr/a", Data: "lower " + p.String()}),
			Tar(File{Name: "usr/b", Data: strings.Repeat("upper", 1000)}),
		},
		Platform: p,
	}
}

// builder is an Image or an Index.
type builder interface{ Build() (*Built, error) }

// build builds or fails the test.
func build(t *testing.T, b builder) *Built {
	t.Helper()
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// open publishes and opens, and closes after the test.
func (s suite) open(t *testing.T, b *Built, p oci.Platform) oci.Source {
	t.Helper()
	src, err := s.publish(t, b)(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return src
}

// images checks that images of every kind come back as they were made.
func (s suite) images(t *testing.T) {
	all := Sample(amd64)
	all.Compression = []Compression{Zstd, None}
	docker := Sample(amd64)
	docker.Docker = true
	for name, m := range map[string]Image{
		"gzip": Sample(amd64), "zstd and none": all, "docker": docker, "no layers": {Platform: amd64},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, m)
			src := s.open(t, b, oci.Platform{})
			d, err := src.Resolve(context.Background())
			got, ierr := src.Image(context.Background())
			if err := errors.Join(err, ierr); err != nil {
				t.Fatal(err)
			}
			want := b.Root()
			if s.is(Unmanifested) {
				want = got.Descriptor
				b.Find("manifest").Data = got.Manifest
			}
			if d.Digest != want.Digest || d.Size != want.Size {
				t.Fatalf("resolved to %+v, want %+v", d, want)
			}
			checkImage(t, m, b, got)
			checkLayers(t, src, b, got)
		})
	}
}

// checkImage compares an image with what it was made of.
func checkImage(t *testing.T, m Image, b *Built, got *oci.Image) {
	t.Helper()
	if !bytes.Equal(got.Manifest, b.Find("manifest").Data) || !bytes.Equal(got.Config, b.Find("config").Data) {
		t.Errorf("manifest or config are not the raw bytes:\n%s\n%s", got.Manifest, got.Config)
	}
	if got.Platform != m.Platform || got.Reference == "" || got.IndexDigest != "" {
		t.Errorf("got platform %s, reference %q, index %q", got.Platform, got.Reference, got.IndexDigest)
	}
	var want []oci.DiffID
	for _, tar := range m.Layers {
		want = append(want, oci.DiffID(digest.FromBytes(tar)))
	}
	if !slices.Equal(got.DiffIDs(), want) {
		t.Errorf("diffIDs are %v, want %v", got.DiffIDs(), want)
	}
}

// checkLayers reads all layers, and one of them as if it were longer.
func checkLayers(t *testing.T, src oci.Source, b *Built, m *oci.Image) {
	t.Helper()
	for i, l := range m.Layers {
		if l.Descriptor.Digest != b.Blobs[i].Descriptor.Digest {
			t.Errorf("layer %d is %s, want %s", i, l.Descriptor.Digest, b.Blobs[i].Descriptor.Digest)
		}
		stored := checkLayer(t, src, l)
		longer := stored.Descriptor
		longer.Size++
		if _, err := readBlob(src, longer); err == nil {
			t.Errorf("layer %d: read as if it were longer than it is", i)
		}
	}
}

// checkLayer reads a layer as the source has it.
func checkLayer(t *testing.T, src oci.Source, l oci.Layer) oci.Layer {
	t.Helper()
	stored, err := oci.Stored(context.Background(), src, l)
	if err != nil {
		t.Errorf("layer %s: %v", l.DiffID, err)
		return l
	}
	data, err := readBlob(src, stored.Descriptor)
	if err != nil || digest.FromBytes(data) != stored.Descriptor.Digest || int64(len(data)) != stored.Descriptor.Size {
		t.Errorf("layer %s: %d bytes, %v", l.DiffID, len(data), err)
	}
	if _, converted := src.(oci.ConvertedSource); stored.DiffID != l.DiffID || !converted && stored.Descriptor.Digest != l.Descriptor.Digest {
		t.Errorf("layer %+v is stored as %+v", l, stored)
	}
	return stored
}

// readBlob reads a blob to its end.
func readBlob(src oci.Source, d ocispec.Descriptor) (data []byte, err error) {
	r, err := src.OpenBlob(context.Background(), d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// platforms checks which image of an image index is taken.
func (s suite) platforms(t *testing.T) {
	index := Index{Images: []Image{Sample(arm6), Sample(amd64)}}
	nested := Index{Images: []Image{}, Indexes: []Index{index}}
	lone := Index{Images: []Image{Sample(arm6)}, NoPlatform: true}
	for _, c := range []struct {
		name  string
		index Index
		ask   oci.Platform
		want  oci.Platform // zero: PlatformError
	}{
		{"first", index, arm6, arm6},
		{"second", index, amd64, amd64},
		{"ancestor", index, oci.Platform{OS: "linux", Architecture: "arm"}, arm6},
		{"none", index, s390x, oci.Platform{}},
		{"manifest list", Index{Images: index.Images, Docker: true}, amd64, amd64},
		{"index in index", nested, amd64, amd64},
		{"lone without platform", lone, s390x, arm6},
		{"two without platform", Index{Images: index.Images, NoPlatform: true}, amd64, oci.Platform{}},
		{"empty", Index{}, amd64, oci.Platform{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := build(t, c.index)
			src := s.open(t, b, c.ask)
			m, err := src.Image(context.Background())
			if c.want == (oci.Platform{}) {
				if pe := new(oci.PlatformError); !errors.As(err, &pe) {
					t.Fatalf("got %v, want a PlatformError", err)
				}
				return
			}
			if err != nil || m.Platform != c.want || m.IndexDigest != b.Root().Digest {
				t.Fatalf("got %+v, %v; want %s by index %s", m, err, c.want, b.Root().Digest)
			}
		})
	}
}

// documents has all of an image index loaded, by a source that can, and what is missing of it told.
func (s suite) documents(t *testing.T) {
	b := build(t, Index{Images: []Image{Sample(arm6), Sample(amd64)}, Attested: true})
	src, ok := s.open(t, b, s390x).(oci.DocumentSource)
	if !ok {
		return
	}
	root, err := src.Resolve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	x, err := oci.LoadIndex(context.Background(), root, src.Document)
	if err != nil || x.Descriptor.Digest != b.Root().Digest || len(x.Images) != 2 || x.Images[0].Platform != arm6 || len(x.Others) != 2 {
		t.Fatalf("got %+v, %v", x, err)
	}
	one := x.Images[1]
	if _, err := oci.LoadIndex(context.Background(), one.Descriptor, src.Document); !errors.Is(err, oci.ErrNoIndex) {
		t.Errorf("a manifest for an index: %v", err)
	}
	gone := one.Descriptor
	gone.Digest = digest.FromString("gone")
	if _, err := src.Document(context.Background(), gone); err == nil || !strings.Contains(err.Error(), src.String()) {
		t.Errorf("a document that is not there: %v", err)
	}
}

// lies checks that nothing is believed that isn't so.
func (s suite) lies(t *testing.T) {
	damages := map[string]func(*Built){
		"manifest changed": func(b *Built) { flip(b.Find("manifest")) },
		"manifest cut":     func(b *Built) { m := b.Find("manifest"); m.Data = m.Data[:len(m.Data)-1] },
		"manifest longer":  func(b *Built) { m := b.Find("manifest"); m.Data = append(m.Data, ' ') },
		"config changed":   func(b *Built) { flip(b.Find("config")) },
		"config cut":       func(b *Built) { m := b.Find("config"); m.Data = m.Data[:len(m.Data)-1] },
		"config longer":    func(b *Built) { m := b.Find("config"); m.Data = append(m.Data, ' ') },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			b := build(t, Sample(amd64))
			if s.is(Unclaimed) { // what an image index lists is claimed
				b = build(t, Index{Images: []Image{Sample(amd64)}})
			}
			damage(b)
			_, err := s.open(t, b, amd64).Image(context.Background())
			de, se := new(oci.DigestError), new(oci.SizeError)
			if !errors.As(err, &de) && !errors.As(err, &se) {
				t.Errorf("got %v, want a DigestError or SizeError", err)
			}
		})
	}
	t.Run("diff_ids", func(t *testing.T) {
		m := Sample(amd64)
		m.EditConfig = func(c *ocispec.Image) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[1:] }
		_, err := s.open(t, build(t, m), oci.Platform{}).Image(context.Background())
		if err == nil || !strings.Contains(err.Error(), "1 diff_ids") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("artifact", func(t *testing.T) {
		m := Sample(amd64)
		m.EditManifest = func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.example.chart" }
		_, err := s.open(t, build(t, m), oci.Platform{}).Image(context.Background())
		if !errors.Is(err, oci.ErrArtifact) {
			t.Errorf("got %v", err)
		}
	})
}

// flip changes a blob without changing its length or making it no JSON.
func flip(b *Blob) {
	b.Data = bytes.Replace(b.Data, []byte("linux"), []byte("minix"), 1)
	b.Data = bytes.Replace(b.Data, []byte(`"size":`), []byte(`"Size":`), 1)
}

// missing checks that the error names what isn't there.
func (s suite) missing(t *testing.T) {
	b := build(t, Sample(amd64))
	layer, config := b.Find("layer").Descriptor, b.Find("config").Descriptor
	gone := func(ds ...ocispec.Descriptor) *Built {
		return &Built{Blobs: slices.DeleteFunc(slices.Clone(b.Blobs), func(blob Blob) bool {
			return slices.ContainsFunc(ds, func(d ocispec.Descriptor) bool { return d.Digest == blob.Descriptor.Digest })
		})}
	}
	src := s.open(t, gone(layer), oci.Platform{})
	if _, err := src.Image(context.Background()); err != nil {
		t.Errorf("layer missing: image: %v", err)
	}
	if _, err := readBlob(src, layer); err == nil || !strings.Contains(err.Error(), layer.Digest.Encoded()) {
		t.Errorf("layer missing: got %v", err)
	}
	src = s.open(t, gone(config), oci.Platform{})
	if _, err := src.Image(context.Background()); err == nil || !strings.Contains(err.Error(), config.Digest.Encoded()) {
		t.Errorf("config missing: got %v", err)
	}
	for _, d := range []digest.Digest{"", "sha256:../../../../../etc/passwd", "sha512:" + digest.Digest(strings.Repeat("0", 128))} {
		if _, err := src.OpenBlob(context.Background(), ocispec.Descriptor{Digest: d}); err == nil {
			t.Errorf("opened a blob with digest %q", d)
		}
	}
}

// ranges checks the parts of a blob, of sources that can give them.
func (s suite) ranges(t *testing.T) {
	b := build(t, Sample(amd64))
	src, ok := s.open(t, b, oci.Platform{}).(oci.RangeSource)
	if !ok {
		return // it promises none
	}
	layer := b.Find("layer")
	size := layer.Descriptor.Size
	for _, c := range []struct{ offset, length int64 }{{0, 1}, {0, size}, {size - 1, 1}, {10, 20}, {-1, 1}, {0, 0}, {1, size}, {size, 1}} {
		r, err := src.OpenRange(context.Background(), layer.Descriptor, c.offset, c.length)
		valid := c.offset >= 0 && c.length > 0 && c.offset+c.length <= size
		if !valid {
			if err == nil {
				t.Errorf("%d bytes at %d of %d: no error", c.length, c.offset, size)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d bytes at %d: %v", c.length, c.offset, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, layer.Data[c.offset:c.offset+c.length]) {
			t.Errorf("%d bytes at %d: got %d bytes, %v", c.length, c.offset, len(got), err)
		}
	}
}

// concurrent checks that one source serves several goroutines.
func (s suite) concurrent(t *testing.T) {
	src := s.open(t, build(t, Sample(amd64)), oci.Platform{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := src.Image(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			for _, l := range m.Layers {
				checkLayer(t, src, l)
			}
		})
	}
	wg.Wait()
}

// cancelled checks that a context that has ended is heeded.
func (s suite) cancelled(t *testing.T) {
	b := build(t, Sample(amd64))
	src := s.open(t, b, oci.Platform{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := src.Image(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("image: got %v", err)
	}
	if _, err := src.OpenBlob(ctx, b.Find("layer").Descriptor); !errors.Is(err, context.Canceled) {
		t.Errorf("blob: got %v", err)
	}
}
