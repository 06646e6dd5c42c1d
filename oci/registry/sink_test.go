package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/registry"
)

// blobBytes is large enough for several chunks, and for some to be more than
// is sent at once whatever the size is.
const blobBytes = 5<<20 + 4321

var large, small = randomBytes(blobBytes), randomBytes(1234)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// openSink opens HOST/REST for writing, with chunks of 1 MiB.
func openSink(t *testing.T, host, rest string, o registry.Options) *registry.Sink {
	t.Helper()
	ref, err := oci.ParseReference("docker://" + host + "/" + rest)
	if err != nil {
		t.Fatal(err)
	}
	if o.Keychain == nil {
		o.Keychain = nobody
	}
	if o.Retry == (registry.Retry{}) {
		o.Retry = registry.Retry{First: time.Millisecond, Longest: 10 * time.Millisecond}
	}
	o.RegistriesConf = os.DevNull
	s, err := registry.OpenSink(ref, o)
	if err != nil {
		t.Fatal(err)
	}
	s.SetChunk(1 << 20)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// once is a blob that can be read once.
func once(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }

func TestPutBlob(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"as it is":            func(*fake) {},
		"absolute":            func(f *fake) { f.absolute = true },
		"large chunks wanted": func(f *fake) { f.min = 3 << 20 },
		"all in one chunk":    func(f *fake) { f.min = 1 << 40 },
		"no large bodies":     func(f *fake) { f.max = 300 << 10 },
	} {
		for _, b := range [][]byte{large, small, {}} {
			t.Run(fmt.Sprintf("%s/%d", name, len(b)), func(t *testing.T) {
				f := newFake()
				change(f)
				s := openSink(t, serve(t, f), "org/app:v1", registry.Options{})
				desc := describe(b)
				if has, err := s.HasBlob(context.Background(), desc); has || err != nil {
					t.Errorf("before: %v, %v", has, err)
				}
				if err := s.PutBlob(context.Background(), desc, bytes.NewReader(b)); err != nil {
					t.Error(err)
				}
				f.has(t, "org/app", b)
				if has, err := s.HasBlob(context.Background(), desc); !has || err != nil {
					t.Errorf("after: %v, %v", has, err)
				}
				if len(f.uploads) > 0 {
					t.Errorf("%d uploads are left", len(f.uploads))
				}
				if got := f.count("PATCH blobs/uploads"); (got == 0) != (len(b) <= 1<<20) {
					t.Errorf("%d chunks", got)
				}
			})
		}
	}
}

// What can be read once is sent as well, as long as nothing goes wrong.
func TestPutOnce(t *testing.T) {
	f := newFake()
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	if err := s.PutBlob(context.Background(), describe(large), once(large)); err != nil {
		t.Error(err)
	}
	f.has(t, "app", large)

	f = newFake()
	f.cut = func(before int) int { return 50 * (1 - before) }
	s = openSink(t, serve(t, f), "app:v1", registry.Options{})
	wantError(t, s.PutBlob(context.Background(), describe(large), once(large)), "can't be read a second time")
	f.empty(t)
}

// Every request with a part of a blob is cut off once, wherever it is.
func TestCutUploads(t *testing.T) {
	for _, percent := range []int{1, 10, 50, 90, 100} {
		for _, b := range [][]byte{large, small} {
			t.Run(fmt.Sprintf("%d/%d", percent, len(b)), func(t *testing.T) {
				f := newFake()
				f.cut = func(before int) int {
					if before%2 == 0 {
						return percent
					}
					return 0
				}
				s := openSink(t, serve(t, f), "app:v1", registry.Options{})
				if err := s.PutBlob(context.Background(), describe(b), bytes.NewReader(b)); err != nil {
					t.Error(err)
				}
				f.has(t, "app", b)
				// What the registry had of a large one is not sent again.
				if len(b) > 1<<20 && f.received != int64(len(b)) {
					t.Errorf("%d bytes were received, want %d", f.received, len(b))
				}
			})
		}
	}
}

