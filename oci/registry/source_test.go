package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

// nobody has no credentials, whatever the machine's own files say.
var nobody = authn.NewMultiKeychain()

// serve starts a server and returns its address, HOST:PORT.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// realRegistry starts go-containerregistry's registry.
func realRegistry(t *testing.T) string {
	t.Helper()
	return serve(t, ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
}

// open opens HOST/REST and closes it after the test.
func open(t *testing.T, host, rest string, o registry.Options) *registry.Source {
	t.Helper()
	ref, err := oci.ParseReference("docker://" + host + "/" + rest)
	if err != nil {
		t.Fatal(err)
	}
	if o.Keychain == nil {
		o.Keychain = nobody
	}
	if o.Retry == (registry.Retry{}) {
		o.Retry.Tries = 1
	}
	src, err := registry.Open(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

// sample builds the suite's image.
func sample(t *testing.T) *ocitest.Built {
	t.Helper()
	b, err := ocitest.Sample(amd64).Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantError checks that an error has some text and no control characters.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %v\nwant %q in it", err, text)
		}
	}
	// errors.Join puts line ends between errors.
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) || len(err.Error()) > 3000 {
		t.Errorf("error is not fit to print: %q", err)
	}
}

func TestSource(t *testing.T) {
	ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
		host := realRegistry(t)
		if !b.Honest() || b.Push("http://"+host, "org/app", "v1") != nil {
			// What a real registry refuses comes from one that doesn't care.
			host = serve(t, b.Handler())
		}
		return func(p oci.Platform) (oci.Source, error) {
			ref := oci.Reference{Transport: oci.Docker, Host: host, Repository: "org/app", Tag: "v1"}
			return registry.Open(ref, registry.Options{Platform: p, Keychain: nobody})
		}
	})
}

// requests is a handler that remembers what was asked.
type requests struct {
	http.Handler
	mu   sync.Mutex
	seen []string
}

func (r *requests) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.seen = append(r.seen, req.Method+" "+req.URL.Path)
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

func (r *requests) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Asking whether the registry answers at all is part of every session.
	return slices.DeleteFunc(slices.Clone(r.seen), func(s string) bool { return s == "GET /v2/" })
}

func TestRequests(t *testing.T) {
	b := sample(t)
	log := &requests{Handler: b.Handler()}
	src := open(t, serve(t, log), "app:v1", registry.Options{})
	for range 2 {
		if _, err := src.Resolve(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"HEAD /v2/app/manifests/v1"}
	if got := log.list(); !slices.Equal(got, want) {
		t.Errorf("resolve asked %q, want %q", got, want)
	}
	if _, err := src.Image(context.Background()); err != nil {
		t.Fatal(err)
	}
	want = append(want, "GET /v2/app/manifests/"+b.Root().Digest.String(), "GET /v2/app/blobs/"+b.Find("config").Descriptor.Digest.String())
	if got := log.list(); !slices.Equal(got, want) {
		t.Errorf("image asked %q, want %q", got, want)
	}
}

func TestByDigest(t *testing.T) {
	host := realRegistry(t)
	b := sample(t)
	if err := b.Push("http://"+host, "app", "v1"); err != nil {
		t.Fatal(err)
	}
	other, err := ocitest.Image{Platform: amd64}.Push("http://"+host, "app", "v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"app@" + b.Root().Digest.String(), "app:v2@" + b.Root().Digest.String()} {
		if m, err := open(t, host, ref, registry.Options{}).Image(context.Background()); err != nil || m.Descriptor.Digest != b.Root().Digest {
			t.Errorf("%s: got %v, %v", ref, m, err)
		}
	}
	// A registry that answers with something else is found out.
	built, err := ocitest.Image{Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	h := built.Handler()
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/manifests/"+b.Root().Digest.String(), "/manifests/v2", 1)
		h.ServeHTTP(w, r)
	}))
	_, err = open(t, liar, "app@"+b.Root().Digest.String(), registry.Options{}).Resolve(context.Background())
	if de := new(oci.DigestError); !errors.As(err, &de) || de.Want != b.Root().Digest || de.Got != other.Digest {
		t.Errorf("got %v", err)
	}
}

