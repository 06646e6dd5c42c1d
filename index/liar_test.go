package index

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// lie is a registry that is not what it should be.
type lie struct {
	name  string
	image func(*ocitest.Image)                                             // builds another image
	index *ocitest.Index                                                   // in its place
	edit  func(kind string, r *http.Request, w *httptest.ResponseRecorder) // changes the answers about "manifest", "config" and "layer"
	want  []string                                                         // of the error, besides the registry
	short bool                                                             // the error names the image, but not what was asked
}

// body replaces what an answer says.
func body(w *httptest.ResponseRecorder, b []byte) {
	w.Body = bytes.NewBuffer(b)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
}

// page answers with a web page.
func page(w *httptest.ResponseRecorder) {
	w.Header().Set("Content-Type", "text/html")
	w.Header().Del("Docker-Content-Digest")
	body(w, []byte("<!DOCTYPE html><html>\x1b[2JPlease log in"))
}

// only edits one kind of answer.
func only(which string, change func(w *httptest.ResponseRecorder)) func(string, *http.Request, *httptest.ResponseRecorder) {
	return func(kind string, _ *http.Request, w *httptest.ResponseRecorder) {
		if kind == which {
			change(w)
		}
	}
}

// around redirects one kind of request to where it was sent.
func around(which string) func(string, *http.Request, *httptest.ResponseRecorder) {
	return func(kind string, r *http.Request, w *httptest.ResponseRecorder) {
		if kind == which {
			w.Code = http.StatusFound
			w.Header().Set("Location", r.URL.Path+"?secret")
			body(w, nil)
		}
	}
}

// platforms are n different ones.
func platforms(n int) (images []ocitest.Image) {
	for i := range n {
		images = append(images, ocitest.Image{Platform: oci.Platform{OS: "linux", Architecture: fmt.Sprint("arch", i)}})
	}
	return images
}

// nested are image indexes inside each other.
func nested(depth int) *ocitest.Index {
	x := ocitest.Index{Images: []ocitest.Image{{Layers: [][]byte{ocitest.Tar()}}}}
	for range depth - 1 {
		x = ocitest.Index{Indexes: []ocitest.Index{x}}
	}
	return &x
}

func lies() []lie {
	layer := func(change func(d *ocispec.Descriptor)) func(*ocitest.Image) {
		return func(m *ocitest.Image) {
			m.EditManifest = func(m *ocispec.Manifest) { change(&m.Layers[0]) }
		}
	}
	config := func(change func(d *ocispec.Descriptor)) func(*ocitest.Image) {
		return func(m *ocitest.Image) { m.EditManifest = func(m *ocispec.Manifest) { change(&m.Config) } }
	}
	other := digest.FromString("other")
	return []lie{
		{name: "manifest: digest", edit: only("manifest", func(w *httptest.ResponseRecorder) {
			w.Header().Set("Docker-Content-Digest", other.String())
		}), want: []string{"404 Not Found"}},
		{name: "manifest: content", edit: func(kind string, r *http.Request, w *httptest.ResponseRecorder) {
			if kind == "manifest" && r.Method == http.MethodGet {
				body(w, bytes.Replace(w.Body.Bytes(), []byte("layers"), []byte("Layers"), 1))
			}
		}, want: []string{"/manifests/", "has digest sha256:", "want sha256:"}},
		{name: "manifest: size", edit: func(kind string, r *http.Request, w *httptest.ResponseRecorder) {
			if kind == "manifest" && r.Method == http.MethodHead {
				w.Header().Set("Content-Length", "17")
			}
		}, want: []string{"/manifests/", "longer than the 17 bytes"}},
		{name: "manifest: enormous", edit: only("manifest", func(w *httptest.ResponseRecorder) {
			w.Header().Set("Content-Length", strconv.Itoa(1<<50))
		}), want: []string{"has 1125899906842624 bytes"}, short: true},
		{name: "manifest: a web page", edit: only("manifest", page), want: []string{"/manifests/", `"text/html"`}},
		{name: "manifest: redirected for ever", edit: around("manifest"), want: []string{"/manifests/", "more than 10 redirects"}},
		{name: "config: a web page", edit: only("config", page), want: []string{"/blobs/", "bytes, its descriptor says"}},
		{name: "config: redirected for ever", edit: around("config"), want: []string{"/blobs/", "more than 10 redirects"}},
		{name: "config: digest", image: config(func(d *ocispec.Descriptor) { d.Digest = other }), want: []string{"/blobs/" + other.String(), "404 Not Found"}},
		{name: "config: size", image: config(func(d *ocispec.Descriptor) { d.Size++ }), want: []string{"/blobs/", "its descriptor says"}},
		{name: "config: enormous", image: config(func(d *ocispec.Descriptor) { d.Size = 1 << 40 }), want: []string{"config has 1099511627776 bytes, more than"}, short: true},
		{name: "config: media type", image: config(func(d *ocispec.Descriptor) { d.MediaType = "text/html" }), want: []string{"not a container image", "text/html"}, short: true},
		{name: "layer: a web page", edit: only("layer", page), want: []string{"/blobs/", "its descriptor says"}},
		{name: "layer: redirected for ever", edit: around("layer"), want: []string{"/blobs/", "more than 10 redirects"}},
		{name: "layer: digest", image: layer(func(d *ocispec.Descriptor) { d.Digest = other }), want: []string{"/blobs/" + other.String(), "404 Not Found"}},
		{name: "layer: size", image: layer(func(d *ocispec.Descriptor) { d.Size-- }), want: []string{"/blobs/", "longer than the"}},
		{name: "layer: negative size", image: layer(func(d *ocispec.Descriptor) { d.Size = -1 }), want: []string{"layers[0]", "size"}, short: true},
		{name: "layer: enormous", image: layer(func(d *ocispec.Descriptor) { d.Size = 1<<63 - 1 }), want: []string{"/blobs/", "its descriptor says 9223372036854775807"}},
		{name: "layer: media type", image: layer(func(d *ocispec.Descriptor) { d.MediaType = "text/html" }), want: []string{"layers[0]", "text/html"}, short: true},
		{name: "layer: content", edit: only("layer", func(w *httptest.ResponseRecorder) { w.Body.Bytes()[w.Body.Len()/2]++ }), want: []string{"layer 1 (sha256:"}, short: true},
		{name: "layer: longer", edit: only("layer", func(w *httptest.ResponseRecorder) {
			w.Header().Del("Content-Length")
			w.Body.Write(make([]byte, 1<<20))
		}), want: []string{"layer 1 (sha256:", "longer than the"}, short: true},
		{name: "diff_ids", image: func(m *ocitest.Image) { m.EditConfig = lieAbout(0, []byte("other")) }, want: []string{"layer 1 (", "the config's diffID"}, short: true},
		{name: "too few diff_ids", image: func(m *ocitest.Image) {
			m.EditConfig = func(c *ocispec.Image) { c.RootFS.DiffIDs = nil }
		}, want: []string{"0 diff_ids"}, short: true},
		{name: "image indexes inside each other", index: nested(9), want: []string{"more than 2 image indexes inside each other"}, short: true},
		{name: "10,000 manifests", index: &ocitest.Index{Images: platforms(10_000)}, want: []string{"no image for linux/", "and others"}, short: true},
		{name: "manifest and index in one", edit: only("manifest", func(w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			body(w, append(bytes.TrimSuffix(w.Body.Bytes(), []byte("}")), `,"manifests":[]}`...))
		}), want: []string{"readers may disagree"}},
	}
}