// A connection that never lasts is no reason to give up while it brings something.
func TestAlwaysCut(t *testing.T) {
	f := newFake()
	b := randomBytes(20 << 20)
	f.cut = func(int) int { return 60 }
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	s.SetChunk(8 << 20)
	err := s.PutBlob(context.Background(), describe(b), bytes.NewReader(b))
	// The end is never reached: its last byte is always cut off.
	wantError(t, err, "PATCH")
	if got := f.received; got < 19<<20 {
		t.Errorf("only %d bytes were received", got)
	}
	f.empty(t)
}

// Each kind of request fails, once or as often as it is made.
func TestFailingRequests(t *testing.T) {
	kinds := []string{"GET ping", "HEAD blobs", "POST blobs/uploads", "PATCH blobs/uploads", "PUT blobs/uploads", "GET blobs/uploads", "PUT manifests"}
	for _, status := range []int{500, 503, 429} {
		for _, kind := range kinds {
			for _, always := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d %s always=%v", status, kind, always), func(t *testing.T) {
					f := newFake()
					f.fault = func(w http.ResponseWriter, r *http.Request, k string, before int) bool {
						// A PATCH that fails leads to the GET that fails.
						first := kind == "GET blobs/uploads" && k == "PATCH blobs/uploads" && before == 0
						if !first && (k != kind || before > 0 && !always) {
							return false
						}
						refuse(w, status, "TROUBLE", "not now")
						return true
					}
					err := pushOne(t, openSink(t, serve(t, f), "app:v1", registry.Options{}))
					if !always {
						if err != nil {
							t.Error(err)
						}
						f.has(t, "app", large)
						return
					}
					wantError(t, err, fmt.Sprint(status))
					if kind != "HEAD blobs" { // which has no room for a reason
						wantError(t, err, "TROUBLE: not now")
					}
					if n := f.count(kind); n < 2 || n > 20 {
						t.Errorf("%s was tried %d times", kind, n)
					}
					if len(f.manifests) > 0 {
						t.Error("there is a manifest")
					}
				})
			}
		}
	}
}

// pushOne asks for a blob, puts it, and a manifest.
func pushOne(t *testing.T, s *registry.Sink) error {
	t.Helper()
	ctx := context.Background()
	if has, err := s.HasBlob(ctx, describe(large)); has || err != nil {
		return err
	}
	if err := s.PutBlob(ctx, describe(large), bytes.NewReader(large)); err != nil {
		return err
	}
	m := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(small), Size: int64(len(small))}
	return s.PutManifest(ctx, small, m)
}

// An answer to the last request that doesn't come: the blob is there.
func TestAnswerLost(t *testing.T) {
	for _, b := range [][]byte{large, small} {
		f := newFake()
		f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
			if kind != "PUT blobs/uploads" || before > 0 {
				return false
			}
			f.fault = nil
			f.ServeHTTP(&silent{header: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		}
		s := openSink(t, serve(t, f), "app:v1", registry.Options{})
		if err := s.PutBlob(context.Background(), describe(b), bytes.NewReader(b)); err != nil {
			t.Error(err)
		}
		f.has(t, "app", b)
		if f.received != int64(len(b)) {
			t.Errorf("%d bytes were received, want %d", f.received, len(b))
		}
	}
}

type silent struct{ header http.Header }

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(int)             {}

// A registry that forgets uploads: one time it is begun anew, and not for ever.
func TestForgottenUploads(t *testing.T) {
	for _, times := range []int{1, 3, 1000} {
		f := newFake()
		lost := 0
		f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
			// It comes as far as the third chunk each time.
			if kind == "PATCH blobs/uploads" && strings.HasPrefix(r.Header.Get("Content-Range"), fmt.Sprint(2<<20, "-")) && lost < times {
				lost++
				refuse(w, 404, "BLOB_UPLOAD_UNKNOWN", "what upload?")
				return true
			}
			return false
		}
		s := openSink(t, serve(t, f), "app:v1", registry.Options{})
		err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large))
		if times < 1000 {
			if err != nil {
				t.Error(err)
			}
			f.has(t, "app", large)
			continue
		}
		wantError(t, err, "the registry has forgotten what was sent")
		f.empty(t)
	}
	// Not even if it comes farther each time.
	f := newFake()
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
		if kind == "PATCH blobs/uploads" && strings.HasPrefix(r.Header.Get("Content-Range"), fmt.Sprint(f.next<<19, "-")) {
			refuse(w, 404, "BLOB_UPLOAD_UNKNOWN", "what upload?")
			return true
		}
		return false
	}
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	s.SetChunk(1 << 19)
	wantError(t, s.PutBlob(context.Background(), describe(large), bytes.NewReader(large)), "has lost 6 uploads")
	f.empty(t)
}

