package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

var _ oci.AttachmentSource = (*Source)(nil)

// Attachments looks under the tag that is made of a manifest's digest, and
// then among its referrers: by the API of the distribution specification, and
// where the registry has none, by the tag that stands in for it. Each request
// is made only once the one before it was not enough.
func (s *Source) Attachments(ctx context.Context, of digest.Digest, k oci.AttachmentKind) iter.Seq2[*oci.Attachment, error] {
	return func(yield func(*oci.Attachment, error) bool) {
		if err := oci.CheckDigest(of); err != nil {
			yield(nil, fmt.Errorf("%s: %w", s.ref, err))
			return
		}
		tag := k.Tag(of)
		a, err := s.attachment(ctx, tag)
		if !notFound(err) && !yield(a, s.explainAttachment(tag, err)) {
			return
		}
		referrers, err := s.referrers(ctx, of, k.Types)
		if err != nil && !yield(nil, s.explainAttachment("referrers", err)) {
			return
		}
		for _, d := range referrers {
			a, err := s.attachment(ctx, d.Digest.String())
			if !yield(a, s.explainAttachment(d.Digest.String(), err)) {
				return
			}
		}
	}
}

func (s *Source) explainAttachment(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s: %w", s.ref, what, err)
}

// notFound tells a registry's answer that there is no such thing.
func notFound(err error) bool {
	he := new(HTTPError)
	return errors.As(err, &he) && he.Status == http.StatusNotFound
}

// attachment fetches a manifest by tag or digest.
func (s *Source) attachment(ctx context.Context, id string) (*oci.Attachment, error) {
	d, raw, err := s.getManifest(ctx, id)
	if err != nil {
		return nil, err
	}
	doc, err := oci.ParseAttachment(raw, d.MediaType)
	if err != nil {
		return nil, err
	}
	d.MediaType = doc.MediaType
	return &oci.Attachment{Descriptor: d, Document: doc}, nil
}

// getManifest fetches a manifest from the first endpoint that has it, and has it right if it is asked for by digest.
func (s *Source) getManifest(ctx context.Context, id string) (d ocispec.Descriptor, raw []byte, err error) {
	err = s.ask(ctx, "manifest "+id, s.patience(), func(e *repository) (err error) {
		at := e.url("manifests", id)
		d, raw, err = e.getRaw(ctx, at)
		if want := digest.Digest(id); err == nil && oci.CheckDigest(want) == nil && d.Digest != want {
			err = &oci.DigestError{What: "manifest of " + at, Want: want, Got: d.Digest}
		}
		return err
	})
	return d, raw, err
}

// referrers lists the manifests of some artifact types that name another one
// as their subject.
func (s *Source) referrers(ctx context.Context, of digest.Digest, types []string) (list []ocispec.Descriptor, err error) {
	err = s.ask(ctx, "referrers of "+of.String(), s.patience(), func(e *repository) (err error) {
		list, err = e.referrers(ctx, of, types)
		return err
	})
	if notFound(err) {
		list, err = s.taggedReferrers(ctx, of, types)
	}
	if err == nil && len(list) > oci.MaxAttachments {
		return list[:oci.MaxAttachments], fmt.Errorf("%w: %d, and %d are", oci.ErrManyAttachments, len(list), oci.MaxAttachments)
	}
	return list, err
}

// taggedReferrers is referrers for a registry that has no such API.
func (s *Source) taggedReferrers(ctx context.Context, of digest.Digest, types []string) ([]ocispec.Descriptor, error) {
	_, raw, err := s.getManifest(ctx, oci.ReferrersTag(of))
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return listed(raw, types)
}

// listed are the entries of a list of referrers that are of some types.
func listed(raw []byte, types []string) ([]ocispec.Descriptor, error) {
	doc, err := oci.ParseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(doc.Manifests, func(d ocispec.Descriptor) bool { return !slices.Contains(types, d.ArtifactType) }), nil
}

// maxReferrerPages bounds how many pages of a list of referrers are read. Most
// registries have some hundred entries on one.
const maxReferrerPages = 32

// referrers reads a list of referrers page by page, until there are more than
// are looked at.
func (s *repository) referrers(ctx context.Context, of digest.Digest, types []string) (list []ocispec.Descriptor, err error) {
	at := s.url("referrers", of.String())
	for range maxReferrerPages {
		resp, raw, err := s.getDocument(ctx, at)
		if err != nil {
			return nil, err
		}
		page, err := listed(raw, types)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resp.url, err)
		}
		list = append(list, page...)
		if at, err = s.nextPage(at, resp.Header); err != nil {
			return nil, fmt.Errorf("%s: %w", resp.url, err)
		}
		if at == "" || len(list) > oci.MaxAttachments {
			return list, nil
		}
	}
	return list, fmt.Errorf("GET %s: the list has more than %d pages", s.url("referrers", of.String()), maxReferrerPages)
}

// nextPage is the address of the page after the one at an address; "" if there
// is none. It has to be the registry's own, as who asks says who he is.
func (s *repository) nextPage(at string, h http.Header) (string, error) {
	link := nextLink(h)
	if link == "" {
		return "", nil
	}
	here, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	next, err := here.Parse(link)
	if err != nil {
		return "", fmt.Errorf("the link to the next page: %s", oci.Printable(link, 100))
	}
	if next.Host != here.Host || !strings.HasPrefix(next.Path, "/v2/") {
		return "", fmt.Errorf("the link to the next page leads elsewhere, to %s", redact(next))
	}
	next.Scheme, next.User = here.Scheme, nil
	if q := next.Query(); s.namespace != "" {
		q.Set("ns", s.namespace)
		next.RawQuery = q.Encode()
	}
	return next.String(), nil
}

// nextLink is the target of the link that is called next (RFC 8288, 3).
func nextLink(h http.Header) string {
	for _, v := range h.Values("Link") {
		for rest := v; ; {
			_, after, _ := strings.Cut(rest, "<")
			target, after, ok := strings.Cut(after, ">")
			if !ok {
				break
			}
			params, _, _ := strings.Cut(after, "<")
			for p := range strings.SplitSeq(params, ";") {
				name, value, _ := strings.Cut(strings.Trim(p, " ,"), "=")
				if strings.EqualFold(strings.TrimSpace(name), "rel") && strings.Trim(value, `" `) == "next" {
					return target
				}
			}
			rest = after
		}
	}
	return ""
}
