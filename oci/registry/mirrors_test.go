package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
)

// conf writes a registries.conf and returns its path.
func conf(t *testing.T, text string, args ...any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, text, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// at opens REF as a registries.conf has it.
func at(t *testing.T, ref, conf string, told *notices) *registry.Source {
	t.Helper()
	host, rest, _ := strings.Cut(ref, "/")
	return open(t, host, rest, registry.Options{RegistriesConf: conf, Retry: hasty, Told: told.told})
}

// TestPlaces tells by the requests where an image is looked for: a is the registry's location, b and c are its mirrors.
func TestPlaces(t *testing.T) {
	b := sample(t)
	byDigest := "@" + b.Root().Digest.String()
	gone := http.NotFoundHandler()
	for name, c := range map[string]struct {
		ref     string
		conf    string // with the hosts of a, b and c
		a, b, c http.Handler
		want    string // who gave the manifest and the layers
		path    string // of the repository there
		err     string // in place of that
	}{
		"location": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example"
			location = "%[1]s/cache"`, want: "a", path: "/v2/cache/os/web/"},
		"prefix is cut": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example/os"
			location = "%[1]s"`, want: "a", path: "/v2/web/"},
		"wildcard": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "*.example"
			location = "%[1]s"`, want: "a", path: "/v2/os/web/"},
		"the longest prefix": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example"
			location = "%[2]s"
			[[registry]]
			prefix = "img.example/os/web"
			location = "%[1]s/w"`, want: "a", path: "/v2/w/"},
		"another's": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example"
			location = "%[1]s"
			[[registry]]
			location = "img.example/os/webserver"
			blocked = true`, want: "a", path: "/v2/os/web/"},
		"blocked": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example"
			location = "%[1]s"
			blocked = true`, err: "registries.conf blocks this registry"},
		"mirrors in their order": {ref: "img.example/os/web:v1", conf: mirrors(""), want: "b", path: "/v2/m/os/web/"},
		"the first has nothing":  {ref: "img.example/os/web:v1", conf: mirrors(""), b: gone, want: "c", path: "/v2/os/web/"},
		"no mirror has it":       {ref: "img.example/os/web:v1", conf: mirrors(""), b: gone, c: gone, want: "a", path: "/v2/os/web/"},
		"nobody has it":          {ref: "img.example/os/web:v1", conf: mirrors(""), a: gone, b: gone, c: gone, err: "404"},
		"digest-only, a tag":     {ref: "img.example/os/web:v1", conf: mirrors(`pull-from-mirror = "digest-only"`), want: "c", path: "/v2/os/web/"},
		"digest-only, a digest":  {ref: "img.example/os/web" + byDigest, conf: mirrors(`pull-from-mirror = "digest-only"`), want: "b", path: "/v2/m/os/web/"},
		"digest-only, both":      {ref: "img.example/os/web:v1" + byDigest, conf: mirrors(`pull-from-mirror = "digest-only"`), want: "b", path: "/v2/m/os/web/"},
		"tag-only, a digest":     {ref: "img.example/os/web" + byDigest, conf: mirrors(`pull-from-mirror = "tag-only"`), want: "c", path: "/v2/os/web/"},
		"mirror-by-digest-only": {ref: "img.example/os/web:v1", conf: `[[registry]]
			prefix = "img.example"
			location = "%[1]s"
			mirror-by-digest-only = true
			[[registry.mirror]]
			location = "%[2]s"`, want: "a", path: "/v2/os/web/"},
		"a mirror that lies": {ref: "img.example/os/web:v1", conf: mirrors(""), b: edit(b.Handler(), func(_, _ string, w *httptest.ResponseRecorder) {
			w.Body = bytes.NewBuffer(bytes.ToUpper(w.Body.Bytes()))
		}), want: "c", path: "/v2/os/web/"},
		"a web page for a mirror": {ref: "img.example/os/web:v1", conf: mirrors(""), b: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>Welcome"))
		}), want: "c", path: "/v2/os/web/"},
		"not TOML": {ref: "img.example/os/web:v1", conf: "[[registry", err: "registries.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			var hosts []any
			logs := map[string]*ocitest.Faults{}
			for n, h := range []http.Handler{c.a, c.b, c.c} {
				f := &ocitest.Faults{Registry: b.Handler()}
				if h != nil {
					f.Registry = h
				}
				logs[string(rune('a'+n))] = f
				hosts = append(hosts, serve(t, f))
			}
			path := conf(t, c.conf+"\n#%[1]s%[2]s%[3]s", hosts...)
			var told notices
			src, err := openAt(c.ref, path, &told)
			if err == nil {
				defer src.Close()
				err = fetch(context.Background(), src)
			}
			if c.err != "" {
				wantError(t, err, c.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if src.String() != "docker://"+c.ref {
				t.Errorf("the image is called %s", src)
			}
			for name, f := range logs {
				layers := 0
				for _, r := range f.Requests() {
					if name == c.want && !strings.HasPrefix(r.Path, c.path) {
						t.Errorf("asked for %s", r)
					}
					if strings.HasSuffix(r.Path, b.Find("layer").Descriptor.Digest.String()) {
						layers++
					}
				}
				if (layers == 1) != (name == c.want) {
					t.Errorf("%s gave the layer %d times", name, layers)
				}
			}
			for _, n := range told.all {
				if n.Next == "" || n.Wait != 0 || !strings.Contains(n.String(), "; asking ") {
					t.Errorf("told %v", n)
				}
			}
		})
	}
}