// A registry that says it has more than it was sent, or less again and again.
func TestLyingRanges(t *testing.T) {
	for name, said := range map[string]string{"too much": "0-99999999", "nothing": "0-0", "nonsense": "1-2", "not at all": ""} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
				switch kind {
				case "PATCH blobs/uploads":
					if before%2 == 1 {
						panic(http.ErrAbortHandler)
					}
				case "GET blobs/uploads":
					w.Header().Set("Range", said)
					w.WriteHeader(http.StatusNoContent)
					return true
				}
				return false
			}
			s := openSink(t, serve(t, f), "app:v1", registry.Options{})
			if err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large)); err == nil {
				f.has(t, "app", large)
			} else {
				f.empty(t)
			}
			if n := f.count("POST blobs/uploads"); n > 10 {
				t.Errorf("%d uploads were begun", n)
			}
			if n := f.count("PATCH blobs/uploads"); n > 100 {
				t.Errorf("%d chunks were sent", n)
			}
		})
	}
}

// A chunk of which a registry says that it has taken a part.
func TestPartOfChunk(t *testing.T) {
	f := newFake()
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
		if kind == "PATCH blobs/uploads" && before%2 == 0 && r.ContentLength > 100 {
			r.Body, r.ContentLength = io.NopCloser(io.LimitReader(r.Body, 100)), 100
			from, _, _ := strings.Cut(r.Header.Get("Content-Range"), "-")
			n := 0
			_, _ = fmt.Sscan(from, &n)
			r.Header.Set("Content-Range", fmt.Sprintf("%d-%d", n, n+99))
		}
		return false
	}
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	if err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large)); err != nil {
		t.Error(err)
	}
	f.has(t, "app", large)
}

// A registry without chunks gets the blob in one request.
func TestNoChunks(t *testing.T) {
	for _, status := range []int{405, 501} {
		f := newFake()
		f.fault = func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
			if kind == "PATCH blobs/uploads" {
				refuse(w, status, "UNSUPPORTED", "no chunks")
				return true
			}
			return false
		}
		f.cut = func(before int) int { return 50 * max(1-before, 0) }
		s := openSink(t, serve(t, f), "app:v1", registry.Options{})
		if err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large)); err != nil {
			t.Error(err)
		}
		f.has(t, "app", large)
	}
}

// Digests that a registry says it has stored are compared.
func TestWrongDigestSaid(t *testing.T) {
	for _, kind := range []string{"PUT blobs/uploads", "PUT manifests", "POST blobs/uploads"} {
		f := newFake()
		f.mounts = true
		f.blobs["other@"+describe(large).Digest.String()] = large
		h := edit(f, func(method, path string, w *httptest.ResponseRecorder) {
			if kindOf(&http.Request{Method: method, URL: &url.URL{Path: path}}) == kind {
				w.Header().Set("Docker-Content-Digest", digest.FromString("else").String())
			}
		})
		s := openSink(t, serve(t, h), "app:v1", registry.Options{})
		if kind == "POST blobs/uploads" {
			from := oci.Reference{Transport: oci.Docker, Host: mustHost(s), Repository: "other"}
			if ok, err := s.MountBlob(context.Background(), describe(large), from); ok || err != nil {
				t.Errorf("mounted: %v, %v", ok, err)
			}
			continue
		}
		err := pushOne(t, s)
		wantError(t, err, "says it has stored", digest.FromString("else").String())
		if de := new(oci.DigestError); !errors.As(err, &de) {
			t.Errorf("got %#v", err)
		}
	}
}

