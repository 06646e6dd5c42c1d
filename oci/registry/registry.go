// Package registry reads images from registries that speak the OCI
// distribution specification, which is Docker's registry API, version 2.
//
// github.com/google/go-containerregistry does the authentication: it asks
// the registry for its challenge, fetches tokens and renews them when they
// expire. Manifests and blobs are fetched by our own requests over its
// RoundTripper, as its own blob reader can't be told where to begin and how
// to go on.
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
//     good, and what does not fit its digest, is not asked again.
//   - Text of the other side's gets into errors short and without control
//     characters, and addresses without their query, where signatures are.
package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Options of a Source. The zero value is what users want.
type Options struct {
	// Platform to take from an image index. Zero is this machine's.
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

// Timeouts bound how long a registry may be silent. There is none for a whole
// request: blobs take as long as they take.
type Timeouts struct {
	Connect time.Duration // to connect; 30 s
	TLS     time.Duration // for the TLS handshake; 15 s
	Header  time.Duration // from request to response header; 60 s
	Stall   time.Duration // without a byte of a body; 60 s
}

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

// Source is one image of a registry. It implements oci.NetworkSource and oci.RangeSource.
type Source struct {
	ref       oci.Reference
	opts      Options
	endpoints []*endpoint // mirrors in their order, then the registry itself

	mu       sync.Mutex
	first    int                 // of endpoints: the one to ask first
	resolved *ocispec.Descriptor // nil until Resolve
	raw      []byte              // of resolved, if it took a GET
}

var (
	_ oci.RangeSource   = (*Source)(nil)
	_ oci.NetworkSource = (*Source)(nil)
)

// Open prepares to read a docker:// reference. Nothing is sent yet.
func Open(ref oci.Reference, o Options) (*Source, error) {
	o.Timeouts, o.Retry = o.Timeouts.fill(), o.Retry.fill()
	if o.UserAgent == "" {
		o.UserAgent = "flatroot"
	}
	if o.Keychain == nil {
		o.Keychain = NewKeychain()
	}
	places, err := findPlaces(ref, o.RegistriesConf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s := &Source{ref: ref, opts: o}
	for _, p := range places {
		e, err := newEndpoint(p, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		s.endpoints = append(s.endpoints, e)
	}
	return s, nil
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

// ask has the endpoints try something, one after the other, until one succeeds, and after a pause all of them again as long
// as there is hope and patience. what is for messages.
func (s *Source) ask(ctx context.Context, what string, p *patience, try func(*endpoint) error) error {
	for {
		err := s.askOnce(ctx, what, try)
		if err == nil {
			return nil
		}
		if err := p.wait(ctx, what, err); err != nil {
			return err
		}
	}
}

func (s *Source) askOnce(ctx context.Context, what string, try func(*endpoint) error) error {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	var errs []error
	for i := range s.endpoints {
		n := (first + i) % len(s.endpoints)
		err := try(s.endpoints[n])
		if err == nil {
			s.askFirst(n)
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		if i+1 < len(s.endpoints) {
			s.tell(Notice{What: what, Err: err, Next: s.endpoints[(n+1)%len(s.endpoints)].ref.Host})
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return endpointErrors(errs)
}

// askFirst remembers which endpoint has what was asked for.
func (s *Source) askFirst(n int) {
	s.mu.Lock()
	s.first = n
	s.mu.Unlock()
}

// askOthersFirst has an endpoint asked last that does not bring to an end what it begins.
func (s *Source) askOthersFirst(e *endpoint) {
	s.askFirst((slices.Index(s.endpoints, e) + 1) % len(s.endpoints))
}

func (s *Source) tell(n Notice) {
	if s.opts.Told != nil {
		n.Source = s.ref.String()
		s.opts.Told(n)
	}
}

func (s *Source) patience() *patience { return &patience{Retry: s.opts.Retry, tell: s.tell} }
