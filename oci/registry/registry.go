// Package registry reads images from registries that speak the OCI
// distribution specification, which is Docker's registry API, version 2, and
// writes them there.
//
// github.com/google/go-containerregistry does the authentication: it asks
// the registry for its challenge, fetches tokens and renews them when they
// expire. Manifests and blobs are fetched and sent by our own requests over
// its RoundTripper, as its own blob reader can't be told where to begin and
// how to go on, and its writer begins a blob anew when it is cut off.
//
// Invariants:
//
//   - Credentials go to the registry that they were stored for, and to the
//     token server that it names over the same kind of connection; never to
//     the host of a redirect.
//   - Plain HTTP is spoken to this machine only, unless Options.Insecure or
//     registries.conf allows it, and never by way of a redirect from HTTPS.
//   - What a registry says about a manifest or config is read up to a bound
//     and verified by oci.Load. Blobs are handed on unverified, but a body
//     that is longer or shorter than its descriptor says is an error.
//   - What fails for a reason that may pass is tried again, within bounds; a
//     blob that breaks off goes on where it was. What the other side says for
//     good, and what does not fit its digest, is not asked again of the same
//     endpoint.
//   - Of a blob that is sent no more is in memory than a buffer of the
//     transport's, unless it has at most 1 MiB; and none is finished whose
//     bytes are not what its descriptor says.
//   - Text of the other side's gets into errors short and without control
//     characters, and addresses without their query, where signatures are.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Options of a Source or Sink. The zero value is what users want.
type Options struct {
	// Platform to take from an image index. Zero is this machine's. A Sink has
	// no use for it.
	Platform oci.Platform
	// Insecure allows plain HTTP to any host. Certificates are checked
	// wherever there are some.
	Insecure bool
	// Keychain finds credentials. Nil is NewKeychain.
	Keychain authn.Keychain
	// UserAgent to send. Empty is "flatroot".
	UserAgent string
	// Timeouts of the phases of a request; those that are zero have defaults.
	Timeouts Timeouts
	// Retry is how often and when a failed request is sent again; what is zero has defaults.
	Retry Retry
	// Told hears of each failure that is no reason to give up. It may be called from several goroutines. Nil: nobody does.
	Told func(Notice)
	// RegistriesConf is the file with mirrors and blocked registries. Empty: where containers-registries.conf(5) says.
	RegistriesConf string
}

// tell hands on what is tried again for a reference.
func (o *Options) tell(ref oci.Reference, n Notice) {
	if o.Told != nil {
		n.Source = ref.String()
		o.Told(n)
	}
}

// Timeouts bound how long a registry may be silent. There is none for a whole
// request: blobs take as long as they take.
type Timeouts struct {
	Connect time.Duration // to connect; 30 s
	TLS     time.Duration // for the TLS handshake; 15 s
	Header  time.Duration // from request to response header; 60 s
	Stall   time.Duration // without a byte of a body, in either direction; 60 s
}

// answer bounds the whole way to the header of an answer: what the library asks a registry and a token server about
// authentication, and redirects. Their answers have bodies, which nobody else has an eye on.
func (t Timeouts) answer() time.Duration { return 4 * (t.Connect + t.TLS + t.Header) }

// fill puts in the defaults.
func (t Timeouts) fill() Timeouts {
	for _, d := range []struct {
		to  *time.Duration
		def time.Duration
	}{
		{&t.Connect, 30 * time.Second}, {&t.TLS, 15 * time.Second},
		{&t.Header, time.Minute}, {&t.Stall, time.Minute},
	} {
		if *d.to == 0 {
			*d.to = d.def
		}
	}
	return t
}

// fill puts in the defaults.
func (o Options) fill() Options {
	o.Timeouts, o.Retry = o.Timeouts.fill(), o.Retry.fill()
	if o.UserAgent == "" {
		o.UserAgent = "flatroot"
	}
	if o.Keychain == nil {
		o.Keychain = NewKeychain()
	}
	return o
}

// repository is a place in a registry, and how to speak to it.
type repository struct {
	place
	repo     name.Repository
	opts     Options // for this registry
	base     *baseTransport
	keychain authn.Keychain
	scope    string // transport.PullScope or PushScope

	mu     sync.Mutex
	client *http.Client // nil until the registry has been asked how to authenticate
}

// Source is one image of a registry. It implements oci.MirroredSource and oci.RangeSource.
type Source struct {
	ref       oci.Reference
	opts      Options
	endpoints []*repository // mirrors in their order, then the registry itself

	mu       sync.Mutex
	first    int                 // of endpoints: the one to ask first
	resolved *ocispec.Descriptor // nil until Resolve
	raw      []byte              // of resolved, if it took a GET
	trust    map[digest.Digest]*trust
}

var (
	_ oci.RangeSource    = (*Source)(nil)
	_ oci.NetworkSource  = (*Source)(nil)
	_ oci.DocumentSource = (*Source)(nil)
	_ oci.MirroredSource = (*Source)(nil)
)