func mustHost(s *registry.Sink) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(s.String(), "docker://"), "/")
	return host
}

// What is not what its descriptor says is never finished.
func TestWrongBlobs(t *testing.T) {
	long := append(bytes.Clone(large), 'x')
	flipped := bytes.Clone(large)
	flipped[3<<20] ^= 1
	for name, c := range map[string]struct {
		desc ocispec.Descriptor
		give io.Reader
		want string
	}{
		"other":         {describe(large), bytes.NewReader(flipped), "has digest"},
		"other, small":  {describe(small), bytes.NewReader(flipped[3<<20:][:len(small)]), "has digest"},
		"longer":        {describe(large), bytes.NewReader(long), "longer"},
		"longer, small": {describe(small), bytes.NewReader(large), "longer"},
		"shorter":       {describe(large), bytes.NewReader(large[:len(large)-1]), "bytes, its descriptor says"},
		"broken":        {describe(large), io.MultiReader(bytes.NewReader(large[:3<<20]), errReader{errors.New("the disk is gone")}), "the disk is gone"},
		"no digest":     {ocispec.Descriptor{Size: 1}, bytes.NewReader(small), "digest is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			s := openSink(t, serve(t, f), "app:v1", registry.Options{})
			wantError(t, s.PutBlob(context.Background(), c.desc, c.give), c.want)
			f.empty(t)
			if len(f.uploads) > 0 {
				t.Errorf("%d uploads are left", len(f.uploads))
			}
			if f.count("POST blobs/uploads") > 1 {
				t.Error("it was tried again")
			}
		})
	}
	f := newFake()
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	wantError(t, s.PutManifest(context.Background(), small, describe(large)), "manifest")
	f.empty(t)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// A blob that begins in the middle of a file.
func TestPutFromMiddle(t *testing.T) {
	f := newFake()
	f.cut = func(before int) int { return 50 * max(1-before, 0) }
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	r := bytes.NewReader(append([]byte("before"), large...))
	_, _ = r.Seek(6, io.SeekStart)
	if err := s.PutBlob(context.Background(), describe(large), r); err != nil {
		t.Error(err)
	}
	f.has(t, "app", large)
}

func TestPutManifest(t *testing.T) {
	f := newFake()
	host := serve(t, f)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(small), Size: int64(len(small))}
	for rest, id := range map[string]string{
		"app:v1":                         "v1",
		"app@" + desc.Digest.String():    desc.Digest.String(),
		"app:v2@" + desc.Digest.String(): "v2",
	} {
		if err := openSink(t, host, rest, registry.Options{}).PutManifest(context.Background(), small, desc); err != nil {
			t.Error(err)
		}
		if string(f.manifests["app:"+id]) != string(small) || f.types["app:"+id] != ocispec.MediaTypeImageManifest {
			t.Errorf("%s: %d bytes, %q", rest, len(f.manifests["app:"+id]), f.types["app:"+id])
		}
	}
	before := len(f.log)
	err := openSink(t, host, "app:v3@"+describe(large).Digest.String(), registry.Options{}).PutManifest(context.Background(), small, desc)
	wantError(t, err, "manifest has digest "+desc.Digest.String())
	if len(f.log) > before {
		t.Errorf("sent for another digest: %q", f.log[before:])
	}
}

