package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// digestHeader has the digest of a manifest; the distribution specification
// names it so.
const digestHeader = "Docker-Content-Digest"

// Resolve asks what the reference stands for, by a HEAD if the registry
// answers one with all that a descriptor needs, and else by a GET. The answer
// is kept: a tag may move while an image is fetched.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	d, _, err := s.resolve(ctx)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", s.ref, err)
	}
	return d, nil
}

// resolve returns the descriptor, and the bytes if they have been fetched.
func (s *Source) resolve(ctx context.Context) (ocispec.Descriptor, []byte, error) {
	s.mu.Lock()
	known, raw := s.resolved, s.raw
	s.mu.Unlock()
	if known != nil {
		return *known, raw, nil
	}
	id := s.ref.Digest.String()
	if id == "" {
		id = s.ref.Tag
	}
	var d ocispec.Descriptor
	err := s.ask(ctx, "manifest "+id, s.patience(), func(e *repository) (err error) {
		d, raw, err = e.resolve(ctx, id)
		if err == nil && s.ref.Digest != "" && d.Digest != s.ref.Digest {
			err = &oci.DigestError{What: "manifest of " + e.url("manifests", id), Want: s.ref.Digest, Got: d.Digest}
		}
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resolved == nil {
		s.resolved, s.raw = &d, raw
	}
	return *s.resolved, s.raw, nil
}

// resolve asks one endpoint for a manifest's descriptor.
func (e *repository) resolve(ctx context.Context, id string) (d ocispec.Descriptor, raw []byte, err error) {
	d, err = e.head(ctx, id)
	if errors.Is(err, errNeedGet) {
		d, raw, err = e.get(ctx, id)
	}
	return d, raw, err
}

// errNeedGet says that a HEAD wasn't enough.
var errNeedGet = errors.New("no answer to HEAD")

// head asks for a manifest's descriptor. A refusal is asked for again by GET,
// since it may mean that the registry has no HEAD, and since only the answer
// to a GET has room for a reason; but not when we were told to ask less.
func (e *repository) head(ctx context.Context, id string) (ocispec.Descriptor, error) {
	resp, err := e.do(ctx, http.MethodHead, e.url("manifests", id), oci.ManifestMediaTypes()...)
	if he := new(HTTPError); errors.As(err, &he) && he.Status != http.StatusTooManyRequests {
		return ocispec.Descriptor{}, errNeedGet
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := resp.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{
		MediaType: oci.BareMediaType(resp.Header.Get("Content-Type")),
		Digest:    digest.Digest(resp.Header.Get(digestHeader)),
		Size:      resp.ContentLength,
	}
	if oci.CheckDescriptor(d) != nil || !oci.IsManifest(d.MediaType) && !oci.IsIndex(d.MediaType) {
		return ocispec.Descriptor{}, errNeedGet
	}
	return d, nil
}

// get fetches a manifest of which nothing is known but tag or digest.
func (e *repository) get(ctx context.Context, id string) (ocispec.Descriptor, []byte, error) {
	url := e.url("manifests", id)
	d, raw, err := e.getRaw(ctx, url)
	if err != nil {
		return d, nil, err
	}
	doc, err := oci.ParseDocument(raw, d.MediaType)
	if err != nil {
		return d, nil, fmt.Errorf("%s answered with %q: %w", url, oci.Printable(d.MediaType, 100), err)
	}
	d.MediaType = doc.MediaType
	return d, raw, nil
}

// getRaw fetches a document that is not read yet.
func (e *repository) getRaw(ctx context.Context, url string) (ocispec.Descriptor, []byte, error) {
	resp, raw, err := e.getDocument(ctx, url)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	d := ocispec.Descriptor{
		MediaType: oci.BareMediaType(resp.Header.Get("Content-Type")),
		Digest:    digest.FromBytes(raw),
		Size:      int64(len(raw)),
	}
	if said := digest.Digest(resp.Header.Get(digestHeader)); oci.CheckDigest(said) == nil && said != d.Digest {
		return d, nil, &oci.DigestError{What: "manifest of " + resp.url, Want: said, Got: d.Digest}
	}
	return d, raw, nil
}

// getDocument fetches the bytes of a document. The response is closed.
func (e *repository) getDocument(ctx context.Context, url string) (*response, []byte, error) {
	resp, err := e.do(ctx, http.MethodGet, url, oci.ManifestMediaTypes()...)
	if err != nil {
		return nil, nil, err
	}
	raw, err := resp.readAll(oci.MaxManifestSize)
	return resp, raw, err
}

// Image follows what Resolve found to one image.
func (s *Source) Image(ctx context.Context) (*oci.Image, error) {
	m, err := s.image(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	m.Reference = s.ref.String()
	return m, nil
}

func (s *Source) image(ctx context.Context) (*oci.Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, raw, err := s.resolve(ctx)
	if err != nil {
		return nil, err
	}
	fetch := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if raw != nil && d.Digest == root.Digest {
			return raw, nil
		}
		return s.fetch(ctx, d)
	}
	return oci.Load(ctx, root, fetch, oci.LoadOptions{Platform: s.opts.Platform})
}

// Document fetches a manifest, image index or config of the repository.
func (s *Source) Document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	raw, err := s.fetch(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ref, err)
	}
	return raw, nil
}

// fetch is the oci.FetchFunc of a registry: configs are blobs, all else that
// Load asks for has an address of its own kind. What an endpoint gives is
// verified here already, so that another may give what this one has wrong.
func (s *Source) fetch(ctx context.Context, d ocispec.Descriptor) (raw []byte, err error) {
	kind, accept := "manifests", oci.ManifestMediaTypes()
	if oci.IsConfig(d.MediaType) {
		kind, accept = "blobs", nil
	}
	err = s.ask(ctx, kind[:len(kind)-1]+" "+d.Digest.String(), s.patience(), func(e *repository) error {
		resp, err := e.do(ctx, http.MethodGet, e.url(kind, d.Digest.String()), accept...)
		if err != nil {
			return err
		}
		if raw, err = resp.readAll(d.Size); err != nil {
			return err
		}
		return oci.Verify("answer of "+resp.url, raw, d)
	})
	return raw, err
}

// readAll reads and closes a body of at most limit bytes. One that says it is
// longer is not read at all.
func (r *response) readAll(limit int64) (raw []byte, err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.ContentLength > limit {
		return nil, &oci.SizeError{What: "answer of " + r.url, Want: limit, Got: r.ContentLength}
	}
	if raw, err = io.ReadAll(io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, &oci.SizeError{What: "answer of " + r.url, Want: limit, Got: int64(len(raw))}
	}
	return raw, nil
}
