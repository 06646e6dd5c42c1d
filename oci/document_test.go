package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// desc writes a descriptor as JSON.
func desc(mediaType, dgst, size string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%s}`, mediaType, dgst, size)
}

// The parts that the cases below are put together from.
var (
	goodConfig = `"config":` + desc(ocispec.MediaTypeImageConfig, testDigest, "7")
	goodLayers = `"layers":[` + desc(ocispec.MediaTypeImageLayerGzip, testDigest, "9") + `]`
	goodIndex  = `"manifests":[` + desc(ocispec.MediaTypeImageManifest, testDigest, "5") + `]`
)

// v2 wraps members into a document.
func v2(members ...string) string {
	return `{"schemaVersion":2,` + strings.Join(members, ",") + `}`
}

// typed is the member mediaType.
func typed(t string) string { return fmt.Sprintf(`"mediaType":%q`, t) }

// withConfig is a manifest whose config has this type, digest and size.
func withConfig(mediaType, dgst, size string) string {
	return v2(`"config":`+desc(mediaType, dgst, size), goodLayers)
}

func TestParseDocument(t *testing.T) {
	const declaredNothing = ""
	for _, c := range []struct {
		name, raw, declared string
		want                string // media type, or after "!" a part of the error
	}{
		{"manifest", v2(goodConfig, goodLayers), declaredNothing, ocispec.MediaTypeImageManifest},
		{"typed manifest", v2(typed(ocispec.MediaTypeImageManifest), goodConfig, goodLayers), declaredNothing, ocispec.MediaTypeImageManifest},
		{"docker manifest", v2(typed(MediaTypeDockerManifest), goodConfig, goodLayers), declaredNothing, MediaTypeDockerManifest},
		{"docker by header", v2(goodConfig, goodLayers), MediaTypeDockerManifest + "; charset=utf-8", MediaTypeDockerManifest},
		{"own type wins", v2(typed(MediaTypeDockerManifest), goodConfig, goodLayers), ocispec.MediaTypeImageManifest, MediaTypeDockerManifest},
		{"generic header", v2(goodConfig, goodLayers), "application/json", ocispec.MediaTypeImageManifest},
		{"index", v2(goodIndex), declaredNothing, ocispec.MediaTypeImageIndex},
		{"manifest list", v2(typed(MediaTypeDockerManifestList), goodIndex), MediaTypeDockerManifestList, MediaTypeDockerManifestList},
		{"empty index", v2(`"manifests":[]`), declaredNothing, ocispec.MediaTypeImageIndex},
		{"no layers", v2(goodConfig, `"layers":[]`), declaredNothing, ocispec.MediaTypeImageManifest},
		{"unknown fields", v2(goodConfig, goodLayers, `"x":{"y":[1,2,{"z":null}]}`, `"subject":`+desc("a", "b", "-1")), declaredNothing, ocispec.MediaTypeImageManifest},
		{"data and urls", v2(`"config":{"mediaType":"`+ocispec.MediaTypeImageConfig+`","digest":"`+testDigest+`","size":7,"data":"!","urls":7}`, goodLayers), declaredNothing, ocispec.MediaTypeImageManifest},

		{"empty", ``, declaredNothing, "!unexpected end of JSON"},
		{"HTML", "<html>\n<title>Login\x1b</title>", declaredNothing, `!begins "<html> <title>Login </title>"`},
		{"array", `[]`, declaredNothing, "!no JSON object"},
		{"null", `null`, declaredNothing, "!no JSON object"},
		{"trailing", v2(goodConfig, goodLayers) + `{}`, declaredNothing, "!after top-level value"},
		{"cut", v2(goodConfig, goodLayers)[:60], declaredNothing, "!unexpected end"},
		{"no version", `{` + goodConfig + `,` + goodLayers + `}`, declaredNothing, "!schemaVersion is 0"},
		{"version 3", `{"schemaVersion":3,` + goodConfig + `,` + goodLayers + `}`, declaredNothing, "!schemaVersion is 3"},
		{"version text", `{"schemaVersion":"2",` + goodConfig + `,` + goodLayers + `}`, declaredNothing, "!schemaVersion"},
		{"schema 1", `{"schemaVersion":1,"name":"x","fsLayers":[]}`, declaredNothing, "!docker schema 1"},
		{"schema 1 by header", `{"schemaVersion":1}`, dockerSchema1Signed, "!docker schema 1"},
		{"ambiguous layers", v2(goodConfig, goodLayers, goodIndex), declaredNothing, "!readers may disagree"},
		{"ambiguous config", v2(typed(ocispec.MediaTypeImageIndex), goodConfig, goodIndex), declaredNothing, "!readers may disagree"},
		{"ambiguous null", v2(goodConfig, goodLayers, `"manifests":null`), declaredNothing, "!readers may disagree"},
		{"neither", v2(`"x":1`), declaredNothing, "!neither layers nor manifests"},
		{"index called manifest", v2(goodIndex), ocispec.MediaTypeImageManifest, "!does not fit the fields"},
		{"manifest called index", v2(goodConfig, goodLayers), ocispec.MediaTypeImageIndex, "!does not fit the fields"},
		{"manifest calls itself index", v2(typed(MediaTypeDockerManifestList), goodConfig, goodLayers), declaredNothing, "!does not fit the fields"},
		{"unknown type", v2(typed("application/x-helm"), goodConfig, goodLayers), declaredNothing, "!not a container image"},
		{"repeated name", v2(goodConfig, goodLayers, `"layers":[]`), declaredNothing, `!"layers" stands twice`},
		{"repeated below", v2(`"config":{"size":1,"size":2}`, goodLayers), declaredNothing, `!"size" stands twice`},
		{"repeated by escape", v2(goodConfig, goodLayers, `"la\u0079ers":[]`), declaredNothing, `!"layers" stands twice`},
		{"other case", v2(strings.Replace(goodConfig, "config", "Config", 1), goodLayers), declaredNothing, "!config is missing"},
		{"deep", v2(goodConfig, goodLayers, `"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)), declaredNothing, "!nests deeper"},
		{"config null", v2(`"config":null`, goodLayers), declaredNothing, "!config is missing"},
		{"config list", v2(`"config":[]`, goodLayers), declaredNothing, "!no JSON object"},
		{"no layers member", v2(goodConfig), declaredNothing, "!layers are missing"},
		{"layers object", v2(goodConfig, `"layers":{}`), declaredNothing, "!layers"},
		{"layer null", v2(goodConfig, `"layers":[null]`), declaredNothing, "!layers[0]"},
		{"helm chart", withConfig("application/vnd.cncf.helm.config.v1+json", testDigest, "7"), declaredNothing, "!artifact of type"},
		{"artifact type", v2(`"artifactType":"text/sbom"`, `"config":`+desc(ocispec.MediaTypeEmptyJSON, testDigest, "2"), goodLayers), declaredNothing, `!artifact of type "text/sbom"`},
		{"negative size", withConfig(ocispec.MediaTypeImageConfig, testDigest, "-1"), declaredNothing, "!negative"},
		{"fraction", withConfig(ocispec.MediaTypeImageConfig, testDigest, "1.5"), declaredNothing, "!size"},
		{"overflow", withConfig(ocispec.MediaTypeImageConfig, testDigest, "9223372036854775808"), declaredNothing, "!size"},
		{"size text", withConfig(ocispec.MediaTypeImageConfig, testDigest, `"7"`), declaredNothing, "!size"},
		{"large config", withConfig(ocispec.MediaTypeImageConfig, testDigest, "4194305"), declaredNothing, "!more than 4194304"},
		{"no size", v2(`"config":{"mediaType":"`+ocispec.MediaTypeImageConfig+`","digest":"`+testDigest+`"}`, goodLayers), declaredNothing, "!size is missing"},
		{"no digest", withConfig(ocispec.MediaTypeImageConfig, "", "7"), declaredNothing, "!digest is missing"},
		{"path for a digest", withConfig(ocispec.MediaTypeImageConfig, "sha256:../../../../etc/passwd", "7"), declaredNothing, "!want 64"},
		{"sha512", withConfig(ocispec.MediaTypeImageConfig, "sha512:"+strings.Repeat("0", 128), "7"), declaredNothing, "!not sha256"},
		{"encrypted layer", v2(goodConfig, `"layers":[`+desc(ocispec.MediaTypeImageLayer+"+encrypted", testDigest, "1")+`]`), declaredNothing, "!no file system layer"},
		{"bad platform", v2(`"manifests":[{"mediaType":"x","digest":"` + testDigest + `","size":1,"platform":{"os":7}}]`), declaredNothing, "!platform: os"},
		{"too large", v2(goodConfig, goodLayers, `"x":"`+strings.Repeat("x", MaxManifestSize)+`"`), declaredNothing, "!larger than 4194304"},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc, err := ParseDocument([]byte(c.raw), c.declared)
			if part, bad := strings.CutPrefix(c.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Fatalf("got %v, want %q in it", err, part)
				}
				return
			}
			if err != nil || doc.MediaType != c.want {
				t.Fatalf("got %+v, %v; want %s", doc, err, c.want)
			}
		})
	}
}

