package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

var (
	otherPlatform = oci.Platform{OS: "linux", Architecture: "s390x"}
	thirdPlatform = oci.Platform{OS: "linux", Architecture: "riscv64"}
)

// sampleIndex lists images for this machine and two others: the first two share a layer, and one of the third is not compressed.
func sampleIndex(t testing.TB) ocitest.Index {
	return ocitest.Index{Images: []ocitest.Image{
		{Layers: text(t, hurtText, "file own size=100 fill=own"), Platform: oci.DefaultPlatform()},
		{Layers: text(t, hurtText, "file other size=100 fill=other"), Compression: []ocitest.Compression{ocitest.Gzip, ocitest.Zstd}, Platform: otherPlatform},
		{Layers: text(t, goodText), Compression: []ocitest.Compression{ocitest.None}, Platform: thirdPlatform},
	}}
}

// pushIndex puts an image index into the registry.
func (o *online) pushIndex(t *testing.T, x ocitest.Index, name string) *ocitest.Built {
	t.Helper()
	b, err := x.Build()
	must(t, err)
	must(t, b.Push("http://"+o.host, name, "v1"))
	o.Forget()
	return b
}

func (o *online) ref(name string) oci.Reference {
	return oci.Reference{Transport: oci.Docker, Host: o.host, Repository: name, Tag: "v1"}
}

func (o *online) options() registry.Options {
	return registry.Options{Keychain: authn.NewMultiKeychain(), Retry: registry.Retry{Tries: 1, First: 1, Longest: 1}}
}

func (o *online) source(t *testing.T, name string) oci.Source {
	t.Helper()
	src, err := registry.Open(o.ref(name), o.options())
	must(t, err)
	t.Cleanup(func() { src.Close() })
	return src
}

// pullAll imports all images of an index.
func (o *online) pullAll(t *testing.T, s *store.Store, name string, io ImportOptions) (*ImageIndexReport, error) {
	t.Helper()
	io.Image, io.Name, io.ImageObjects = writeImage, name, imageObjects
	return ImportAll(context.Background(), s, o.source(t, name), io)
}

func (o *online) mustPullAll(t *testing.T, s *store.Store, name string, io ImportOptions) *ImageIndexReport {
	t.Helper()
	r, err := o.pullAll(t, s, name, io)
	must(t, err)
	return r
}

// pushAll sends a name's image index back.
func (o *online) pushAll(t *testing.T, s *store.Store, name, to string, po PushOptions) (*PushReport, error) {
	t.Helper()
	x, err := FindImageIndex(s, name)
	must(t, err)
	sink, err := registry.OpenSink(o.ref(to), o.options())
	must(t, err)
	defer sink.Close()
	return PushImageIndex(context.Background(), s, x, sink, po)
}

func (o *online) resolve(t *testing.T, name string) digest.Digest {
	t.Helper()
	d, err := o.source(t, name).Resolve(context.Background())
	must(t, err)
	return d.Digest
}

func digests(r *ImageIndexReport) (all []string) {
	for _, i := range r.Images {
		all = append(all, i.Platform+" "+i.Image.String())
	}
	return all
}

// wantFollowed checks that the references of an image index lead to what the entries of their names do.
func wantFollowed(t testing.TB, s *store.Store, x digest.Digest) {
	t.Helper()
	_, refs, err := entryRefs(s, indexEntry(x))
	must(t, err)
	for _, r := range refs {
		if id := mustEntry(t, s, r.Name); id != r.ID {
			t.Errorf("the index refers to %s as %s, and its entry leads to %s", r.Name, r.ID, id)
		}
	}
}

