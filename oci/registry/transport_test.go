package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// TestMain has no test depend on the mirrors of the machine that it runs on.
func TestMain(m *testing.M) {
	if err := os.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestIsLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.1.2.3:80": true, "[::1]:5000": true, "[::1]": true,
		"": false, "localhost.example": false, "x.localhost": false, "128.0.0.1": false, "10.0.0.1:5000": false,
		"192.168.1.1": false, "[::2]:1": false, "127.0.0.1.example": false, "0.0.0.0": false, "[fe80::1]": false,
	} {
		if got := isLocal(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// remote opens a source whose transport trusts a server and sends everything
// that goes to registry.example and below there. What goes to other names
// fails.
func remote(t *testing.T, srv *httptest.Server, o Options) *Source {
	t.Helper()
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain()
	}
	if o.Retry == (Retry{}) {
		o.Retry = Retry{Tries: 1}
	}
	s, err := Open(oci.Reference{Transport: oci.Docker, Host: "registry.example", Repository: "app", Tag: "v1"}, o)
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	inner := s.endpoints[0].base.inner
	inner.Proxy = nil
	dial := inner.DialContext
	inner.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !strings.Contains(addr, "registry.example:") {
			return nil, errors.New("dialled " + addr)
		}
		return dial(ctx, network, at.Host)
	}
	if srv.Certificate() != nil {
		pool := x509.NewCertPool()
		pool.AddCert(srv.Certificate())
		inner.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com"}
	}
	return s
}

func TestPlainHTTPIsRefused(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer srv.Close()
	_, err := remote(t, srv, Options{}).Resolve(context.Background())
	if err == nil || !strings.Contains(err.Error(), "insecure = true") || asked != 0 {
		t.Errorf("asked %d times, got %v", asked, err)
	}
	_, err = remote(t, srv, Options{Insecure: true}).Resolve(context.Background())
	if err == nil || strings.Contains(err.Error(), "insecure = true") || asked == 0 {
		t.Errorf("insecure: asked %d times, got %v", asked, err)
	}
	// Whoever gets at the transport itself fares no better.
	s := remote(t, srv, Options{})
	req, err := http.NewRequest(http.MethodGet, "http://registry.example/", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := s.endpoints[0].base.RoundTrip(req); !errors.Is(err, errPlainHTTP) {
		t.Errorf("got %v, %v", resp, err)
	}
}

// someone has credentials for every registry.
type someone struct{}

func (someone) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "jo", Password: "secret"}), nil
}

// A host below the registry's own domain is another host, although net/http
// takes the headers of a request along to it.
func TestRedirectToSubdomain(t *testing.T) {
	b, err := ocitest.Sample(oci.Platform{OS: "linux", Architecture: "amd64"}).Build()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _, auth := r.BasicAuth()
		switch below := r.Host == "blobs.registry.example"; {
		case below && r.Header.Get("Authorization") != "":
			t.Errorf("%s was sent to %s", r.Header.Get("Authorization"), r.Host)
		case below:
			asked++
			b.Handler().ServeHTTP(w, r)
		case !auth:
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, "https://blobs.registry.example"+r.URL.Path, http.StatusFound)
		default:
			b.Handler().ServeHTTP(w, r)
		}
	}))
	defer srv.Close()
	if _, err := remote(t, srv, Options{Keychain: someone{}}).Image(context.Background()); err != nil {
		t.Error(err)
	}
	if asked != 1 {
		t.Errorf("asked %d times for a blob", asked)
	}
}

// What net/http would take along is taken away again.
func TestCheckRedirect(t *testing.T) {
	s := new(repository)
	request := func(to string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, to, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Basic x")
		r.Header.Set("Cookie", "x")
		return r
	}
	first := request("https://registry.example/a")
	for to, kept := range map[string]bool{
		"https://registry.example/b": true, "https://sub.registry.example/": false,
		"https://registry.example:444/": false, "https://cdn.example/": false,
	} {
		next := request(to)
		if err := s.checkRedirect(next, []*http.Request{first}); err != nil {
			t.Errorf("%s: %v", to, err)
		}
		if has := next.Header.Get("Authorization") != "" || next.Header.Get("Cookie") != ""; has != kept {
			t.Errorf("%s: credentials kept: %v", to, has)
		}
	}
}

func TestRedirectFromHTTPS(t *testing.T) {
	for _, to := range []string{"http://registry.example/", "http://127.0.0.1:1/", "http://cdn.example/"} {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				http.Redirect(w, r, to+"x?sig=SECRET", http.StatusFound)
			}
		}))
		_, err := remote(t, srv, Options{}).Resolve(context.Background())
		if err == nil || !strings.Contains(err.Error(), "redirected from HTTPS to http") || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: got %v", to, err)
		}
		srv.Close()
	}
}

func TestTimeouts(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	_, err := remote(t, srv, Options{Timeouts: Timeouts{Header: 50 * time.Millisecond}}).Resolve(context.Background())
	if err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers") {
		t.Errorf("got %v", err)
	}
	if got := (Timeouts{TLS: 1}).fill(); got != (Timeouts{30 * time.Second, 1, time.Minute, time.Minute}) {
		t.Errorf("got %+v", got)
	}
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "soon": 0, "99999999999999999999": 0,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := retryAfter(in); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
	if got := retryAfter(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)); got < 59*time.Minute || got > time.Hour {
		t.Errorf("in an hour: got %v", got)
	}
}

func TestRedact(t *testing.T) {
	u, err := url.Parse("https://jo:secret@h.example/a%0ab?sig=1#f")
	if err != nil {
		t.Fatal(err)
	}
	if got := redact(u); got != "https://h.example/a%0Ab" {
		t.Errorf("got %q", got)
	}
}
