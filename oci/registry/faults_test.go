package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/tests/testenv"
)

// hasty tries again at once.
var hasty = registry.Retry{First: time.Microsecond, Longest: time.Microsecond}

// random is a layer that can't be compressed.
func random(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return ocitest.Tar(ocitest.File{Name: "random", Data: string(data)})
}

// broken is a real registry with an image, behind faults.
func broken(t *testing.T, layers ...[]byte) (*ocitest.Built, *ocitest.Faults, string) {
	t.Helper()
	b, err := ocitest.Image{Layers: layers, Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	f := &ocitest.Faults{Registry: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
	host := serve(t, f)
	if err := b.Push("http://"+host, "org/app", "v1"); err != nil {
		t.Fatal(err)
	}
	f.Forget()
	return b, f, host
}

// notices are those that a source told.
type notices struct {
	mu  sync.Mutex
	all []registry.Notice
}

func (n *notices) told(one registry.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, one)
}

// fetch reads an image and its layers, and compares these.
func fetch(ctx context.Context, src *registry.Source) error {
	m, err := src.Image(ctx)
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		data, err := readBlob(ctx, src, l.Descriptor)
		if err != nil {
			return err
		}
		if got := digest.FromBytes(data); got != l.Descriptor.Digest {
			return fmt.Errorf("blob %s has digest %s", l.Descriptor.Digest, got)
		}
	}
	return nil
}

// about tells what a request is for: "auth", "manifest", "config" or "layer".
func about(b *ocitest.Built, r *http.Request) string {
	switch {
	case r.URL.Path == "/v2/":
		return "auth"
	case strings.Contains(r.URL.Path, "/manifests/"):
		return "manifest"
	case strings.HasSuffix(r.URL.Path, b.Find("config").Descriptor.Digest.String()):
		return "config"
	}
	return "layer"
}

// TestPassing has each kind of request fail twice for reasons that pass.
func TestPassing(t *testing.T) {
	for name, fault := range map[string]ocitest.Fault{
		"408": {Status: 408}, "429": {Status: 429}, "500": {Status: 500}, "502": {Status: 502}, "503": {Status: 503}, "504": {Status: 504},
		"connection lost": {Drop: true}, "cut": {Cut: 100}, "stalled": {Cut: 100, Stall: true},
	} {
		for _, what := range []string{"auth", "manifest", "config", "layer"} {
			if what == "auth" && fault.Cut > 0 {
				continue // that answer has no body
			}
			t.Run(name+" of "+what, func(t *testing.T) {
				b, f, host := broken(t, random(10_000))
				var told notices
				struck := 0
				f.StrikeBy(func(r *http.Request) ocitest.Fault {
					// A HEAD has no body to break; one that is refused is asked for again by a GET.
					if about(b, r) != what || struck == 2 || r.Method == http.MethodHead && (fault.Cut > 0 || fault.Status > 0) {
						return ocitest.Fault{}
					}
					struck++
					return fault
				})
				o := registry.Options{Retry: hasty, Told: told.told, Timeouts: registry.Timeouts{Stall: 50 * time.Millisecond}}
				if err := fetch(context.Background(), open(t, host, "org/app:v1", o)); err != nil {
					t.Fatal(err)
				}
				if struck != 2 {
					t.Fatalf("struck %d times", struck)
				}
				// The library asks by HTTP and, of this machine, by HTTPS, and net/http repeats what a lost
				// connection that was used before may be blamed for.
				if n := len(told.all); n == 0 || n > 2 || n < 2 && what != "auth" && !fault.Drop {
					t.Errorf("told %d times: %v", n, told.all)
				}
				for _, n := range told.all {
					if s := n.String(); !strings.Contains(s, "docker://"+host+"/org/app:v1: ") || !strings.Contains(s, "trying again in") {
						t.Errorf("told %q", s)
					}
				}
			})
		}
	}
}