// TestIndexRoundTrip sends image indexes through stores to other repositories, and from there to other stores.
func TestIndexRoundTrip(t *testing.T) {
	for name, edit := range map[string]func(*ocitest.Index){
		"images":       func(x *ocitest.Index) {},
		"attestations": func(x *ocitest.Index) { x.Attested = true },
		"no platforms": func(x *ocitest.Index) { x.NoPlatform = true },
		"manifest list": func(x *ocitest.Index) {
			x.Docker = true
			for n := range x.Images {
				x.Images[n].Docker = true
			}
		},
		"one image for two platforms": func(x *ocitest.Index) {
			x.Edit = func(i *ocispec.Index) {
				d := i.Manifests[1]
				d.Platform = &ocispec.Platform{OS: "linux", Architecture: "ppc64le"}
				i.Manifests = append(i.Manifests, d)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOnline(t)
			x := sampleIndex(t)
			edit(&x)
			b := o.pushIndex(t, x, "from")
			s := fastStore(t, fsverity.SHA256)
			r := o.mustPullAll(t, s, "from", ImportOptions{KeepBlobs: true})
			if r.Index != b.Root().Digest || len(r.Images) != 3 || x.Attested && r.Others != (OtherCounts{Total: 3, Blobs: 6}) {
				t.Errorf("report %+v", r)
			}
			wantFollowed(t, s, r.Index)
			p, err := o.pushAll(t, s, "from", "to", PushOptions{Compression: AsItWas})
			must(t, err)
			if got := o.resolve(t, "to"); got != r.Index || p.Manifest != got || !p.SameManifest || p.LeftOut > 0 || len(p.Images) != 3 {
				t.Errorf("pushed %s: %+v", got, p)
			}
			again := o.mustPullAll(t, fastStore(t, fsverity.SHA256), "to", ImportOptions{})
			if got, want := digests(again), digests(r); !slices.Equal(got, want) {
				t.Errorf("came back as %v, not %v", got, want)
			}
		})
	}
}

// TestIndexRewritten pushes an index of which nothing was kept: its images are the same, their manifests others, and what was
// about those is left out.
func TestIndexRewritten(t *testing.T) {
	o := newOnline(t)
	x := sampleIndex(t)
	x.Attested = true
	x.Edit = func(i *ocispec.Index) { i.Annotations = map[string]string{"what": "a <test>"} }
	o.pushIndex(t, x, "from")
	s := fastStore(t, fsverity.SHA256)
	r := o.mustPullAll(t, s, "from", ImportOptions{})
	if r.Others != (OtherCounts{Total: 3}) {
		t.Errorf("report %+v", r.Others)
	}
	_, err := o.pushAll(t, s, "from", "to", PushOptions{Compression: AsItWas})
	if err == nil || !strings.Contains(err.Error(), "--keep-blobs") {
		t.Errorf("as it was: %v", err)
	}
	p, err := o.pushAll(t, s, "from", "to", PushOptions{Compression: zst})
	must(t, err)
	if p.SameManifest || p.LeftOut != 3 || p.Manifest == r.Index || p.Layers.Total != 5 {
		t.Errorf("pushed %+v", p)
	}
	other := fastStore(t, fsverity.SHA256)
	again := o.mustPullAll(t, other, "to", ImportOptions{})
	if got, want := digests(again), digests(r); !slices.Equal(got, want) || again.Others.Total > 0 || again.Index != p.Manifest {
		t.Errorf("came back as %v, not %v", got, want)
	}
	back, err := FindImageIndex(other, "to")
	must(t, err)
	if doc, err := oci.ParseDocument(back.Raw, ""); err != nil || doc.Annotations["what"] != "a <test>" {
		t.Errorf("annotations: %v, %v", doc, err)
	}
	once, err := o.pushAll(t, s, "from", "twice", PushOptions{Compression: zst})
	if err != nil || once.Manifest != p.Manifest {
		t.Errorf("once more: %+v, %v", once, err)
	}
}

// TestIndexFetchedOnce: a layer that two images share is fetched once, and what the store has of an index is not asked for.
func TestIndexFetchedOnce(t *testing.T) {
	o := newOnline(t)
	x := sampleIndex(t)
	x.Attested = true
	o.pushIndex(t, x, "from")
	s := fastStore(t, fsverity.SHA256)
	r := o.mustPullAll(t, s, "from", ImportOptions{KeepBlobs: true})
	if a, b := r.Images[0].Layers, r.Images[1].Layers; a != (LayerCounts{2, 0, 2}) || b != (LayerCounts{2, 1, 1}) {
		t.Errorf("layers %+v and %+v", a, b)
	}
	before := named(t, s)
	o.Forget()
	again := o.mustPullAll(t, s, "from", ImportOptions{KeepBlobs: true})
	if got := requests(o); len(got) != 1 { // what the tag stands for
		t.Errorf("requests: %v", got)
	}
	if !slices.Equal(digests(again), digests(r)) || !slices.Equal(named(t, s), before) {
		t.Errorf("it is another one: %v", again)
	}
	// Another tag of it costs as little.
	must(t, Tag(s, "from", "tagged"))
	y, err := FindImageIndex(s, "tagged")
	if err != nil || y == nil || y.Digest != r.Index {
		t.Errorf("tagged: %+v, %v", y, err)
	}
}

