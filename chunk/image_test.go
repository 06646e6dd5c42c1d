package chunk_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/oci"
)

// ids are digests that are told apart at sight.
func id(c string) digest.Digest { return digest.Digest("sha256:" + strings.Repeat(c, 64)) }

// readable writes them short again.
func readable(b []byte) string {
	s := string(b)
	for _, c := range "0123456789abcdef" {
		s = strings.ReplaceAll(s, string(id(string(c))), "#"+string(c))
	}
	return s
}

// source is an image of Docker's with two layers, a and b, and a config that begins with members.
func source(t testing.TB, members string) (*oci.Image, error) {
	t.Helper()
	config := []byte(`{` + members + `"rootfs":{"type":"layers","diff_ids":["` + string(id("a")) + `","` + string(id("b")) + `"],"odd":1}}`)
	layer := func(c, kind string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.docker.image.rootfs.%s","size":7,"digest":"%s"}`, kind, id(c))
	}
	manifest := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","size":%d,"digest":"%s"},`+
		`"layers":[%s,%s],"annotations":{"z":"<1>","a":"2"}}`, oci.MediaTypeDockerManifest, oci.MediaTypeDockerConfig, len(config),
		digest.FromBytes(config), layer("1", "diff.tar.gzip"), layer("2", "foreign.diff.tar")))
	desc := ocispec.Descriptor{MediaType: oci.MediaTypeDockerManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	return oci.ParseImage(desc, manifest, config)
}

// upper are two layers, c and d.
func upper() []chunk.WrittenLayer {
	layer := func(blob, diff string) oci.Layer {
		return oci.Layer{
			Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: id(blob), Size: 9, Annotations: map[string]string{"toc": "t"}},
			DiffID:     oci.DiffID(id(diff)),
		}
	}
	return []chunk.WrittenLayer{
		{Layer: layer("3", "c"), Components: []string{"dpkg/a,b", "rest/etc"}},
		{Layer: layer("4", "d"), Note: "what has gone"},
	}
}

const madeHere = `{"comment":"dpkg/a,b, rest/etc",CREATED"created_by":"flatroot chunk"},{"comment":"what has gone",CREATED"created_by":"flatroot chunk"}`

func TestNewImageConfig(t *testing.T) {
	linux := `"architecture":"arm64","os":"linux",`
	rootfs := `,"rootfs":{"type":"layers","diff_ids":["#c","#d"]}}`
	old := `{"created":"2020-01-01T00:00:00Z","created_by":"FROM <x>","odd":[1]},{"empty_layer":true,"created_by":"ENV"},{"created_by":"RUN"}`
	for _, c := range []struct {
		what, config string
		o            chunk.ImageOptions
		want         string // CREATED: the member created, as the config has it
		created      string
	}{
		{"least", linux, chunk.ImageOptions{}, `{"architecture":"arm64","history":[` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"all fields stay", linux + `"created":"2020-01-02T03:04:05.6Z","config":{"Env":["A=<1>"],"Labels":{"b":"2","a":"1"},"Odd":1.50},"odd":{"z":1e3,"a":null},`,
			chunk.ImageOptions{},
			`{"architecture":"arm64","config":{"Env":["A=<1>"],"Labels":{"b":"2","a":"1"},"Odd":1.50},"created":"2020-01-02T03:04:05.6Z","history":[` + madeHere +
				`],"odd":{"z":1e3,"a":null},"os":"linux"` + rootfs, "2020-01-02T03:04:05.6Z"},
		{"labels and time", linux + `"created":"2020-01-02T03:04:05Z","config":{"Labels":{"b":"2","a":"1"},"Odd":1.50},`,
			chunk.ImageOptions{Created: time.Unix(0, 0), Labels: map[string]string{"b": "3", "c": "4"}},
			`{"architecture":"arm64","config":{"Labels":{"a":"1","b":"3","c":"4"},"Odd":1.50},"created":"1970-01-01T00:00:00Z","history":[` + madeHere +
				`],"os":"linux"` + rootfs, "1970-01-01T00:00:00Z"},
		{"labels where there are none", linux + `"config":{"Labels":null},`, chunk.ImageOptions{Labels: map[string]string{"c": "4"}},
			`{"architecture":"arm64","config":{"Labels":{"c":"4"}},"history":[` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"labels where there is nothing", linux + `"config":null,`, chunk.ImageOptions{Labels: map[string]string{"c": "4"}},
			`{"architecture":"arm64","config":{"Labels":{"c":"4"}},"history":[` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"what speaks of layers that have gone", linux + `"moby.buildkit.cache.v0":"eyJ9","config":{"Labels":{"a":"1","ostree.final-diffid":"` + string(id("b")) + `"}},`,
			chunk.ImageOptions{}, `{"architecture":"arm64","config":{"Labels":{"a":"1"}},"history":[` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"history", linux + `"history":[` + old + `],`, chunk.ImageOptions{},
			`{"architecture":"arm64","history":[{"created":"2020-01-01T00:00:00Z","created_by":"FROM <x>","empty_layer":true,"odd":[1]},` +
				`{"created_by":"ENV","empty_layer":true},{"created_by":"RUN","empty_layer":true},` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"history of chunking", linux + `"history":[{"created_by":"FROM","empty_layer":true},{"created_by":"flatroot chunk"},{"created_by":"flatroot chunk"}],`,
			chunk.ImageOptions{}, `{"architecture":"arm64","history":[{"created_by":"FROM","empty_layer":true},` + madeHere + `],"os":"linux"` + rootfs, ""},
		{"base", linux + `"config":{"Labels":{"ostree.final-diffid":"` + string(id("a")) + `"}},"history":[` + old + `],`, chunk.ImageOptions{KeepBase: 1},
			`{"architecture":"arm64","config":{"Labels":{"ostree.final-diffid":"#a"}},"history":[{"created":"2020-01-01T00:00:00Z","created_by":"FROM <x>","odd":[1]},` +
				`{"created_by":"ENV","empty_layer":true},{"created_by":"RUN","empty_layer":true},` + madeHere +
				`],"os":"linux","rootfs":{"type":"layers","diff_ids":["#a","#c","#d"]}}`, ""},
		{"base of chunking", linux + `"history":[{"created_by":"flatroot chunk"},{"created_by":"flatroot chunk"}],`, chunk.ImageOptions{KeepBase: 2},
			`{"architecture":"arm64","history":[{"created_by":"flatroot chunk"},{"created_by":"flatroot chunk"},` + madeHere +
				`],"os":"linux","rootfs":{"type":"layers","diff_ids":["#a","#b","#c","#d"]}}`, ""},
		{"base with a history that does not fit", linux + `"history":[{"created_by":"FROM"},null,{"created_by":"RUN"}],`, chunk.ImageOptions{KeepBase: 1},
			`{"architecture":"arm64","history":[{"created_by":"FROM","empty_layer":true},{"empty_layer":true},{"created_by":"RUN","empty_layer":true},` +
				`{"comment":"kept as it was"},` + madeHere + `],"os":"linux","rootfs":{"type":"layers","diff_ids":["#a","#c","#d"]}}`, ""},
	} {
		var err error
		c.o.Source, err = source(t, c.config)
		check(t, err)
		img, err := chunk.NewImage(upper(), c.o)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		created := ""
		if c.created != "" {
			created = `"created":"` + c.created + `",`
		}
		if got, want := readable(img.Config), strings.ReplaceAll(c.want, "CREATED", created); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, want)
		}
	}
}