// quietTLS starts a server whose certificate nobody vouches for, and which does not mind.
func quietTLS(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// TestFinal has answers that would be the same the next time: they are asked for once.
func TestFinal(t *testing.T) {
	b := sample(t)
	for _, status := range []int{400, 401, 403, 404, 405, 406, 410, 416, 451, 501, 505} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := &ocitest.Faults{Registry: b.Handler(), Strike: func(r *http.Request) ocitest.Fault {
				if about(b, r) == "layer" {
					return ocitest.Fault{Status: status}
				}
				return ocitest.Fault{}
			}}
			var told notices
			host := serve(t, f)
			err := fetch(context.Background(), open(t, host, "org/app:v1", registry.Options{Retry: hasty, Told: told.told}))
			wantError(t, err, fmt.Sprint(status), host)
			layer := b.Find("layer").Descriptor.Digest.String()
			if n := len(f.Blobs()[layer]); n != 1 || len(told.all) > 0 {
				t.Errorf("asked %d times, told %v", n, told.all)
			}
		})
	}
	srv := quietTLS(t, b.Handler())
	var told notices
	host := strings.TrimPrefix(srv.URL, "https://")
	_, err := open(t, host, "org/app:v1", registry.Options{Retry: hasty, Told: told.told}).Image(context.Background())
	wantError(t, err, "certificate", host)
	if len(told.all) > 0 {
		t.Errorf("tried a bad certificate again: %v", told.all)
	}
	_, err = open(t, "no-such-host.invalid", "org/app:v1", registry.Options{Retry: hasty, Told: told.told}).Image(context.Background())
	wantError(t, err, "no-such-host.invalid")
}

// TestGivesUp has a registry that never gets better.
func TestGivesUp(t *testing.T) {
	b, f, host := broken(t, random(10_000))
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		if about(b, r) == "layer" {
			return ocitest.Fault{Cut: 5000}
		}
		return ocitest.Fault{}
	})
	err := fetch(context.Background(), open(t, host, "org/app:v1", registry.Options{Retry: hasty}))
	wantError(t, err, "broke off after 5000 of", "tried 6 times", "/blobs/")
	// The first of them brings something.
	if n := len(f.Blobs()[b.Find("layer").Descriptor.Digest.String()]); n != 6 {
		t.Errorf("asked %d times", n)
	}
	f.StrikeBy(func(*http.Request) ocitest.Fault { return ocitest.Fault{Drop: true} })
	_, err = open(t, host, "org/app:v1", registry.Options{Retry: hasty}).Image(context.Background())
	wantError(t, err, host, "tried 6 times")
}

// TestWaitsAsAsked has a registry say when to come again.
func TestWaitsAsAsked(t *testing.T) {
	b, f, host := broken(t, random(100))
	struck := 0
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		if about(b, r) == "layer" && struck == 0 {
			struck++
			return ocitest.Fault{Status: 429, RetryAfter: "1"}
		}
		return ocitest.Fault{}
	})
	begin := time.Now()
	var told notices
	if err := fetch(context.Background(), open(t, host, "org/app:v1", registry.Options{Retry: hasty, Told: told.told})); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < time.Second || len(told.all) != 1 || told.all[0].Wait != time.Second {
		t.Errorf("took %v, told %v", d, told.all)
	}
	// Nobody waits for an hour.
	f.StrikeBy(func(*http.Request) ocitest.Fault { return ocitest.Fault{Status: 429, RetryAfter: "3600"} })
	_, err := open(t, host, "org/app:v1", registry.Options{Retry: hasty, Told: told.told}).Image(context.Background())
	wantError(t, err, "429", host)
	if len(told.all) != 1 {
		t.Errorf("told %v", told.all)
	}
}

// TestCancelWait ends a wait.
func TestCancelWait(t *testing.T) {
	_, f, host := broken(t, random(100))
	f.StrikeBy(func(*http.Request) ocitest.Fault { return ocitest.Fault{Status: 503, RetryAfter: "60"} })
	ctx, cancel := context.WithCancel(context.Background())
	begin := time.Now()
	o := registry.Options{Told: func(registry.Notice) { cancel() }}
	o.Retry.Tries = 3
	_, err := open(t, host, "org/app:v1", o).Image(ctx)
	if d := time.Since(begin); !errors.Is(err, context.Canceled) || d > 10*time.Second {
		t.Errorf("%v after %v", err, d)
	}
}

// cuts are the places where a blob of some size is cut: every 1 % at night, else every 10 %.
func cuts(size int64) []int64 {
	step := int64(10)
	if testenv.Nightly() {
		step = 1
	}
	var at []int64
	for p := step; p < 100; p += step {
		at = append(at, size*p/100)
	}
	return at
}