// TestIndexNames is what names of indexes stand for.
func TestIndexNames(t *testing.T) {
	o := newOnline(t)
	o.pushIndex(t, sampleIndex(t), "all")
	without := sampleIndex(t)
	without.Images = without.Images[1:]
	o.pushIndex(t, without, "foreign")
	s := fastStore(t, fsverity.SHA256)
	all := o.mustPullAll(t, s, "all", ImportOptions{})
	foreign := o.mustPullAll(t, s, "foreign", ImportOptions{})

	i, err := Find(s, "all")
	if err != nil || i.Image != all.Images[0].Image || i.Index != all.Index || i.Platform != oci.DefaultPlatform() {
		t.Errorf("all: %+v, %v", i, err)
	}
	if _, err := Find(s, "foreign"); !errors.As(err, new(*oci.PlatformError)) {
		t.Errorf("foreign: %v", err)
	}
	for n, p := range []oci.Platform{otherPlatform, thirdPlatform} {
		i, err := FindFor(s, "foreign", p)
		if err != nil || i.Image != foreign.Images[n].Image || i.Platform != p {
			t.Errorf("%s: %+v, %v", p, i, err)
		}
	}
	var listed []string
	for i, err := range Images(s) {
		must(t, err)
		platforms, err := Platforms(s, i)
		must(t, err)
		listed = append(listed, fmt.Sprintln(i.Name, i.Image == all.Images[0].Image, len(platforms)))
	}
	if want := []string{"all true 3\n", "foreign false 2\n"}; !slices.Equal(listed, want) {
		t.Errorf("listed %q, want %q", listed, want)
	}
	must(t, TagFor(s, "foreign", "one", otherPlatform))
	if i, err := Find(s, "one"); err != nil || i.Image != foreign.Images[0].Image || i.Index != "" {
		t.Errorf("one: %+v, %v", i, err)
	}
	u, err := DiskUsage(s, func(*Info, func(fsverity.Digest) error) error { return nil })
	if err != nil || len(u.Images) != 3 || u.Others != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	// A pull of one image takes the name from the index.
	if _, err := Import(context.Background(), s, o.source(t, "all"), ImportOptions{Image: writeImage, Name: "all"}); err != nil {
		t.Fatal(err)
	}
	if x, err := FindImageIndex(s, "all"); x != nil || err != nil {
		t.Errorf("it is still an index: %+v, %v", x, err)
	}
	must(t, Remove(s, "foreign"))
	if names, err := Names(s); err != nil || !slices.Equal(names, []string{"all", "one"}) {
		t.Errorf("names %v, %v", names, err)
	}
}

func requests(o *online) (all []string) {
	for _, r := range o.Requests() {
		all = append(all, r.String())
	}
	return all
}

// serveBuilt has the blobs served as they are, and gives the host.
func serveBuilt(t *testing.T, b *ocitest.Built) string {
	t.Helper()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull)
	srv := httptest.NewServer(b.Handler())
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// putOtherStream stores a layer's tar as one object, with a stream of its own.
func putOtherStream(t *testing.T, s *store.Store, l LayerInfo) fsverity.Digest {
	t.Helper()
	var tar bytes.Buffer
	must(t, WriteTar(context.Background(), s, l.DiffID, &tar))
	object := fsverity.Sum(s.Algorithm(), tar.Bytes())
	_, err := s.PutObject(object, tar.Bytes())
	must(t, err)
	id, err := putDocumentStream(s, stream.OCILayer, object, l.TarSize, nil)
	must(t, err)
	return id
}

