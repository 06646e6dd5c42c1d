package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"

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

// getRaw fetches a document from the first endpoint that has it.
func (s *Source) getRaw(ctx context.Context, kind, id string) (d ocispec.Descriptor, raw []byte, err error) {
	err = s.ask(ctx, kind+" "+id, s.patience(), func(e *repository) (err error) {
		d, raw, err = e.getRaw(ctx, e.url(kind, id))
		if want := digest.Digest(id); err == nil && kind == "manifests" && oci.CheckDigest(want) == nil && d.Digest != want {
			err = &oci.DigestError{What: "manifest of " + e.url(kind, id), Want: want, Got: d.Digest}
		}
		return err
	})
	return d, raw, err
}

// attachment fetches a manifest by tag or digest.
func (s *Source) attachment(ctx context.Context, id string) (*oci.Attachment, error) {
	d, raw, err := s.getRaw(ctx, "manifests", id)
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

// referrers lists the manifests of some artifact types that name another one
// as their subject. Of a list in several pages only the first is read.
func (s *Source) referrers(ctx context.Context, of digest.Digest, types []string) ([]ocispec.Descriptor, error) {
	_, raw, err := s.getRaw(ctx, "referrers", of.String())
	if notFound(err) {
		_, raw, err = s.getRaw(ctx, "manifests", oci.ReferrersTag(of))
	}
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	doc, err := oci.ParseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(doc.Manifests, func(d ocispec.Descriptor) bool { return !slices.Contains(types, d.ArtifactType) })
	if len(list) > oci.MaxAttachments {
		return list[:oci.MaxAttachments], fmt.Errorf("%w: %d, and %d are", oci.ErrManyAttachments, len(list), oci.MaxAttachments)
	}
	return list, nil
}