func TestNewImageManifest(t *testing.T) {
	src, err := source(t, "")
	check(t, err)
	layers := upper()
	img, err := chunk.NewImage(layers, chunk.ImageOptions{Source: src, KeepBase: 2})
	check(t, err)
	const want = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":SIZE},"layers":[` +
		`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"#1","size":7},` +
		`{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"#2","size":7},` +
		`{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"#3","size":9,` +
		`"annotations":{"org.flatroot.chunk.components":"dpkg/a%2Cb,rest/etc","toc":"t"}},` +
		`{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"#4","size":9,"annotations":{"toc":"t"}}],` +
		`"annotations":{"a":"2","z":"<1>"}}`
	got := strings.NewReplacer(string(digest.FromBytes(img.Config)), "CONFIG", fmt.Sprintf(`"size":%d}`, len(img.Config)), `"size":SIZE}`).Replace(readable(img.Manifest))
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(layers[0].Descriptor.Annotations) != 1 {
		t.Errorf("the caller's annotations were changed: %v", layers[0].Descriptor.Annotations)
	}
}

func TestNewImageWithoutSource(t *testing.T) {
	img, err := chunk.NewImage(nil, chunk.ImageOptions{Platform: oci.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, Created: time.Unix(1, 0)})
	check(t, err)
	const want = `{"architecture":"arm","created":"1970-01-01T00:00:01Z","history":[],"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"variant":"v7"}`
	if string(img.Config) != want {
		t.Errorf("got  %s\nwant %s", img.Config, want)
	}
	img, err = chunk.NewImage(upper(), chunk.ImageOptions{})
	check(t, err)
	if img.Platform != oci.DefaultPlatform() || len(img.Layers) != 2 {
		t.Errorf("platform %s, %d layers", img.Platform, len(img.Layers))
	}
}