// TestLyingRegistry pulls from registries that lie: the error names the address and the reason in one line, nothing gets a
// name, nothing is kept, and a registry that has it right is believed afterwards.
func TestLyingRegistry(t *testing.T) {
	for _, c := range lies() {
		t.Run(c.name, func(t *testing.T) {
			o := newOnline(t)
			good := ocitest.Image{Layers: [][]byte{incompressible(1, 100_000)}, Compression: []ocitest.Compression{ocitest.None}}
			b := c.build(t, good)
			h := b.Handler()
			o.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				if kind := askedFor(b, r); c.edit != nil && kind != "" {
					c.edit(kind, r, rec)
				}
				for k, v := range rec.Header() {
					w.Header()[k] = v
				}
				w.WriteHeader(rec.Code)
				_, _ = w.Write(rec.Body.Bytes())
			})
			s := storetest.New(t, store.InitOptions{})
			begin := time.Now()
			_, err := o.pull(t, s, "app", 2)
			if d := time.Since(begin); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
			checkLie(t, o.host, err, c)
			checkUnnamed(t, s)
			if left := partials(t, s); len(left) > 0 {
				t.Errorf("kept: %q", left)
			}
			o.Change(func() { o.Registry = c.honest(t, good).Handler() })
			o.mustPull(t, s, "app")
		})
	}
}

func (c lie) build(t *testing.T, m ocitest.Image) *ocitest.Built {
	t.Helper()
	if c.index == nil {
		if c.image != nil {
			c.image(&m)
		}
		return c.honest(t, m)
	}
	b, err := c.index.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (lie) honest(t *testing.T, m ocitest.Image) *ocitest.Built {
	t.Helper()
	b, err := m.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// askedFor tells what a request is for.
func askedFor(b *ocitest.Built, r *http.Request) string {
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		return "manifest"
	case strings.HasSuffix(r.URL.Path, b.Find("config").Descriptor.Digest.String()):
		return "config"
	case strings.Contains(r.URL.Path, "/blobs/"):
		return "layer"
	}
	return ""
}

func checkLie(t *testing.T, host string, err error, c lie) {
	t.Helper()
	if err == nil {
		t.Fatal("it was believed")
	}
	address := "http://" + host + "/v2/app/"
	if c.short {
		address = "docker://" + host + "/app:v1"
	}
	for _, text := range append(c.want, address) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %v\nwant %q in it", err, text)
		}
	}
	if len(err.Error()) > 2000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.Contains(err.Error(), "secret") {
		t.Errorf("not fit to print: %q", err)
	}
}