// TestCutEverywhere cuts a blob: what is read is the same, and no byte is given twice where the registry has parts.
func TestCutEverywhere(t *testing.T) {
	b, f, host := broken(t, random(200_000))
	layer := b.Find("layer")
	size := layer.Descriptor.Size
	src := open(t, host, "org/app:v1", registry.Options{Retry: hasty})
	for _, noRanges := range []bool{false, true} {
		for _, at := range cuts(size) {
			f.Change(func() { f.NoRanges = noRanges })
			f.Forget()
			left := 1
			f.StrikeBy(func(r *http.Request) ocitest.Fault {
				if about(b, r) != "layer" || left == 0 {
					return ocitest.Fault{}
				}
				left--
				return ocitest.Fault{Cut: at}
			})
			data, err := readBlob(context.Background(), src, layer.Descriptor)
			if err != nil || !bytes.Equal(data, layer.Data) {
				t.Fatalf("cut at %d: %d bytes, %v", at, len(data), err)
			}
			want := []ocitest.Request{{Status: 200, Bytes: at}, {Status: 206, First: at, Bytes: size - at}}
			if noRanges {
				want[1] = ocitest.Request{Status: 200, Bytes: size}
			}
			got := f.Blobs()[layer.Descriptor.Digest.String()]
			for i := range got {
				got[i].Method, got[i].Path = "", ""
			}
			if !slices.Equal(got, want) {
				t.Errorf("cut at %d: %v, want %v", at, got, want)
			}
		}
	}
	// All cuts in one read.
	f.Change(func() { f.NoRanges = false })
	f.Forget()
	at := cuts(size)
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		if about(b, r) != "layer" || len(at) == 0 {
			return ocitest.Fault{}
		}
		defer func() { at = at[1:] }()
		return ocitest.Fault{Cut: at[0]}
	})
	data, err := readBlob(context.Background(), src, layer.Descriptor)
	if err != nil || !bytes.Equal(data, layer.Data) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	var given int64
	for _, r := range f.Requests() {
		given += r.Bytes
	}
	if given != size {
		t.Errorf("%d bytes were given of %d", given, size)
	}
}

// TestOtherBlob has a registry that gives something else when it is asked for the rest.
func TestOtherBlob(t *testing.T) {
	b, f, host := broken(t, random(20_000))
	layer := b.Find("layer").Descriptor
	half := layer.Size / 2
	good := f.Registry
	for name, c := range map[string]struct {
		rest http.HandlerFunc
		want string
	}{
		"longer": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, layer.Size-1, layer.Size+1))
			w.WriteHeader(http.StatusPartialContent)
		}, fmt.Sprintf("longer than the %d bytes", layer.Size)},
		"shorter": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", half))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, fmt.Sprintf("has %d bytes, its descriptor says %d", half, layer.Size)},
		"whole, shorter": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = w.Write([]byte("12345"))
		}, "has 5 bytes, its descriptor says"},
		"too much": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, layer.Size-1, layer.Size))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, layer.Size))
		}, "longer than the"},
		"gone": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }, "404 Not Found"},
		"another part, and nothing whole": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half+1, layer.Size-1, layer.Size))
			w.WriteHeader(http.StatusPartialContent)
		}, "403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			f.StrikeBy(func(r *http.Request) ocitest.Fault {
				if about(b, r) != "layer" {
					return ocitest.Fault{}
				}
				if asked++; asked == 1 {
					return ocitest.Fault{Cut: half}
				}
				f.Registry = c.rest
				return ocitest.Fault{}
			})
			f.Change(func() { f.Registry = good })
			src := open(t, host, "org/app:v1", registry.Options{Retry: hasty})
			data, err := readBlob(context.Background(), src, layer)
			wantError(t, err, c.want, "/blobs/"+layer.Digest.String())
			if int64(len(data)) < half || int64(len(data)) > layer.Size {
				t.Errorf("%d bytes were handed on", len(data))
			}
			if asked > 3+1 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

// TestOpenBlobFrom reads what follows some bytes.
func TestOpenBlobFrom(t *testing.T) {
	b, f, host := broken(t, random(20_000))
	layer := b.Find("layer")
	src := open(t, host, "org/app:v1", registry.Options{Retry: hasty})
	for _, noRanges := range []bool{false, true} {
		f.Change(func() { f.NoRanges = noRanges })
		for _, at := range []int64{0, 1, 1000, layer.Descriptor.Size - 1, layer.Descriptor.Size} {
			r, err := src.OpenBlobFrom(context.Background(), layer.Descriptor, at)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(data, layer.Data[at:]) {
				t.Errorf("from %d: %d bytes, %v", at, len(data), err)
			}
		}
	}
	for _, at := range []int64{-1, layer.Descriptor.Size + 1} {
		_, err := src.OpenBlobFrom(context.Background(), layer.Descriptor, at)
		wantError(t, err, "no such part")
	}
}