// mirrors is a registry with two mirrors, the first of which has a restriction.
func mirrors(restriction string) string {
	return `[[registry]]
		prefix = "img.example"
		location = "%[1]s"
		[[registry.mirror]]
		location = "%[2]s/m"
		` + restriction + `
		[[registry.mirror]]
		location = "%[3]s"`
}

// openAt opens a reference that has mirrors.
func openAt(ref, conf string, told *notices) (*registry.Source, error) {
	r, err := oci.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	return registry.Open(r, registry.Options{RegistriesConf: conf, Retry: hasty, Told: told.told, Keychain: nobody})
}

// TestMirrorBreaks has a mirror that breaks off in the middle of each layer, and one that is not there: the registry itself
// gives the rest.
func TestMirrorBreaks(t *testing.T) {
	b, primary, host := broken(t, random(100_000))
	layer := b.Find("layer").Descriptor
	mirror := &ocitest.Faults{Registry: b.Handler(), Strike: func(r *http.Request) ocitest.Fault {
		if about(b, r) == "layer" {
			return ocitest.Fault{Cut: 30_000}
		}
		return ocitest.Fault{}
	}}
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	path := conf(t, `[[registry]]
		prefix = "img.example"
		location = "%s"
		[[registry.mirror]]
		location = "%s"
		[[registry.mirror]]
		location = "%s"`, host, strings.TrimPrefix(dead.URL, "http://"), serve(t, mirror))
	var told notices
	if err := fetch(context.Background(), at(t, "img.example/org/app:v1", path, &told)); err != nil {
		t.Fatal(err)
	}
	got := primary.Blobs()[layer.Digest.String()]
	if len(got) != 1 || got[0].First != 30_000 || got[0].Bytes != layer.Size-30_000 {
		t.Errorf("the registry gave %v", got)
	}
	if n := len(mirror.Blobs()[layer.Digest.String()]); n != 1 {
		t.Errorf("the mirror was asked %d times", n)
	}
	if n := len(told.all); n != 2 {
		t.Errorf("told %v", told.all)
	}
}

// TestInsecureMirror has a registry with a certificate that nobody vouches for.
func TestInsecureMirror(t *testing.T) {
	b := sample(t)
	srv := quietTLS(t, b.Handler())
	host := strings.TrimPrefix(srv.URL, "https://")
	text := `[[registry]]
		prefix = "img.example"
		location = "%s"
		insecure = %v`
	var told notices
	if err := fetch(context.Background(), at(t, "img.example/os/web:v1", conf(t, text, host, true), &told)); err != nil {
		t.Error(err)
	}
	err := fetch(context.Background(), at(t, "img.example/os/web:v1", conf(t, text, host, false), &told))
	wantError(t, err, "certificate")
}

// TestNamespace has a proxy for several registries told which one is meant.
func TestNamespace(t *testing.T) {
	b := sample(t)
	missing := 0
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" && r.URL.Query().Get("ns") != "img.example" {
			missing++
		}
		b.Handler().ServeHTTP(w, r)
	}))
	var told notices
	err := fetch(context.Background(), at(t, "img.example/os/web:v1", conf(t, `[[registry]]
		prefix = "img.example"
		location = "%s"
		namespace-proxy = "img.example"`, host), &told))
	if err != nil || missing > 0 {
		t.Errorf("%v; %d requests without it", err, missing)
	}
}

// TestNobodyHasIt names all that were asked.
func TestNobodyHasIt(t *testing.T) {
	one, two := serve(t, http.NotFoundHandler()), serve(t, http.NotFoundHandler())
	var told notices
	_, err := at(t, "img.example/os/web:v1", conf(t, `[[registry]]
		prefix = "img.example"
		location = "%s"
		[[registry.mirror]]
		location = "%s"`, one, two), &told).Image(context.Background())
	wantError(t, err, one, two, "docker://img.example/os/web:v1")
	if he := new(registry.HTTPError); !errors.As(err, &he) || he.Status != http.StatusNotFound {
		t.Errorf("got %#v", err)
	}
}