// TestIndexFollows: an index goes where its manifests go.
func TestIndexFollows(t *testing.T) {
	o := newOnline(t)
	x := sampleIndex(t)
	o.pushIndex(t, x, "from")
	s := fastStore(t, fsverity.SHA256)
	r := o.mustPullAll(t, s, "from", ImportOptions{})
	before := mustEntry(t, s, indexEntry(r.Index))
	moved := func(what string) {
		t.Helper()
		wantFollowed(t, s, r.Index)
		if now := mustEntry(t, s, indexEntry(r.Index)); now == before {
			t.Errorf("%s: nothing has moved", what)
		} else {
			before = now
		}
	}
	for what, io := range map[string]ImportOptions{"kept blobs": {KeepBlobs: true}, "other rules": {Rules: Faithful1}} {
		io.Image, io.Name = writeImage, "one"
		_, err := Import(context.Background(), s, o.source(t, "from"), io)
		must(t, err)
		moved(what)
	}
	// A layer that all of them have, then a config and a manifest.
	i, err := Find(s, "from")
	must(t, err)
	other := putOtherStream(t, s, i.Layers[0])
	unlock, err := s.LockEntries(context.Background())
	must(t, err)
	must(t, s.Relink(store.Streams, LayerEntry(i.Layers[0].DiffID), other))
	_, err = moveLayer(context.Background(), s, i.Layers[0].DiffID, other)
	unlock()
	must(t, err)
	moved("a layer")
	find := func(digest.Digest) ([]byte, error) { return nil, errors.New("not asked for") }
	for _, entry := range []string{manifestEntry(i.Manifest), indexEntry(r.Index)} {
		id := mustEntry(t, s, entry)
		must(t, s.RemoveEntry(store.Streams, entry))
		raw, err := readDocument(s, id)
		must(t, err)
		must(t, RestoreDocument(context.Background(), s, entry, func(digest.Digest) ([]byte, error) { return raw, nil }, writeImage))
		wantFollowed(t, s, r.Index)
		must(t, RestoreDocument(context.Background(), s, entry, find, writeImage))
	}
	if x, err := FindImageIndex(s, "from"); err != nil || len(x.Images) != 3 {
		t.Errorf("%+v, %v", x, err)
	}
}

// TestIndexAccepted asks once, about the index. One that is refused has nothing fetched.
func TestIndexAccepted(t *testing.T) {
	o := newOnline(t)
	b := o.pushIndex(t, sampleIndex(t), "from")
	s := fastStore(t, fsverity.SHA256)
	before := fmt.Sprint(named(t, s))
	want := []Resolved{{Root: b.Root().Digest, Manifest: b.Root().Digest}}
	a := &asked{refuses: true}
	if _, err := o.pullAll(t, s, "from", ImportOptions{Accept: a.accept}); !errors.Is(err, errRefused) || !slices.Equal(a.calls, want) {
		t.Errorf("asked %v, got %v", a.calls, err)
	}
	if after := fmt.Sprint(named(t, s)); after != before || slices.ContainsFunc(requests(o), func(r string) bool { return strings.Contains(r, b.Find("layer").Descriptor.Digest.String()) }) {
		t.Errorf("there is %s, after %v", after, requests(o))
	}
	key := digest.FromString("key")
	a = &asked{answer: []Signature{{Signed: b.Root().Digest, Key: key}}}
	r := o.mustPullAll(t, s, "from", ImportOptions{Accept: a.accept})
	if !slices.Equal(a.calls, want) || !slices.Equal(r.SignedBy, []digest.Digest{key}) {
		t.Errorf("asked %v, report %+v", a.calls, r)
	}
	for _, d := range []digest.Digest{r.Index, r.Images[0].Manifest, r.Images[2].Manifest} {
		if list, err := Signatures(s, d); err != nil || len(list) != 1 || list[0].Key != key {
			t.Errorf("noted of %s: %v, %v", d, list, err)
		}
	}
}

// TestIndexSingle: what is no image index is pulled as ever.
func TestIndexSingle(t *testing.T) {
	o := newOnline(t)
	o.push(t, ocitest.Image{Layers: text(t, hurtText), Platform: otherPlatform}, "one")
	s := fastStore(t, fsverity.SHA256)
	r := o.mustPullAll(t, s, "one", ImportOptions{})
	x, err := FindImageIndex(s, "one")
	if r.Index != "" || len(r.Images) != 1 || x != nil || err != nil {
		t.Errorf("report %+v, index %v, %v", r, x, err)
	}
}