// edit changes what a handler answers, by the request's method and path.
func edit(h http.Handler, change func(method, path string, w *httptest.ResponseRecorder)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		change(r.Method, r.URL.Path, rec)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

func TestHeadFallsBack(t *testing.T) {
	b := sample(t)
	for name, change := range map[string]func(w *httptest.ResponseRecorder){
		"not allowed":   func(w *httptest.ResponseRecorder) { w.Code = http.StatusMethodNotAllowed },
		"not found":     func(w *httptest.ResponseRecorder) { w.Code = http.StatusNotFound },
		"no digest":     func(w *httptest.ResponseRecorder) { w.Header().Del("Docker-Content-Digest") },
		"sha512 digest": func(w *httptest.ResponseRecorder) { w.Header().Set("Docker-Content-Digest", "sha512:00") },
		"no type":       func(w *httptest.ResponseRecorder) { w.Header().Set("Content-Type", "application/octet-stream") },
		"no length": func(w *httptest.ResponseRecorder) {
			w.Header().Del("Content-Length")
			w.Header().Set("Transfer-Encoding", "chunked")
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := &requests{}
			log.Handler = edit(b.Handler(), func(method, path string, w *httptest.ResponseRecorder) {
				if method == http.MethodHead {
					change(w)
				}
			})
			src := open(t, serve(t, log), "app:v1", registry.Options{})
			d, err := src.Resolve(context.Background())
			if err != nil || d.Digest != b.Root().Digest || d.Size != b.Root().Size || d.MediaType != b.Root().MediaType {
				t.Fatalf("got %+v, %v", d, err)
			}
			if _, err := src.Image(context.Background()); err != nil {
				t.Fatal(err)
			}
			want := []string{"HEAD /v2/app/manifests/v1", "GET /v2/app/manifests/v1", "GET /v2/app/blobs/" + b.Find("config").Descriptor.Digest.String()}
			if got := log.list(); !slices.Equal(got, want) {
				t.Errorf("asked %q, want %q", got, want)
			}
		})
	}
}

func TestBadManifests(t *testing.T) {
	b := sample(t)
	for _, c := range []struct {
		name   string
		change func(method string, w *httptest.ResponseRecorder)
		want   []string
	}{
		{"web page", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			setBody(w, "<!DOCTYPE html>\x1b[2J<title>Hotel\nlogin</title>")
		}, []string{"/v2/app/manifests/v1", `"text/html"`, `begins "<!DOCTYPE html> [2J<title>Hotel login`}},
		{"schema 1", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			setBody(w, `{"schemaVersion":1,"fsLayers":[]}`)
		}, []string{"docker schema 1"}},
		{"too large", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			setBody(w, strings.Repeat(" ", oci.MaxManifestSize+1))
		}, []string{"longer than the 4194304 bytes"}},
		{"too large, chunked", func(method string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			setBody(w, strings.Repeat(" ", oci.MaxManifestSize+1))
			w.Header().Del("Content-Length")
		}, []string{"longer than the 4194304 bytes"}},
		{"HEAD says too large", func(_ string, w *httptest.ResponseRecorder) { w.Header().Set("Content-Length", "4194305") }, []string{"has 4194305 bytes"}},
		{"HEAD says another size", func(method string, w *httptest.ResponseRecorder) {
			if method == http.MethodHead {
				w.Header().Set("Content-Length", "7")
			}
		}, []string{"longer than the 7 bytes"}},
		{"HEAD lies about the digest", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
		}, []string{"404 Not Found", "NAME_UNKNOWN: not here"}},
		{"GET lies about the digest", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
			w.Header().Set("Content-Type", "application/json")
		}, []string{"/v2/app/manifests/v1 has digest " + b.Root().Digest.String(), "want " + digest.FromString("x").String()}},
		{"cut", func(method string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			w.Body.Truncate(w.Body.Len() / 2)
		}, []string{"broke off after"}},
		{"manifest and index", func(_ string, w *httptest.ResponseRecorder) {
			w.Header().Del("Docker-Content-Digest")
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			setBody(w, `{"schemaVersion":2,"manifests":[],"layers":[]}`)
		}, []string{"readers may disagree"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := serve(t, edit(b.Handler(), func(method, path string, w *httptest.ResponseRecorder) {
				if strings.HasSuffix(path, "/manifests/v1") {
					c.change(method, w)
				}
			}))
			_, err := open(t, host, "app:v1", registry.Options{}).Image(context.Background())
			wantError(t, err, append(c.want, "docker://"+host+"/app:v1: ")...)
		})
	}
}

