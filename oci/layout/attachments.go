package layout

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

var _ oci.AttachmentSource = (*Source)(nil)

// kindAnnotation and the values that begin so mark the entries of a layout
// that cosign save made.
const (
	kindAnnotation = "kind"
	cosignKind     = "dev.cosignproject.cosign/"
)

// tagOf returns what is a tag in an entry's name, which may be a full one.
func tagOf(d ocispec.Descriptor) string {
	name := nameOf(d)
	return name[strings.LastIndexByte(name, ':')+1:]
}

// isAttachment tells whether an entry is about another one and no image that
// anybody means who gives no name.
func isAttachment(d ocispec.Descriptor) bool {
	kind, saved := strings.CutPrefix(d.Annotations[kindAnnotation], cosignKind)
	return saved && kind != "image" && kind != "imageIndex" || oci.IsAttachmentTag(tagOf(d))
}

// Attachments looks at the layout's entries: for the tag that is made of the
// other manifest's digest, for the annotation of cosign save, and for the
// artifact types. In a layout of several images an entry found by one of the
// latter two may be about another one.
func (s *Source) Attachments(ctx context.Context, of digest.Digest, k oci.AttachmentKind) iter.Seq2[*oci.Attachment, error] {
	return func(yield func(*oci.Attachment, error) bool) {
		_, doc, err := readIndex(s.fs)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", s.ref, err))
			return
		}
		found := slices.DeleteFunc(doc.Manifests, func(d ocispec.Descriptor) bool {
			return tagOf(d) != k.Tag(of) && (k.Annotation == "" || d.Annotations[kindAnnotation] != k.Annotation) &&
				!slices.Contains(k.Types, d.ArtifactType)
		})
		for i, d := range found {
			if i == oci.MaxAttachments {
				yield(nil, fmt.Errorf("%s: %w: %d, and %d are", s.ref, oci.ErrManyAttachments, len(found), i))
				return
			}
			a, err := s.attachment(ctx, d)
			if err != nil {
				a, err = nil, fmt.Errorf("%s: manifest %s: %w", s.ref, d.Digest, err)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

func (s *Source) attachment(ctx context.Context, d ocispec.Descriptor) (*oci.Attachment, error) {
	if d.Size > oci.MaxManifestSize {
		return nil, fmt.Errorf("has %d bytes, more than %d", d.Size, oci.MaxManifestSize)
	}
	raw, err := s.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := oci.Verify("manifest", raw, d); err != nil {
		return nil, err
	}
	doc, err := oci.ParseAttachment(raw, d.MediaType)
	if err != nil {
		return nil, err
	}
	return &oci.Attachment{Descriptor: d, Document: doc}, nil
}