// Open prepares to read a docker:// reference. Nothing is sent yet.
func Open(ref oci.Reference, o Options) (*Source, error) {
	o = o.fill()
	places, err := findPlaces(ref, o.RegistriesConf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s := &Source{ref: ref, opts: o, trust: map[digest.Digest]*trust{}}
	for _, p := range places {
		e, err := newRepository(p, transport.PullScope, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		s.endpoints = append(s.endpoints, e)
	}
	return s, nil
}

func newRepository(p place, scope string, o Options) (*repository, error) {
	o.Insecure = o.Insecure || p.insecure
	var weak []name.Option
	if o.Insecure || isLocal(p.ref.Host) {
		weak = append(weak, name.Insecure)
	}
	reg, err := name.NewRegistry(p.ref.Host, weak...)
	if err != nil {
		return nil, err
	}
	return &repository{
		place: p, repo: reg.Repo(p.ref.Repository), opts: o, base: newBase(o, p.insecure), keychain: o.Keychain, scope: scope,
	}, nil
}

// String returns the reference.
func (s *Source) String() string { return s.ref.String() }

// Close lets go of idle connections. Blobs that are open stay so.
func (s *Source) Close() error {
	for _, e := range s.endpoints {
		e.base.inner.CloseIdleConnections()
	}
	return nil
}

// session returns a client that authenticates. The first call asks the
// registry how; a failure is not remembered.
func (s *repository) session(ctx context.Context) (*http.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	client, err := s.authenticate(ctx, s.repo.Scope(s.scope))
	if err == nil {
		s.client = client
	}
	return client, err
}

// authenticate asks the registry how to authenticate, and does so for what is
// going to be done.
func (s *repository) authenticate(ctx context.Context, scopes ...string) (*http.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, s.keychain, s.repo)
	if err != nil {
		return nil, fmt.Errorf("look for credentials: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.mustAnswer(cancel)()
	rt, err := transport.NewWithContext(ctx, s.repo.Registry, auth, s.base, scopes)
	if err != nil {
		return nil, s.explain(err, context.Cause(ctx))
	}
	return &http.Client{Transport: rt, CheckRedirect: s.checkRedirect}, nil
}

// mustAnswer ends a request if it takes too long to its answer, unless it is stopped before.
func (s *repository) mustAnswer(cancel context.CancelCauseFunc) (stop func() bool) {
	limit := s.opts.Timeouts.answer()
	return time.AfterFunc(limit, func() { cancel(fmt.Errorf("%w (%v)", errStalled, limit)) }).Stop
}

// url returns the address of a manifest or blob. The scheme is what the
// handshake found; the transport replaces it.
func (s *repository) url(kind, id string) string {
	at := s.repo.Scheme() + "://" + s.repo.RegistryStr() + "/v2/" + s.repo.RepositoryStr() + "/" + kind + "/" + id
	if s.namespace != "" {
		at += "?ns=" + url.QueryEscape(s.namespace)
	}
	return at
}

// do sends a request and returns a response of status 200, to be closed. Any
// other status is an *HTTPError.
func (s *repository) do(ctx context.Context, method, url string, accept ...string) (*response, error) {
	h := http.Header{}
	if len(accept) > 0 {
		// In one line: some registries look at the first one only.
		h.Set("Accept", strings.Join(accept, ", "))
	}
	return s.send(ctx, method, url, h, http.StatusOK)
}

// send sends a request and returns a response of one of these statuses.
func (s *repository) send(ctx context.Context, method, url string, header http.Header, want ...int) (*response, error) {
	client, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	return s.exchange(ctx, client, request{method: method, url: url, header: header}, want...)
}

// request is what a registry is asked. A body is opened once for each time
// that it is sent: authentication and redirects may take several.
type request struct {
	method, url string
	header      http.Header
	size        int64 // bytes of the body
	body        func(stalled func(error)) io.ReadCloser
}

// exchange sends a request and returns a response of one of these statuses, to
// be closed. Any other status is an *HTTPError.
func (s *repository) exchange(ctx context.Context, client *http.Client, q request, want ...int) (*response, error) {
	// A context of its own ends the request when its body stalls.
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if req.Header = q.header; req.Header == nil {
		req.Header = http.Header{}
	}
	stop := func() bool { return true }
	if q.body == nil {
		stop = s.mustAnswer(cancel)
	} else { // which takes as long as it takes, but has a clock itself
		req.ContentLength = q.size
		req.Body = http.NoBody // baseTransport opens the one that is sent
		req.GetBody = func() (io.ReadCloser, error) { return q.body(cancel), nil }
	}
	resp, err := client.Do(req)
	if stop(); err != nil {
		err = s.explain(err, context.Cause(ctx))
		cancel(nil)
		return nil, err
	}
	r := newResponse(resp, cancel)
	if !slices.Contains(want, r.StatusCode) {
		return nil, errors.Join(s.statusError(r), r.Close())
	}
	return r, nil
}