// TestIndexBad: what is wrong with an index is said with where it was, and nothing is named.
func TestIndexBad(t *testing.T) {
	editing := func(edit func(d *ocispec.Descriptor)) func(*ocitest.Index) {
		return func(x *ocitest.Index) { x.Edit = func(i *ocispec.Index) { edit(&i.Manifests[1]) } }
	}
	for _, c := range []struct {
		name   string
		edit   func(x *ocitest.Index)
		damage func(b *ocitest.Built)
		want   string
	}{
		{"index in index", func(x *ocitest.Index) { x.Indexes = []ocitest.Index{sampleIndex(t)} }, nil, "manifests[3]: sha256:"},
		{"index called a manifest", func(x *ocitest.Index) {
			x.Indexes = []ocitest.Index{sampleIndex(t)}
			x.Edit = func(i *ocispec.Index) { i.Manifests[3].MediaType = ocispec.MediaTypeImageManifest }
		}, nil, `media type "application/vnd.oci.image.manifest.v1+json" does not fit`},
		{"index called nothing", func(x *ocitest.Index) {
			x.Indexes = []ocitest.Index{sampleIndex(t)}
			x.Edit = func(i *ocispec.Index) { i.Manifests[3].MediaType = "" }
		}, nil, "is an image index itself"},
		{"10,000 manifests", func(x *ocitest.Index) {
			x.Edit = func(i *ocispec.Index) { i.Manifests = slices.Repeat(i.Manifests[:1], 10000) }
		}, nil, "lists 10000 manifests, more than the 256"},
		{"two of a platform", func(x *ocitest.Index) { x.Images[1].Platform = x.Images[2].Platform }, nil, "two images for linux/riscv64, sha256:"},
		{"two of a platform, not said", func(x *ocitest.Index) {
			x.NoPlatform, x.Images[1].Platform = true, x.Images[2].Platform
		}, nil, "two images for linux/riscv64"},
		{"two of a platform, by other names", editing(func(d *ocispec.Descriptor) {
			d.Platform = &ocispec.Platform{OS: "Linux", Architecture: "riscv64"}
		}), nil, "two images for linux/riscv64"},
		{"no image", func(x *ocitest.Index) {
			x.Attested, x.Edit = true, func(i *ocispec.Index) { i.Manifests = i.Manifests[3:] }
		}, nil, "lists no image"},
		{"nothing", func(x *ocitest.Index) { x.Images = nil }, nil, "lists no image"},
		{"size too small", editing(func(d *ocispec.Descriptor) { d.Size-- }), nil, "is longer than the"},
		{"size too large", editing(func(d *ocispec.Descriptor) { d.Size++ }), nil, "its descriptor says"},
		{"size huge", editing(func(d *ocispec.Descriptor) { d.Size = 1 << 40 }), nil, "more than 4194304"},
		{"media type", editing(func(d *ocispec.Descriptor) { d.MediaType = "text/html" }), nil, ""},
		{"digest of nothing", editing(func(d *ocispec.Descriptor) { d.Digest = digest.FromString("x") }), nil, "404"},
		{"another manifest", nil, func(b *ocitest.Built) { b.Find("manifest").Data[5] ^= 1 }, "digest"},
		{"another config", nil, func(b *ocitest.Built) { b.Find("config").Data[5] ^= 1 }, "digest"},
		{"another layer", nil, func(b *ocitest.Built) { l := b.Find("layer"); l.Data[len(l.Data)/2] ^= 1 }, "layer 1"},
		{"a layer is gone", nil, func(b *ocitest.Built) {
			b.Blobs = slices.DeleteFunc(b.Blobs, func(l ocitest.Blob) bool { return l.Descriptor.MediaType == ocispec.MediaTypeImageLayerZstd })
		}, "image for linux/s390x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := sampleIndex(t)
			if c.edit != nil {
				c.edit(&x)
			}
			b, err := x.Build()
			must(t, err)
			if c.damage != nil {
				c.damage(b)
			}
			host := serveBuilt(t, b)
			src, err := registry.Open(oci.Reference{Transport: oci.Docker, Host: host, Repository: "bad", Tag: "v1"}, (*online)(nil).options())
			must(t, err)
			defer src.Close()
			s := fastStore(t, fsverity.SHA256)
			r, err := ImportAll(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "bad"})
			if c.name == "media type" { // it decides nothing: the document says itself what it is
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), host+"/bad") {
				t.Fatalf("got %+v, %v; want %q and %s in it", r, err, c.want, host)
			}
			if names, err := Names(s); err != nil || len(names) > 0 {
				t.Errorf("names %v, %v", names, err)
			}
			if _, err := s.Entry(store.Streams, indexEntry(b.Root().Digest)); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the index has an entry: %v", err)
			}
		})
	}
}