func TestMount(t *testing.T) {
	ctx := context.Background()
	desc := describe(large)
	for _, mounts := range []bool{true, false} {
		f := newFake()
		f.mounts = mounts
		auth := &tokenAuth{Handler: f}
		host := serve(t, auth)
		authFile(t, host, user, secret)
		f.blobs["org/base@"+desc.Digest.String()] = large
		s := openSink(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})
		base := oci.Reference{Transport: oci.Docker, Host: host, Repository: "org/base"}
		for _, from := range []oci.Reference{
			{Transport: oci.OCI, Path: "dir"}, {Transport: oci.Docker, Host: "elsewhere.example", Repository: "org/base"},
			{Transport: oci.Docker, Host: host, Repository: "org/app"},
		} {
			if ok, err := s.MountBlob(ctx, desc, from); ok || err != nil || len(f.log) > 0 {
				t.Errorf("%v: %v, %v, asked %q", from, ok, err, f.log)
			}
		}
		if ok, err := s.MountBlob(ctx, desc, base); ok != mounts || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
		scopes := fmt.Sprint(auth.scopes.Load())
		if !strings.Contains(scopes, "repository:org/app:push,pull") || !strings.Contains(scopes, "repository:org/base:pull") {
			t.Errorf("scopes: %s", scopes)
		}
		if !mounts { // the upload that was begun is used
			if err := s.PutBlob(ctx, desc, bytes.NewReader(large)); err != nil {
				t.Error(err)
			}
		}
		f.has(t, "org/app", large)
		if n := f.count("POST blobs/uploads"); n != 1 {
			t.Errorf("%d uploads were begun", n)
		}
		if mounts && f.received > 0 {
			t.Errorf("%d bytes were sent", f.received)
		}
	}
}

// Tokens end in the middle of uploads, with bodies half sent.
func TestTokensExpire(t *testing.T) {
	for _, uses := range []int64{1, 2, 3} {
		f := newFake()
		a := &tokenAuth{Handler: f, uses: uses}
		host := serve(t, a)
		authFile(t, host, user, secret)
		s := openSink(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})
		if err := pushOne(t, s); err != nil {
			t.Error(err)
		}
		f.has(t, "org/app", large)
		if got := a.scope.Load(); got != "repository:org/app:push,pull" {
			t.Errorf("scope is %q", got)
		}
		if a.issued.Load() < 3 {
			t.Errorf("%d tokens", a.issued.Load())
		}
	}
	f := newFake()
	host := serve(t, &tokenAuth{Handler: f})
	authFile(t, host, user, "wrong")
	wantError(t, pushOne(t, openSink(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})), "401 Unauthorized", "podman login")
	f.empty(t)
}

// Bodies follow redirects, credentials don't; what would become a GET is none.
func TestUploadRedirects(t *testing.T) {
	f := newFake()
	other := &elsewhere{Handler: f}
	otherHost := serve(t, other)
	redirecting := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			http.Redirect(w, r, "http://"+otherHost+r.URL.RequestURI(), status)
		})
	}
	host := serve(t, basicAuth(redirecting(http.StatusTemporaryRedirect)))
	authFile(t, host, user, secret)
	if err := pushOne(t, openSink(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})); err != nil {
		t.Error(err)
	}
	f.has(t, "org/app", large)
	if leaked := other.leaked.Load(); leaked != nil {
		t.Errorf("leaked %s", leaked)
	}
	s := openSink(t, serve(t, redirecting(http.StatusFound)), "org/two:v1", registry.Options{})
	wantError(t, s.PutBlob(context.Background(), describe(large), bytes.NewReader(large)), "a redirect makes a GET of a POST")
}

// An upload that goes on at another host gets no credentials there either.
func TestUploadElsewhere(t *testing.T) {
	f := newFake()
	other := &elsewhere{Handler: f}
	otherHost := serve(t, other)
	h := edit(f, func(method, _ string, w *httptest.ResponseRecorder) {
		if at := w.Header().Get("Location"); method == http.MethodPost && at != "" {
			w.Header().Set("Location", "http://someone:pass@"+otherHost+at)
		}
	})
	host := serve(t, basicAuth(h))
	authFile(t, host, user, secret)
	if err := pushOne(t, openSink(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})); err != nil {
		t.Error(err)
	}
	f.has(t, "org/app", large)
	if leaked := other.leaked.Load(); leaked != nil || other.asked.Load() == 0 {
		t.Errorf("leaked %v, asked %d times", leaked, other.asked.Load())
	}
}