// TestResumeElsewhere has blobs on another host, which breaks off, and tokens that expire meanwhile: the rest is asked of the
// registry again, with a new token, and the other host never sees one.
func TestResumeElsewhere(t *testing.T) {
	b, f, _ := broken(t, random(100_000))
	other := &elsewhere{Handler: f}
	otherHost := serve(t, other)
	cut := int64(10_000)
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		defer func() { cut += 20_000 }()
		return ocitest.Fault{Cut: cut}
	})
	auth := &tokenAuth{uses: 1, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Authorization") != "" {
			http.Redirect(w, r, "http://"+otherHost+r.URL.Path+"?X-Signature=SIGNED", http.StatusTemporaryRedirect)
			return
		}
		b.Handler().ServeHTTP(w, r)
	})}
	host := serve(t, auth)
	authFile(t, host, user, secret)
	var told notices
	src := open(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain(), Retry: hasty, Told: told.told})
	if err := fetch(context.Background(), src); err != nil {
		t.Fatal(err)
	}
	if other.leaked.Load() != nil {
		t.Errorf("leaked %s", other.leaked.Load())
	}
	if n := other.asked.Load(); n < 5 || auth.issued.Load() < n {
		t.Errorf("the other host was asked %d times, %d tokens were given", n, auth.issued.Load())
	}
	for _, n := range told.all {
		if strings.Contains(n.String(), "SIGNED") || strings.Contains(n.String(), "token-") {
			t.Errorf("told a secret: %v", n)
		}
	}
}

var _ oci.NetworkSource = (*registry.Source)(nil)

// TestRangeGoesOn cuts an answer with a part of a blob.
func TestRangeGoesOn(t *testing.T) {
	b, f, host := broken(t, random(20_000))
	layer := b.Find("layer")
	src := open(t, host, "org/app:v1", registry.Options{Retry: hasty})
	struck := false
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		if about(b, r) != "layer" || struck {
			return ocitest.Fault{}
		}
		struck = true
		return ocitest.Fault{Cut: 5000}
	})
	r, err := src.OpenRange(context.Background(), layer.Descriptor, 1000, 9000)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(data, layer.Data[1000:10_000]) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if got := f.Requests(); len(got) != 2 || got[1].First != 5000 || got[1].Bytes != 5000 {
		t.Errorf("asked for %v", got)
	}
}

// TestHTTP2 has connections break of which net/http tells in other words.
func TestHTTP2(t *testing.T) {
	b := sample(t)
	layer := b.Find("layer").Descriptor
	for name, fault := range map[string]ocitest.Fault{"cut": {Cut: layer.Size / 2}, "lost": {Drop: true}, "stalled": {Cut: layer.Size / 2, Stall: true}} {
		t.Run(name, func(t *testing.T) {
			left := 2
			f := &ocitest.Faults{Registry: b.Handler(), Strike: func(r *http.Request) ocitest.Fault {
				if r.ProtoMajor != 2 {
					t.Errorf("asked by %s", r.Proto)
				}
				if !strings.HasSuffix(r.URL.Path, layer.Digest.String()) || left == 0 {
					return ocitest.Fault{}
				}
				left--
				return fault
			}}
			srv := httptest.NewUnstartedServer(f)
			srv.EnableHTTP2 = true
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			host := strings.TrimPrefix(srv.URL, "https://")
			var told notices
			src := open(t, host, "org/app:v1", registry.Options{
				Retry: hasty, Told: told.told, Timeouts: registry.Timeouts{Stall: 50 * time.Millisecond},
				RegistriesConf: conf(t, "[[registry]]\nlocation = %q\ninsecure = true\n", host),
			})
			if err := fetch(context.Background(), src); err != nil || left > 0 {
				t.Errorf("%v; told %v", err, told.all)
			}
		})
	}
}

// TestEndlessAuth has answers about authentication that bring nothing, or never end.
func TestEndlessAuth(t *testing.T) {
	b := sample(t)
	for name, path := range map[string]string{"challenge": "/v2/", "token": "/token"} {
		for _, endless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, endless %v", name, endless), func(t *testing.T) {
				h := &tokenAuth{Handler: b.Handler(), anonymous: true}
				host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != path {
						h.ServeHTTP(w, r)
						return
					}
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
					if path == "/v2/" {
						w.WriteHeader(http.StatusUnauthorized)
					}
					for r.Context().Err() == nil {
						_, _ = w.Write([]byte("{"))
						w.(http.Flusher).Flush()
						if !endless {
							<-r.Context().Done()
						}
					}
				}))
				begin := time.Now()
				o := registry.Options{Timeouts: registry.Timeouts{
					Connect: 100 * time.Millisecond, TLS: 100 * time.Millisecond, Header: 100 * time.Millisecond, Stall: 50 * time.Millisecond,
				}}
				err := fetch(context.Background(), open(t, host, "org/app:v1", o))
				// A challenge is complete with its header.
				if d := time.Since(begin); d > 10*time.Second || path == "/token" && err == nil {
					t.Errorf("%v after %v", err, d)
				}
			})
		}
	}
}