// setBody replaces a response's body, and with it its length.
func setBody(w *httptest.ResponseRecorder, s string) {
	w.Body.Reset()
	w.Body.WriteString(s)
	w.Header().Set("Content-Length", strconv.Itoa(len(s)))
}

// readBlob reads a blob to its end or to an error.
func readBlob(ctx context.Context, src oci.Source, d ocispec.Descriptor) (data []byte, err error) {
	r, err := src.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

func TestBadBlobs(t *testing.T) {
	b := sample(t)
	layer := b.Find("layer")
	half := len(layer.Data) / 2
	for _, c := range []struct {
		name  string
		serve func(w http.ResponseWriter)
		want  []string
		got   int // bytes before the error
	}{
		{"connection lost", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(layer.Data)))
			_, _ = w.Write(layer.Data[:half])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, []string{fmt.Sprintf("broke off after %d of %d bytes", half, len(layer.Data)), "unexpected EOF"}, half},
		{"ends early, chunked", func(w http.ResponseWriter) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(layer.Data[:half])
		}, []string{fmt.Sprintf("broke off after %d of %d bytes", half, len(layer.Data)), "unexpected EOF"}, half},
		{"longer, chunked", func(w http.ResponseWriter) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(append(slices.Clone(layer.Data), "more"...))
		}, []string{"longer than the"}, len(layer.Data)},
		{"length too small", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "3")
			_, _ = w.Write(layer.Data[:3])
		}, []string{"has 3 bytes, its descriptor says"}, 0},
		{"length too large", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(layer.Data)+1))
		}, []string{"longer than the"}, 0},
		{"stalls", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(len(layer.Data)))
			_, _ = w.Write(layer.Data[:half])
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}, []string{"broke off after", "no data arrived in time (100ms)"}, half},
		{"partial content", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusPartialContent)
		}, []string{"206 Partial Content"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, layer.Descriptor.Digest.String()) {
					c.serve(w)
					return
				}
				b.Handler().ServeHTTP(w, r)
			}))
			src := open(t, host, "app:v1", registry.Options{Timeouts: registry.Timeouts{Stall: 100 * time.Millisecond}})
			data, err := readBlob(context.Background(), src, layer.Descriptor)
			wantError(t, err, append(c.want, host+"/v2/app/blobs/"+layer.Descriptor.Digest.String())...)
			if len(data) != c.got || string(data) != string(layer.Data[:c.got]) {
				t.Errorf("got %d bytes before the error, want %d", len(data), c.got)
			}
		})
	}
}

// Content-Encoding is no reason to touch a blob: its digest is of the bytes
// as they are stored.
func TestBlobBytesAreUntouched(t *testing.T) {
	b := sample(t)
	host := serve(t, edit(b.Handler(), func(_, path string, w *httptest.ResponseRecorder) {
		w.Header().Set("Content-Encoding", "gzip")
	}))
	layer := b.Find("layer")
	data, err := readBlob(context.Background(), open(t, host, "app:v1", registry.Options{}), layer.Descriptor)
	if err != nil || string(data) != string(layer.Data) {
		t.Errorf("got %d bytes, want %d: %v", len(data), len(layer.Data), err)
	}
}

func TestBlobHeedsContext(t *testing.T) {
	b := sample(t)
	layer := b.Find("layer").Descriptor
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		b.Handler().ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := open(t, host, "app:v1", registry.Options{}).OpenBlob(ctx, layer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	time.AfterFunc(50*time.Millisecond, cancel) // the answer has begun
	_, err = io.ReadAll(r)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if be := new(registry.BodyError); !errors.As(err, &be) || be.Got != 0 || be.Want != layer.Size {
		t.Errorf("got %#v", err)
	}
}
