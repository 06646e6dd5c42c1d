package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// maxRedirects bounds a chain of redirects; registries that send blobs from
// somewhere else need one or two.
const maxRedirects = 10

// maxResponseHeader bounds a response's header, in bytes.
const maxResponseHeader = 64 << 10

// maxIdlePerHost is how many connections stay open for the next layers.
const maxIdlePerHost = 8

// baseTransport is what all requests end in, those for challenges and tokens
// too: where the rules hold that nobody above may break.
type baseTransport struct {
	inner     *http.Transport
	insecure  bool
	userAgent string
	stall     time.Duration // without a byte of a body, after which a request is ended
	// after is what a registry or token server asked to wait when it refused something last: of what is said to the
	// library it tells the status only.
	after atomic.Int64
}

// newBase returns a transport with timeouts for each phase. Proxies come from
// the environment. anyCertificate takes servers for what they say they are.
func newBase(o Options, anyCertificate bool) *baseTransport {
	dialer := &net.Dialer{Timeout: o.Timeouts.Connect}
	return &baseTransport{
		insecure: o.Insecure, userAgent: o.UserAgent, stall: o.Timeouts.Stall,
		inner: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    o.Timeouts.TLS,
			ResponseHeaderTimeout:  o.Timeouts.Header,
			MaxIdleConnsPerHost:    maxIdlePerHost,
			MaxResponseHeaderBytes: maxResponseHeader,
			ForceAttemptHTTP2:      true,
			TLSClientConfig:        &tls.Config{InsecureSkipVerify: anyCertificate},
			// Blobs have digests of the bytes as they are stored. Asked for
			// compression, a server may add its own, which the library would
			// take off again, together with what was there before.
			DisableCompression: true,
		},
	}
}

// errPlainHTTP is why plain HTTP isn't spoken.
var errPlainHTTP = errors.New("plain HTTP is only spoken to this machine; allow it by insecure = true for this registry in registries.conf")

// RoundTrip refuses plain HTTP to other machines and says who is asking. A body
// that can be had anew is: when a request is sent again with another token,
// the first body has been read.
func (t *baseTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.insecure && !isLocal(req.URL.Host) {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper has to; nothing was read
		}
		return nil, errPlainHTTP
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", t.userAgent)
	if req.GetBody != nil {
		_ = req.Body.Close() // nothing of it is needed
		var err error
		if req.Body, err = req.GetBody(); err != nil {
			cancel(nil)
			return nil, err
		}
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil {
		cancel(nil)
		if req.URL.Scheme == "http" {
			err = &plainError{err, redact(req.URL)}
		}
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		t.after.Store(int64(retryAfter(resp.Header.Get("Retry-After"))))
	}
	resp.Body = &clocked{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, stall: t.stall}
	return resp, nil
}

// plainError is what went wrong with plain HTTP. A registry of this machine is asked by HTTPS and by HTTP at once; of one
// that speaks no HTTPS this is the failure that counts.
type plainError struct {
	error
	url string
}

func (e *plainError) Unwrap() error { return e.error }

// isLocal tells whether HOST or HOST:PORT is this machine by its very name:
// localhost or a loopback address.
func isLocal(hostport string) bool {
	host := (&url.URL{Host: hostport}).Hostname()
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkRedirect follows redirects, but takes no credentials along to another
// host and doesn't leave HTTPS. The library sets the Authorization header for
// each request anew, and only for the registry; net/http, which copies
// headers, keeps them for hosts below the first one's domain.
func (s *repository) checkRedirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	if req.Method != last.Method {
		// What has a body would become a GET, and its answer look like success.
		return fmt.Errorf("a redirect makes a %s of a %s", req.Method, last.Method)
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if last.URL.Scheme == "https" && req.URL.Scheme != "https" && !s.opts.Insecure {
		return fmt.Errorf("redirected from HTTPS to %s", req.URL.Scheme)
	}
	if req.URL.Host != via[0].URL.Host {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}