func TestBadLocations(t *testing.T) {
	for _, at := range []string{"", "ftp://host/x", "http:///x", "http://[bad/", "http://registry.elsewhere.example/x"} {
		h := edit(newFake(), func(method, _ string, w *httptest.ResponseRecorder) {
			w.Header().Del("Location")
			if method == http.MethodPost && at != "" {
				w.Header().Set("Location", at)
			}
		})
		s := openSink(t, serve(t, h), "app:v1", registry.Options{})
		err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large))
		if err == nil {
			t.Errorf("%q was taken", at)
		}
	}
}

// A registry that takes no more bytes, and one that does not answer.
func TestUploadStalls(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, want := range map[string]string{"PATCH blobs/uploads": "no data arrived in time", "PUT manifests": "timeout awaiting response headers"} {
		f := newFake()
		f.fault = func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
			if kind == name {
				select {
				case <-release:
				case <-r.Context().Done():
				case <-time.After(5 * time.Second):
				}
				panic(http.ErrAbortHandler)
			}
			return false
		}
		// The body has to be more than what the kernel takes for it.
		s := openSink(t, serve(t, f), "app:v1", registry.Options{Timeouts: registry.Timeouts{Stall: 100 * time.Millisecond, Header: 200 * time.Millisecond}})
		b := randomBytes(32 << 20)
		s.SetChunk(32 << 20)
		err := s.PutBlob(context.Background(), describe(b), bytes.NewReader(b))
		if name == "PUT manifests" {
			err = errors.Join(err, s.PutManifest(context.Background(), small, describe(small)))
		}
		wantError(t, err, want)
	}
}

func TestPutHeedsContext(t *testing.T) {
	f := newFake()
	ctx, cancel := context.WithCancel(context.Background())
	f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
		if kind == "PATCH blobs/uploads" && before == 2 {
			_, _ = io.Copy(io.Discard, r.Body) // else it isn't noticed that the connection ends
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	}
	s := openSink(t, serve(t, f), "app:v1", registry.Options{})
	if err := s.PutBlob(ctx, describe(large), bytes.NewReader(large)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.empty(t)
	if f.count("DELETE blobs/uploads") != 1 || len(f.uploads) > 0 {
		t.Errorf("the upload was not cancelled: %q", f.log)
	}
}

// Who asks for a pause gets it; who asks for a long one is not waited for.
func TestUploadRetryAfter(t *testing.T) {
	for after, want := range map[string]bool{"1": true, "3600": false} {
		f := newFake()
		f.fault = func(w http.ResponseWriter, r *http.Request, kind string, before int) bool {
			if kind == "POST blobs/uploads" && before == 0 {
				w.Header().Set("Retry-After", after)
				refuse(w, 429, "TOOMANYREQUESTS", "slowly")
				return true
			}
			return false
		}
		start := time.Now()
		s := openSink(t, serve(t, f), "app:v1", registry.Options{})
		err := s.PutBlob(context.Background(), describe(large), bytes.NewReader(large))
		if (err == nil) != want || want && time.Since(start) < time.Second {
			t.Errorf("%s: %v after %v", after, err, time.Since(start))
		}
		if err != nil {
			wantError(t, err, "try again in 1h")
		}
	}
}

// What is sent is never in memory as a whole.
func TestPutMemory(t *testing.T) {
	const size = 512 << 20
	zeros := func() io.Reader { return io.LimitReader(zeroReader{}, size) }
	h := digest.SHA256.Digester()
	if _, err := io.Copy(h.Hash(), zeros()); err != nil {
		t.Fatal(err)
	}
	var got, peak atomic.Int64
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(404)
		case http.MethodPost:
			w.Header().Set("Location", "/v2/app/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPatch:
			n, _ := io.Copy(io.Discard, r.Body)
			got.Add(n)
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), int64(m.HeapInuse)))
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	s := openSink(t, host, "app:v1", registry.Options{})
	s.SetChunk(64 << 20)
	if err := s.PutBlob(context.Background(), ocispec.Descriptor{Digest: h.Digest(), Size: size}, zeros()); err != nil {
		t.Fatal(err)
	}
	if got.Load() != size {
		t.Errorf("%d bytes were received", got.Load())
	}
	if grown := peak.Load() - int64(before.HeapInuse); grown > 16<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
