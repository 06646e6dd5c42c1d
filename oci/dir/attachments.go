package dir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

var _ oci.AttachmentSource = (*Source)(nil)

// The names of signatures' files: signature-1 and so on are those of
// manifest.json, and with HEX. before it those of a manifest that it lists.
const (
	signatureFile   = "signature-"
	signatureSuffix = "sig" // of the kind of attachment
)

// maxSignature bounds such a file, in bytes: a payload of 64 KiB in base64, and
// certificates in the annotations, which have some KiB.
const maxSignature = 256 << 10

// sigstoreStart is how a signature in sigstore's form begins; what follows is
// JSON. Others are GPG's, which have no such start, or begin with 0 and the
// name of their form, by go.podman.io/image/v5/internal/signature.
const sigstoreStart = "\x00sigstore-json\n"

// errForm is why a signature can't be of use.
var errForm = errors.New("is not in sigstore's form: of other signatures, such as GPG's, nothing can be checked here")

// Attachments reads the files of signatures, which are the only attachments
// that a directory has.
func (s *Source) Attachments(ctx context.Context, of digest.Digest, k oci.AttachmentKind) iter.Seq2[*oci.Attachment, error] {
	return func(yield func(*oci.Attachment, error) bool) {
		if k.Suffix != signatureSuffix {
			return
		}
		prefix, err := s.signatures(ctx, of)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", s.ref, err))
			return
		}
		for i := 1; ; i++ {
			name := fmt.Sprint(prefix, i)
			a, err := s.signature(name)
			switch {
			case files.IsAbsent(err):
				return
			case err == nil && i > oci.MaxAttachments:
				err = fmt.Errorf("%w: %d", oci.ErrManyAttachments, oci.MaxAttachments)
			}
			if err != nil {
				a, err = nil, fmt.Errorf("%s: %s: %w", s.ref, name, err)
			}
			if !yield(a, err) || i > oci.MaxAttachments {
				return
			}
		}
	}
}

// signatures is how the names of a manifest's signatures begin.
func (s *Source) signatures(ctx context.Context, of digest.Digest) (string, error) {
	if err := oci.CheckDigest(of); err != nil {
		return "", err
	}
	root, _, err := s.root(ctx)
	if err != nil {
		return "", err
	}
	if of == root.Digest {
		return signatureFile, nil
	}
	return of.Encoded() + "." + signatureFile, nil
}

// signature reads one file.
func (s *Source) signature(name string) (*oci.Attachment, error) {
	raw, err := files.Read(s.fs, name, maxSignature)
	if err != nil {
		return nil, err
	}
	layer, err := parseSignature(raw)
	if err != nil {
		return nil, err
	}
	return &oci.Attachment{
		Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))},
		Document:   &oci.Document{Layers: []ocispec.Descriptor{layer}},
	}, nil
}

// parseSignature reads a signature as the descriptor that it would have as a
// layer, which it was in a registry. Members that nobody knows may be there.
func parseSignature(raw []byte) (d ocispec.Descriptor, err error) {
	text, ok := bytes.CutPrefix(raw, []byte(sigstoreStart))
	if !ok {
		return d, errForm
	}
	if err := oci.CheckJSON(text); err != nil {
		return d, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return d, err
	}
	for _, m := range []struct {
		name string
		to   any
	}{{"mimeType", &d.MediaType}, {"payload", &d.Data}, {"annotations", &d.Annotations}} {
		value, ok := members[m.name]
		if !ok {
			return d, fmt.Errorf("%s is missing", m.name)
		}
		if err := json.Unmarshal(value, m.to); err != nil {
			return d, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if d.Data == nil {
		d.Data = []byte{} // not nil: it is no blob
	}
	d.Digest, d.Size = digest.FromBytes(d.Data), int64(len(d.Data))
	return d, nil
}
