package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/flatroot/flatroot/oci"
)

// endpoint is a registry that may have the image: its own, or a mirror.
type endpoint struct {
	place
	repo     name.Repository
	keychain authn.Keychain
	base     *baseTransport

	mu     sync.Mutex
	client *http.Client // nil until the registry has been asked how to authenticate
}

func newEndpoint(p place, o Options) (*endpoint, error) {
	o.Insecure = o.Insecure || p.insecure
	var weak []name.Option
	if o.Insecure || isLocal(p.ref.Host) {
		weak = append(weak, name.Insecure)
	}
	reg, err := name.NewRegistry(p.ref.Host, weak...)
	if err != nil {
		return nil, err
	}
	return &endpoint{place: p, repo: reg.Repo(p.ref.Repository), keychain: o.Keychain, base: newBase(o, p.insecure)}, nil
}

// session returns a client that authenticates. The first call asks the
// registry how; a failure is not remembered.
func (e *endpoint) session(ctx context.Context) (*http.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, e.keychain, e.repo)
	if err != nil {
		return nil, fmt.Errorf("look for credentials: %w", err)
	}
	rt, err := transport.NewWithContext(ctx, e.repo.Registry, auth, e.base, []string{e.repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, e.explain(err)
	}
	e.client = &http.Client{Transport: rt, CheckRedirect: e.checkRedirect}
	return e.client, nil
}

// url returns the address of a manifest or blob. The scheme is what the
// handshake found; the transport replaces it.
func (e *endpoint) url(kind, id string) string {
	at := e.repo.Scheme() + "://" + e.repo.RegistryStr() + "/v2/" + e.repo.RepositoryStr() + "/" + kind + "/" + id
	if e.namespace != "" {
		at += "?ns=" + url.QueryEscape(e.namespace)
	}
	return at
}

// do sends a request and returns a response of status 200, to be closed. Any
// other status is an *HTTPError.
func (e *endpoint) do(ctx context.Context, method, url string, accept ...string) (*response, error) {
	h := http.Header{}
	if len(accept) > 0 {
		// In one line: some registries look at the first one only.
		h.Set("Accept", strings.Join(accept, ", "))
	}
	return e.send(ctx, method, url, h, http.StatusOK)
}

// send sends a request and returns a response of one of these statuses.
func (e *endpoint) send(ctx context.Context, method, url string, header http.Header, want ...int) (*response, error) {
	client, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	// A context of its own ends the request when its body stalls.
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, e.explain(err)
	}
	r := newResponse(resp, cancel, e.base.timeouts.Stall)
	if !slices.Contains(want, r.StatusCode) {
		return nil, errors.Join(e.statusError(r), r.Close())
	}
	return r, nil
}

// endpointErrors is why none of several endpoints has something, in the order in which they were asked.
type endpointErrors []error

func (e endpointErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e endpointErrors) Unwrap() []error { return e }

// place is where an endpoint has the image, as registries.conf says.
type place struct {
	ref       oci.Reference
	insecure  bool   // plain HTTP and certificates that nobody vouches for are fine
	namespace string // the registry that a proxy for several is to ask
}
