package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// Sink writes one image to a registry. It implements oci.Sink and oci.Mounter.
// Its methods may be called concurrently.
type Sink struct {
	*repository
	chunk int64 // bytes of a blob that go into one request

	begun   sync.Mutex
	uploads map[digest.Digest]*opened // begun by a registry that did not mount the blob
}

var (
	_ oci.Sink    = (*Sink)(nil)
	_ oci.Mounter = (*Sink)(nil)
)

// OpenSink prepares to write to a docker:// reference. Nothing is sent yet.
func OpenSink(ref oci.Reference, o Options) (*Sink, error) {
	o = o.fill()
	p, err := pushPlace(ref, o.RegistriesConf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	r, err := newRepository(p, transport.PushScope, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return &Sink{repository: r, chunk: maxChunk, uploads: map[digest.Digest]*opened{}}, nil
}

// String returns the reference.
func (s *Sink) String() string { return s.ref.String() }

// Close lets go of idle connections.
func (s *Sink) Close() error {
	s.base.inner.CloseIdleConnections()
	return nil
}

// patience is that for one blob or document.
func (s *Sink) patience() patience {
	return patience{Retry: s.opts.Retry, tell: func(n Notice) { s.opts.tell(s.ref, n) }}
}

// wrap says of an error what was done to which blob.
func (s *Sink) wrap(err error, what string, d digest.Digest) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s %s: %w", s.ref, what, oci.Printable(d.String(), 100), err)
}

// HasBlob asks the registry. A blob of another size than the descriptor's is
// none that it has.
func (s *Sink) HasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	has, err := false, oci.CheckDescriptor(desc)
	if err == nil {
		err = s.repeat(ctx, "blob "+desc.Digest.String(), func() error {
			has, err = s.hasBlob(ctx, desc)
			return err
		})
	}
	return has, s.wrap(err, "look for blob", desc.Digest)
}

// repeat does something until it succeeds, or fails for good.
func (s *Sink) repeat(ctx context.Context, what string, do func() error) error {
	p := s.patience()
	for {
		err := do()
		if err == nil {
			return nil
		}
		if err := p.wait(ctx, what, err); err != nil {
			return err
		}
	}
}

func (s *Sink) hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	resp, err := s.do(ctx, http.MethodHead, s.url("blobs", desc.Digest.String()))
	if he := new(HTTPError); errors.As(err, &he) && (he.Status == http.StatusNotFound || he.Status == http.StatusMethodNotAllowed) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	said := digest.Digest(resp.Header.Get(digestHeader))
	same := oci.CheckDigest(said) != nil || said == desc.Digest
	return same && (resp.ContentLength < 0 || resp.ContentLength == desc.Size), resp.Close()
}

// MountBlob asks the registry to take the blob over from another repository of
// its own. That it does not is no error; a blob that it wants to be sent
// instead goes on with the upload that it has begun.
func (s *Sink) MountBlob(ctx context.Context, desc ocispec.Descriptor, from oci.Reference) (bool, error) {
	if from.Transport != oci.Docker || from.Host != s.ref.Host || from.Repository == s.ref.Repository {
		return false, nil
	}
	mounted, err := s.mount(ctx, desc, from.Repository)
	if err != nil && ctx.Err() == nil {
		return false, nil // whatever it is that can't be had so, sending the blob will tell
	}
	return mounted, s.wrap(err, "mount blob", desc.Digest)
}

func (s *Sink) mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error) {
	if err := oci.CheckDescriptor(desc); err != nil {
		return false, err
	}
	// A token has to be good for the other repository too.
	client, err := s.authenticate(ctx, s.repo.Scope(s.scope), s.repo.Registry.Repo(from).Scope(transport.PullScope))
	if err != nil {
		return false, err
	}
	q := url.Values{"mount": {desc.Digest.String()}, "from": {from}}
	r := request{method: http.MethodPost, url: s.url("blobs", "uploads/?"+q.Encode())}
	resp, err := s.exchange(ctx, client, r, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return false, err
	}
	if resp.StatusCode == http.StatusCreated {
		return true, errors.Join(confirm(resp, desc.Digest), resp.Close())
	}
	begun, err := s.openedBy(resp)
	if err == nil {
		s.begun.Lock()
		s.uploads[desc.Digest] = begun
		s.begun.Unlock()
	}
	return false, errors.Join(err, resp.Close())
}

// takeUpload gives the upload of a blob that was begun already, once.
func (s *Sink) takeUpload(d digest.Digest) *opened {
	s.begun.Lock()
	defer s.begun.Unlock()
	o := s.uploads[d]
	delete(s.uploads, d)
	return o
}

// confirm compares the digest that a registry says it has stored.
func confirm(resp *response, want digest.Digest) error {
	got := digest.Digest(resp.Header.Get(digestHeader))
	if got == "" || got == want {
		return nil
	}
	return &oci.DigestError{What: "what " + resp.url + " says it has stored", Want: want, Got: digest.Digest(oci.Printable(got.String(), 100))}
}

// PutBlob sends a blob. If r is an io.Seeker, it is read again from where the
// registry has it when a connection breaks; else the blob can be sent once.
func (s *Sink) PutBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	err := oci.CheckDescriptor(desc)
	if err == nil {
		err = s.putBlob(ctx, desc, r)
	}
	return s.wrap(err, "put blob", desc.Digest)
}

func (s *Sink) putBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	var client *http.Client
	err := s.repeat(ctx, "authentication", func() (err error) {
		client, err = s.session(ctx)
		return err
	})
	if err != nil {
		return err
	}
	c, err := newContent(desc, r)
	if err != nil {
		return err
	}
	u := &upload{
		s: s, client: client, c: c, opened: s.takeUpload(desc.Digest), chunk: s.chunk,
		whole: desc.Size <= smallBlob, tries: s.patience(),
	}
	return u.run(ctx)
}

// PutManifest sends a manifest under the reference's tag, else under its
// digest, which has to be the reference's if that has one.
func (s *Sink) PutManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	if s.ref.Digest != "" && s.ref.Digest != desc.Digest {
		return s.wrap(&oci.DigestError{What: "manifest", Want: s.ref.Digest, Got: desc.Digest}, "put manifest", desc.Digest)
	}
	return s.putAs(ctx, cmp.Or(s.ref.Tag, desc.Digest.String()), raw, desc)
}

// PutListed sends a manifest under its digest.
func (s *Sink) PutListed(ctx context.Context, raw []byte, desc ocispec.Descriptor) error {
	return s.putAs(ctx, desc.Digest.String(), raw, desc)
}

// putAs sends a manifest under a tag or digest.
func (s *Sink) putAs(ctx context.Context, id string, raw []byte, desc ocispec.Descriptor) error {
	err := oci.Verify("manifest", raw, desc)
	if err == nil {
		err = s.repeat(ctx, "manifest "+desc.Digest.String(), func() error { return s.putManifest(ctx, id, raw, desc) })
	}
	return s.wrap(err, "put manifest", desc.Digest)
}

func (s *Sink) putManifest(ctx context.Context, id string, raw []byte, desc ocispec.Descriptor) error {
	client, err := s.session(ctx)
	if err != nil {
		return err
	}
	resp, err := s.exchange(ctx, client, request{
		method: http.MethodPut, url: s.url("manifests", id),
		header: http.Header{"Content-Type": {desc.MediaType}}, size: desc.Size,
		body: func(func(error)) io.ReadCloser { return io.NopCloser(bytes.NewReader(raw)) },
	}, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	return errors.Join(confirm(resp, desc.Digest), resp.Close())
}