func TestNewImageBad(t *testing.T) {
	for _, c := range []struct {
		config string
		o      chunk.ImageOptions
		want   string
	}{
		{"", chunk.ImageOptions{KeepBase: 3}, "the source has 2 layers, 3 of them can't be kept"},
		{"", chunk.ImageOptions{KeepBase: -1}, "the source has 2 layers, -1 of them can't be kept"},
		{"", chunk.ImageOptions{Labels: map[string]string{"a": strings.Repeat("x", oci.MaxManifestSize)}}, "new image: manifest "},
		{`"history":{},`, chunk.ImageOptions{}, "history: "},
		{`"history":[{"empty_layer":1}],`, chunk.ImageOptions{}, "history: empty_layer: "},
		{`"config":[],`, chunk.ImageOptions{}, "config: "},
		{`"config":{"Labels":{"a":1}},`, chunk.ImageOptions{}, "config: Labels: "},
	} {
		var err error
		c.o.Source, err = source(t, c.config)
		check(t, err)
		if _, err := chunk.NewImage(upper(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.config, err, c.want)
		}
	}
	if _, err := chunk.NewImage(nil, chunk.ImageOptions{KeepBase: 1}); err == nil {
		t.Error("a base of no source was kept")
	}
}

// annotation is what a layer of these components is annotated with, and what names it gives back.
func annotation(t *testing.T, components []string) (list string, names []string, complete bool) {
	t.Helper()
	img, err := chunk.NewImage([]chunk.WrittenLayer{written(nil, components...)}, chunk.ImageOptions{})
	check(t, err)
	list, complete = img.Layers[0].Descriptor.Annotations[chunk.ComponentsAnnotation], true
	if list == "" {
		return list, nil, complete
	}
	for item := range strings.SplitSeq(list, ",") {
		if item == "…" {
			complete = false
			continue
		}
		name, err := url.PathUnescape(item)
		check(t, err)
		names = append(names, name)
	}
	return list, names, complete
}

func TestComponentsAnnotation(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"rpm/glibc"}, "rpm/glibc"},
		{[]string{"rpm/a", "file/usr/lib/ü, 100%\n\xff…"}, "rpm/a,file/usr/lib/ü%2C 100%25%0A%FF%E2%80%A6"},
	} {
		if got, names, complete := annotation(t, c.names); got != c.want || !complete || !slices.Equal(names, c.names) {
			t.Errorf("%q: %q, back %q, %v", c.names, got, names, complete)
		}
	}
	for _, size := range []int{1, 10, 5000} {
		var names []string
		for i := range 6000 {
			names = append(names, fmt.Sprintf("%d%s", i, strings.Repeat("n", size)))
		}
		list, got, complete := annotation(t, names)
		if complete || len(list) > 4096 || !slices.Equal(got, names[:len(got)]) || size < 100 && len(list) < 4000 {
			t.Errorf("names of %d bytes: list of %d bytes, complete %v", size, len(list), complete)
		}
	}
}

// TestComments: what people read of a layer is a line or two, whatever is in it.
func TestComments(t *testing.T) {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("rpm/package-%d", i)
	}
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"rpm/a", "rest/\n\x1b[1m"}, "rpm/a, rest/ [1m"},
		{many[:2], "rpm/package-0, rpm/package-1"},
		{many, "rpm/package-12 and 987 more"},
	} {
		img, err := chunk.NewImage([]chunk.WrittenLayer{written(nil, c.names...)}, chunk.ImageOptions{})
		check(t, err)
		var config ocispec.Image
		check(t, json.Unmarshal(img.Config, &config))
		if got := config.History[0].Comment; !strings.HasSuffix(got, c.want) || len(got) > 220 {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// FuzzNewImage gives configs that may have anything in them: the new one has the same members but for those that it must not
// have, is an image's, and is the same whenever it is made.
func FuzzNewImage(f *testing.F) {
	for _, s := range []string{"", `"os":"linux",`, `"history":[null,{"empty_layer":true}],`, `"config":{"Labels":null},`, `"created":null,"config":null,`} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, members string, keep int) {
		src, err := source(t, members)
		if err != nil {
			return
		}
		o := chunk.ImageOptions{Source: src, KeepBase: keep, Labels: map[string]string{"plan": "1"}}
		img, err := chunk.NewImage(upper(), o)
		if err != nil {
			return
		}
		again, err := chunk.NewImage(upper(), o)
		check(t, err)
		if !bytes.Equal(img.Config, again.Config) || !bytes.Equal(img.Manifest, again.Manifest) {
			t.Fatal("two images of one source")
		}
		var before, after map[string]json.RawMessage
		var history []struct {
			Empty bool `json:"empty_layer"`
		}
		check(t, json.Unmarshal(src.Config, &before), json.Unmarshal(img.Config, &after), json.Unmarshal(after["history"], &history))
		layers := 0
		for _, h := range history {
			if !h.Empty {
				layers++
			}
		}
		if layers != len(img.Layers) || len(img.Layers) != keep+2 {
			t.Fatalf("%d layers, %d in the history", len(img.Layers), layers)
		}
		for _, name := range []string{"history", "config", "rootfs", "moby.buildkit.cache.v0"} {
			delete(before, name)
			delete(after, name)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
			t.Fatalf("members %q, want %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	})
}
