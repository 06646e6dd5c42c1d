package oci

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Attachment is a manifest that says something about another one and lies
// beside it, such as one of signatures. Its layers are not a file system's.
// Where a source has none in the form of a manifest, the descriptors of the
// layers have the layers' bytes in them, as the image specification has it.
type Attachment struct {
	Descriptor ocispec.Descriptor
	Document   *Document
}

// AttachmentKind is a kind of attachment, by the ways in which such are found.
type AttachmentKind struct {
	// Suffix ends the tag, or name in a layout, by the digest of the other
	// manifest: sha256-HEX.SUFFIX.
	Suffix string
	// Types are its artifact types, by which it is found among a manifest's
	// referrers.
	Types []string
	// Annotation is the value of the annotation "kind" that an entry of a
	// layout has which was made by cosign save.
	Annotation string
}

// Tag is the tag by which attachments of the kind are found.
func (k AttachmentKind) Tag(of digest.Digest) string { return ReferrersTag(of) + "." + k.Suffix }

// ReferrersTag is the tag of the image index that lists the referrers of a
// manifest in a registry that has no API for them, by the distribution
// specification's page.
func ReferrersTag(of digest.Digest) string { return strings.ReplaceAll(of.String(), ":", "-") }

// IsAttachmentTag tells whether a tag is made of another manifest's digest, as
// those of attachments and of lists of referrers are.
func IsAttachmentTag(tag string) bool {
	hex, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(hex) < sha256HexLen || CheckDigest(digest.Digest("sha256:"+hex[:sha256HexLen])) != nil {
		return false
	}
	return len(hex) == sha256HexLen || hex[sha256HexLen] == '.'
}

// AttachmentSource is a Source whose images may have attachments.
type AttachmentSource interface {
	Source
	// Attachments yields the attachments of one kind of a manifest or image
	// index, which need not be the source's own. An error is one attachment's,
	// or that of one way to find them, and does not end the search. Nothing
	// that an attachment says is verified but its own digest.
	Attachments(ctx context.Context, of digest.Digest, k AttachmentKind) iter.Seq2[*Attachment, error]
}

// MaxAttachments bounds how many attachments one way to find them gives:
// whoever may push to a repository may add some, and each costs requests.
const MaxAttachments = 32

// ErrManyAttachments says that some were left out.
var ErrManyAttachments = errors.New("there are more attachments than are looked at")

// ParseAttachment reads a manifest of whatever it is that its config and
// layers are. An image index is refused.
func ParseAttachment(raw []byte, mediaType string) (*Document, error) {
	o, err := parseBounded(raw)
	if err != nil {
		return nil, err
	}
	doc := new(Document)
	if doc.MediaType, err = documentType(o, BareMediaType(mediaType)); err != nil {
		return nil, err
	}
	if doc.IsIndex() {
		return nil, errors.New("is an image index, not a manifest")
	}
	if err := doc.readCommon(o); err != nil {
		return nil, err
	}
	return doc, doc.readParts(o)
}