// imageOf returns a manifest's descriptor and bytes for a config, with as
// many layers as asked for.
func imageOf(config string, layers int) (ocispec.Descriptor, []byte) {
	list := make([]string, layers)
	for i := range list {
		list[i] = desc(MediaTypeDockerLayerGzip, testDigest, "9")
	}
	raw := []byte(v2(typed(MediaTypeDockerManifest),
		`"config":`+desc(MediaTypeDockerConfig, digest.FromString(config).String(), fmt.Sprint(len(config))),
		`"layers":[`+strings.Join(list, ",")+`]`))
	return ocispec.Descriptor{MediaType: MediaTypeDockerManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}

// rootfs is a config with these diffIDs.
func rootfs(ids ...string) string {
	for i := range ids {
		ids[i] = `"` + ids[i] + `"`
	}
	return `{"os":"linux","architecture":"arm","variant":"v6","rootfs":{"type":"layers","diff_ids":[` + strings.Join(ids, ",") + `]}}`
}

func TestParseImage(t *testing.T) {
	for _, c := range []struct {
		name, config string
		layers       int
		want         string // part of the error
	}{
		{"two layers", rootfs(testDigest, testDigest), 2, ""},
		{"no layers", rootfs(), 0, ""},
		{"no platform", `{"rootfs":{"type":"layers","diff_ids":[]},"history":[{"empty_layer":true}]}`, 0, ""},
		{"too few", rootfs(testDigest), 2, "has 1 diff_ids, manifest"},
		{"too many", rootfs(testDigest, testDigest), 1, "has 2 diff_ids, manifest"},
		{"no rootfs", `{}`, 0, "rootfs: missing"},
		{"null rootfs", `{"rootfs":null}`, 0, "rootfs: missing"},
		{"other type", `{"rootfs":{"type":"base","diff_ids":[]}}`, 0, `type is "base"`},
		{"no type", `{"rootfs":{"diff_ids":[]}}`, 0, `type is ""`},
		{"bad diffID", rootfs("sha256:xyz"), 1, "diff_ids[0]"},
		{"diffID null", `{"rootfs":{"type":"layers","diff_ids":[null]}}`, 1, "diff_ids[0]: digest is missing"},
		{"diffID number", `{"rootfs":{"type":"layers","diff_ids":[7]}}`, 1, "diff_ids[0]"},
		{"os number", `{"os":1,"rootfs":{"type":"layers","diff_ids":[]}}`, 0, "os"},
		{"no JSON", `nothing`, 0, `begins "nothing"`},
		{"twice", `{"rootfs":{"type":"layers","diff_ids":[]},"rootfs":{}}`, 0, "stands twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, raw := imageOf(c.config, c.layers)
			m, err := ParseImage(d, raw, []byte(c.config))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q in it", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Layers) != c.layers || len(m.DiffIDs()) != c.layers || !bytes.Equal(m.Manifest, raw) || string(m.Config) != c.config {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestParseImageVerifies(t *testing.T) {
	config := rootfs()
	d, raw := imageOf(config, 0)
	var de *DigestError
	other := bytes.Replace(raw, []byte(`"schemaVersion"`), []byte(`"schemaversion"`), 1)
	if _, err := ParseImage(d, other, []byte(config)); !errors.As(err, &de) || de.Want != d.Digest || de.Got != digest.FromBytes(other) {
		t.Errorf("other manifest: got %v", err)
	}
	if _, err := ParseImage(d, raw, []byte(strings.Replace(config, "linux", "minix", 1))); !errors.As(err, &de) || de.What != "config" {
		t.Errorf("other config: got %v", err)
	}
	var se *SizeError
	if _, err := ParseImage(d, raw, []byte(config+" ")); !errors.As(err, &se) || se.Got != se.Want+1 {
		t.Errorf("longer config: got %v", err)
	}
	index := []byte(v2(goodIndex))
	d = ocispec.Descriptor{Digest: digest.FromBytes(index), Size: int64(len(index))}
	if _, err := ParseImage(d, index, []byte(config)); err == nil || !strings.Contains(err.Error(), "is an image index") {
		t.Errorf("image index: got %v", err)
	}
}

// blobs is a source in memory.
type blobs map[digest.Digest][]byte

func (b blobs) add(raw string) string {
	d := digest.FromString(raw)
	b[d] = []byte(raw)
	return desc("", d.String(), fmt.Sprint(len(raw)))
}

func (b blobs) load(raw string, o LoadOptions) (*Image, error) {
	d := digest.FromString(raw)
	b[d] = []byte(raw)
	fetch := func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		raw, ok := b[d.Digest]
		if !ok {
			return nil, fmt.Errorf("%s is not there", d.Digest)
		}
		return raw, nil
	}
	return Load(context.Background(), ocispec.Descriptor{Digest: d, Size: int64(len(raw))}, fetch, o)
}

func TestLoad(t *testing.T) {
	b := blobs{}
	config := rootfs()
	b.add(config)
	_, raw := imageOf(config, 0)
	manifest := b.add(string(raw))
	one := v2(`"manifests":[` + manifest + `]`)
	two := v2(`"manifests":[` + b.add(one) + `]`)
	three := v2(`"manifests":[` + b.add(two) + `]`)
	arm6 := Platform{OS: "linux", Architecture: "arm", Variant: "v6"}

	for name, doc := range map[string]string{"manifest": string(raw), "index": one, "index in index": two} {
		m, err := b.load(doc, LoadOptions{})
		if err != nil || m.Descriptor.Digest != digest.FromBytes(raw) || m.Platform != arm6 {
			t.Errorf("%s: got %+v, %v", name, m, err)
			continue
		}
		if isIndex := name != "manifest"; isIndex != (m.IndexDigest == digest.FromString(doc)) {
			t.Errorf("%s: index digest is %q", name, m.IndexDigest)
		}
	}
	if _, err := b.load(three, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "inside each other") {
		t.Errorf("three levels: got %v", err)
	}
	var pe *PlatformError
	if _, err := b.load(string(raw), LoadOptions{Platform: Platform{OS: "linux", Architecture: "s390x"}}); !errors.As(err, &pe) {
		t.Errorf("platform of a lone manifest: got %v", err)
	}
	if _, err := b.load(string(raw), LoadOptions{Platform: Platform{OS: "linux", Architecture: "arm"}}); err != nil {
		t.Errorf("arm/v6 on arm/v7: %v", err)
	}
	delete(b, digest.FromString(config))
	if _, err := b.load(one, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("config missing: got %v", err)
	}
	b[digest.FromString(config)] = []byte(strings.ToUpper(config))
	var de *DigestError
	if _, err := b.load(one, LoadOptions{}); !errors.As(err, &de) {
		t.Errorf("config exchanged: got %v", err)
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(v2(goodConfig, goodLayers)), "")
	f.Add([]byte(v2(goodIndex)), ocispec.MediaTypeImageIndex)
	f.Add([]byte(v2(goodConfig, goodLayers, goodIndex)), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{}}]}`), "x")
	f.Fuzz(func(t *testing.T, raw []byte, declared string) {
		doc, err := ParseDocument(raw, declared)
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("error has %d bytes", len(err.Error()))
			}
			return
		}
		if doc.IsIndex() == IsManifest(doc.MediaType) {
			t.Fatalf("%s is both or neither", doc.MediaType)
		}
		for _, d := range append(doc.Layers, doc.Manifests...) {
			if err := CheckDescriptor(d); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = Select(doc.Manifests, Platform{OS: "linux", Architecture: "arm", Variant: "v7"})
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(rootfs(testDigest)))
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":[null,{}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseConfig(raw)
		if err != nil {
			return
		}
		for _, id := range c.DiffIDs {
			if err := CheckDigest(digest.Digest(id)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
