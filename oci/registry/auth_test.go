package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
)

const (
	user   = "jo"
	secret = "s3cr3t:with colon"
)

// basicAuth wants a user and password for everything.
func basicAuth(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// refuse answers as the specification says.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// tokenAuth wants a bearer token, which its own /token gives for user and
// password, and which is good for some requests only.
type tokenAuth struct {
	http.Handler
	uses           int64 // how often a token is good; 0: for ever
	anonymous      bool  // tokens for everybody
	issued, served atomic.Int64
	scope, scopes  atomic.Value // the first one, and all of them
}

func (a *tokenAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		a.token(w, r)
		return
	}
	current := fmt.Sprintf("Bearer token-%d", a.issued.Load())
	good := a.issued.Load() > 0 && r.Header.Get("Authorization") == current
	if !good || a.uses > 0 && a.served.Add(1) > a.uses {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "token needed")
		return
	}
	a.Handler.ServeHTTP(w, r)
}

func (a *tokenAuth) token(w http.ResponseWriter, r *http.Request) {
	if u, p, _ := r.BasicAuth(); !a.anonymous && (u != user || p != secret) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"details":"incorrect username\u001b[31m or password"}`))
		return
	}
	a.scope.Store(r.URL.Query().Get("scope"))
	a.scopes.Store(r.URL.Query()["scope"])
	a.served.Store(0)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": fmt.Sprintf("token-%d", a.issued.Add(1)), "expires_in": 60})
}

// authFile writes credentials for a registry or a part of it, and makes it
// the file that is looked at.
func authFile(t *testing.T, key, user, password string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, key, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REGISTRY_AUTH_FILE", path)
}

// pull fetches an image and its layers.
func pull(t *testing.T, host string) error {
	t.Helper()
	src := open(t, host, "org/app:v1", registry.Options{Keychain: registry.NewKeychain()})
	m, err := src.Image(context.Background())
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		if _, err := readBlob(context.Background(), src, l.Descriptor); err != nil {
			return err
		}
	}
	return nil
}

func TestBasicAuth(t *testing.T) {
	host := serve(t, basicAuth(sample(t).Handler()))
	authFile(t, host, user, secret)
	if err := pull(t, host); err != nil {
		t.Error(err)
	}
	authFile(t, host, user, "wrong")
	err := pull(t, host)
	wantError(t, err, "401 Unauthorized", "UNAUTHORIZED: authentication required", "podman login "+host, "/v2/org/app/manifests/v1")
	if he := new(registry.HTTPError); !errors.As(err, &he) || he.Status != http.StatusUnauthorized {
		t.Errorf("got %#v", err)
	}
	authFile(t, "elsewhere.example", user, secret)
	wantError(t, pull(t, host), "401 Unauthorized")
}

func TestBearerAuth(t *testing.T) {
	for name, a := range map[string]*tokenAuth{
		"token":              {},
		"expires mid-pull":   {uses: 2},
		"token for everyone": {anonymous: true},
	} {
		t.Run(name, func(t *testing.T) {
			a.Handler = sample(t).Handler()
			host := serve(t, a)
			authFile(t, host+"/org", user, secret)
			if a.anonymous {
				authFile(t, "elsewhere.example", user, secret)
			}
			if err := pull(t, host); err != nil {
				t.Error(err)
			}
			if got := a.scope.Load(); got != "repository:org/app:pull" {
				t.Errorf("scope is %q", got)
			}
			if a.uses > 0 && a.issued.Load() < 2 {
				t.Error("the token did not expire")
			}
		})
	}
	host := serve(t, &tokenAuth{Handler: sample(t).Handler()})
	authFile(t, host, user, "wrong")
	wantError(t, pull(t, host), "/token: 401 Unauthorized", "incorrect username [31m or password", "podman login")
	authFile(t, host+"/other", user, secret)
	wantError(t, pull(t, host), "/token: 401 Unauthorized")
}

// elsewhere serves blobs on another host, and remembers headers that should
// not have come.
type elsewhere struct {
	http.Handler
	leaked atomic.Value
	asked  atomic.Int64
}

func (e *elsewhere) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.asked.Add(1)
	for _, h := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if v := r.Header.Get(h); v != "" {
			e.leaked.Store(h + ": " + v)
		}
	}
	e.Handler.ServeHTTP(w, r)
}

func TestRedirectLeaksNoCredentials(t *testing.T) {
	b := sample(t)
	for _, name := range []string{"basic", "bearer"} {
		t.Run(name, func(t *testing.T) {
			other := &elsewhere{Handler: b.Handler()}
			otherHost := serve(t, other)
			redirecting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					http.Redirect(w, r, "http://"+otherHost+r.URL.Path+"?X-Signature=SIGNED", http.StatusTemporaryRedirect)
					return
				}
				b.Handler().ServeHTTP(w, r)
			})
			var h http.Handler = &tokenAuth{Handler: redirecting}
			if name == "basic" {
				h = basicAuth(redirecting)
			}
			host := serve(t, h)
			authFile(t, host, user, secret)
			if err := pull(t, host); err != nil {
				t.Error(err)
			}
			if other.asked.Load() != 3 {
				t.Errorf("the other host was asked %d times, want 3", other.asked.Load())
			}
			if leaked := other.leaked.Load(); leaked != nil {
				t.Errorf("leaked %s", leaked)
			}
			// The other host's refusal shows where it was, but not the
			// signature.
			other.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "DENIED", "expired") })
			err := pull(t, host)
			wantError(t, err, "http://"+otherHost+"/v2/org/app/blobs/", "403 Forbidden", "DENIED: expired")
			if err != nil && strings.Contains(err.Error(), "SIGNED") {
				t.Errorf("the error has the signature: %v", err)
			}
		})
	}
}

func TestRedirectLoop(t *testing.T) {
	b := sample(t)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, r.URL.Path+"?x=secret", http.StatusFound)
			return
		}
		b.Handler().ServeHTTP(w, r)
	}))
	err := pull(t, host)
	wantError(t, err, "more than 10 redirects", "/blobs/")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error has the query: %v", err)
	}
}

func TestStatusHints(t *testing.T) {
	for status, want := range map[int][]string{
		403: {"403 Forbidden: DENIED: no", "log in with podman login"},
		404: {"404 Not Found: DENIED: no", "there is no such image"},
		429: {"429 Too Many Requests", "try again in 7s"},
		503: {"503 Service Unavailable: DENIED: no", "try again later"},
		418: {"418 I'm a teapot"},
	} {
		log := &requests{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Retry-After", "7")
			refuse(w, status, "DENIED", "no")
		})}
		host := serve(t, log)
		_, err := open(t, host, "app:v1", registry.Options{}).Image(context.Background())
		wantError(t, err, append(want, "docker://"+host+"/app:v1", "http://"+host+"/v2/app/manifests/v1")...)
		he := new(registry.HTTPError)
		if !errors.As(err, &he) || he.Status != status || he.RetryAfter != 7*time.Second {
			t.Errorf("%d: got %#v", status, err)
		}
		// Who is told to ask less doesn't ask again.
		if n := len(log.list()); (n == 1) != (status == 429) {
			t.Errorf("%d: asked %d times: %q", status, n, log.list())
		}
	}
}

func TestMessages(t *testing.T) {
	for _, c := range []struct{ contentType, body, want string }{
		{"application/json", `{"errors":[{"code":"A","message":"b"},{"code":"C"}]}`, ": A: b C ("},
		{"application/json", `{"message":"only\u0007 this"}`, ": only this ("},
		{"text/plain", "just\r\ntext\x00", ": just text ("},
		{"text/html", "<h1>no</h1>", ": the answer is a web page, not a registry's: <h1>no</h1> ("},
		{"text/plain", strings.Repeat("long ", 10000), "long … ("},
		{"", "", "404 Not Found (there"},
	} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.Header().Set("Content-Type", c.contentType)
				w.WriteHeader(404)
				_, _ = w.Write([]byte(c.body))
			}
		}))
		_, err := open(t, host, "app:v1", registry.Options{}).Resolve(context.Background())
		wantError(t, err, c.want)
	}
}

func TestNoRegistry(t *testing.T) {
	host := serve(t, http.NotFoundHandler())
	_, err := open(t, host, "app:v1", registry.Options{}).Resolve(context.Background())
	wantError(t, err, "http://"+host+"/v2/: 404 Not Found")
	srv := httptest.NewServer(http.NotFoundHandler())
	gone := strings.TrimPrefix(srv.URL, "http://")
	srv.Close()
	_, err = open(t, gone, "app:v1", registry.Options{}).Resolve(context.Background())
	wantError(t, err, gone, "connection refused")
}

func TestUserAgent(t *testing.T) {
	b, err := ocitest.Image{Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	var agents []string
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents = append(agents, r.UserAgent())
		b.Handler().ServeHTTP(w, r)
	}))
	if _, err := open(t, host, "app:v1", registry.Options{UserAgent: "flatroot/1.2"}).Image(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, a := range agents {
		if a != "flatroot/1.2" {
			t.Errorf("user agent is %q", a)
		}
	}
}
