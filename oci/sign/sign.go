// Package sign decides whether an image is accepted: by cosign's signatures,
// which lie beside it, and by a policy in the form of
// containers-policy.json(5).
//
// A signature is made of a payload and of the signer's signature of its
// bytes. The payload, in the "simple signing" form that cosign took over from
// containers, names one digest and a reference; in the bundles of cosign 3 it
// is a statement that names the digest alone. It says nothing of the image
// but that; so the digest has to be that of the very manifest which is about
// to be used, or of the image index that led to it.
//
// Invariants:
//
//   - Nothing of a payload is interpreted before its signature was verified
//     with a key that the caller trusts.
//   - A requirement that is understood in part is not met: what this package
//     can't check, it refuses.
//   - Everything read is bounded: keys, policies, payloads, signatures tried.
package sign

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// The names by which cosign's signatures are found, from its specification
// specs/SIGNATURE_SPEC.md and, for referrers and layouts, from its packages
// pkg/oci/remote and pkg/oci/layout.
const (
	simpleSigning       = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	signatureSuffix     = "sig"
	signatureArtifact   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	signaturesSaved     = "dev.cosignproject.cosign/sigs"
)

// signatures is how a source finds them.
func signatures() oci.AttachmentKind {
	return oci.AttachmentKind{
		Suffix: signatureSuffix, Types: []string{signatureArtifact, bundleType, emptyType}, Annotation: signaturesSaved,
	}
}

const (
	// maxPayload bounds a payload, in bytes; cosign's have about 250, and more
	// only with annotations of the signer's.
	maxPayload = 64 << 10
	// maxSignatures bounds how many signatures of an image are looked at. Each
	// may be a request, and whoever may push can add some; but who signs an
	// image every day with cosign adds one each time.
	maxSignatures = 256
	// maxReasons bounds how many of them an error tells about.
	maxReasons = 4
)

// Subject is the image that is to be accepted.
type Subject struct {
	Reference oci.Reference // by which it was asked for
	Source    oci.Source
	Root      digest.Digest // what the reference stands for: the manifest, or an image index that leads to it
	Manifest  digest.Digest
}

// digests lists those of which a signature is as good as of the other: who
// has signed an image index has signed all manifests that it leads to.
func (s *Subject) digests() []digest.Digest {
	if s.Root == s.Manifest || s.Root == "" {
		return []digest.Digest{s.Manifest}
	}
	return []digest.Digest{s.Root, s.Manifest}
}

// Accepted is a signature that was verified.
type Accepted struct {
	Signed    digest.Digest // of the manifest or image index
	Reference string        // the identity that the signer gave the image; a bundle has none
	Key       *Key
	Payload   []byte
	Signature []byte
}

// RefusedError says that an image is not accepted.
type RefusedError struct {
	Reference string
	Digest    digest.Digest
	Why       string
	Reasons   []error // of single signatures
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s is not accepted: %s", e.Reference, e.Digest, e.Why)
	for i, r := range e.Reasons {
		if i == maxReasons {
			fmt.Fprintf(&b, "; and %d more", len(e.Reasons)-i)
			break
		}
		b.WriteString("; " + r.Error())
	}
	return b.String()
}

// Unwrap returns what was wrong with single signatures, or with looking for
// them.
func (e *RefusedError) Unwrap() []error { return e.Reasons }

func (s *Subject) refused(why string, reasons ...error) error {
	return &RefusedError{Reference: s.Reference.String(), Digest: s.Manifest, Why: why, Reasons: reasons}
}

// signature is one that was found, not yet verified.
type signature struct {
	payload, signature []byte
	bundle             *Bundle // that it is from; nil: it is by itself
	of                 string  // where it is, for messages
}

// claims reads what was signed, which must have been verified.
func (s *signature) claims() (Payload, error) {
	if s.bundle != nil {
		return parseStatement(s.bundle.statement)
	}
	return ParsePayload(s.payload)
}

// find yields the signatures that a source has of a digest. An error is that
// of one of them, or of one way to find them.
func find(ctx context.Context, src oci.AttachmentSource, of digest.Digest) iter.Seq2[*signature, error] {
	blobs := map[digest.Digest][]byte{} // what is signed again is mostly the same
	return func(yield func(*signature, error) bool) {
		for a, err := range src.Attachments(ctx, of, signatures()) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, l := range a.Document.Layers {
				if l.MediaType != simpleSigning && l.MediaType != bundleType {
					continue // what else somebody has put there
				}
				s, err := fetch(ctx, src, l, blobs)
				of := fmt.Sprintf("signature %d of %s", i+1, a.Descriptor.Digest)
				if err != nil {
					err = fmt.Errorf("%s: %w", of, err)
				} else {
					s.of = of
				}
				if !yield(s, err) {
					return
				}
			}
		}
	}
}

// fetch reads a bundle, or a payload with the signature that is in its
// descriptor.
func fetch(ctx context.Context, src oci.Source, l ocispec.Descriptor, blobs map[digest.Digest][]byte) (*signature, error) {
	if l.MediaType == bundleType {
		raw, err := fetchBlob(ctx, src, l, blobs)
		if err != nil {
			return nil, err
		}
		b, err := ParseBundle(raw)
		if err != nil {
			return nil, err
		}
		return &signature{payload: b.Signed, signature: b.Signature, bundle: b}, nil
	}
	text, ok := l.Annotations[signatureAnnotation]
	if !ok {
		return nil, fmt.Errorf("the annotation %s is missing", signatureAnnotation)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", signatureAnnotation, err)
	}
	payload, err := fetchBlob(ctx, src, l, blobs)
	return &signature{payload: payload, signature: sig}, err
}

// fetchBlob reads a small blob, once, and compares it with its descriptor.
func fetchBlob(ctx context.Context, src oci.Source, l ocispec.Descriptor, blobs map[digest.Digest][]byte) (b []byte, err error) {
	if l.Size > maxPayload {
		return nil, fmt.Errorf("payload has %d bytes, more than %d", l.Size, maxPayload)
	}
	if l.Data != nil {
		return l.Data, oci.Verify("payload", l.Data, l)
	}
	if b, ok := blobs[l.Digest]; ok {
		return b, oci.Verify("payload", b, l)
	}
	for {
		if b, err = readBlob(ctx, src, l); err != nil {
			return nil, err
		}
		if err = oci.Verify("payload", b, l); err == nil {
			blobs[l.Digest] = b
			return b, nil
		}
		if m, ok := src.(oci.MirroredSource); !ok || !m.Distrust(l, err) {
			return nil, err
		}
	}
}

// readBlob reads a small blob, or one byte more if it is longer than announced.
func readBlob(ctx context.Context, src oci.Source, l ocispec.Descriptor) (b []byte, err error) {
	r, err := src.OpenBlob(ctx, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.LimitReader(r, l.Size+1))
}

// noPlace is why no signature can be found where an image is.
func noPlace(t oci.Transport) string {
	why := fmt.Sprintf("signatures can't be found in %s:", t)
	if t == oci.DockerArchive {
		why = "an archive of that form has no place for signatures"
	}
	return why + "; they can in a registry, oci:, oci-archive: and dir:"
}

// accept finds a signature that one of the keys has made of the subject, with
// an identity that the rule allows.
func (s *Subject) accept(ctx context.Context, keys []*Key, id Identity) (*Accepted, error) {
	src, ok := s.Source.(oci.AttachmentSource)
	if !ok {
		return nil, s.refused(noPlace(s.Reference.Transport))
	}
	var reasons []error
	seen := 0
	for _, d := range s.digests() {
		for sig, err := range find(ctx, src, d) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if seen++; seen > maxSignatures {
				return nil, s.refused(fmt.Sprintf("none of the first %d signatures is good, and there are more", maxSignatures), reasons...)
			}
			if err != nil {
				reasons = append(reasons, err)
				continue
			}
			a, err := s.check(sig, keys, id)
			if err == nil {
				return a, nil
			}
			reasons = append(reasons, fmt.Errorf("%s: %w", sig.of, err))
		}
	}
	if len(reasons) == 0 {
		return nil, s.refused("it has no signature")
	}
	return nil, s.refused("it has no good signature", reasons...)
}

// check holds one signature against keys, subject and identity, in this order.
func (s *Subject) check(sig *signature, keys []*Key, id Identity) (*Accepted, error) {
	key := verifiedBy(keys, sig)
	if key == nil {
		return nil, errors.New("it was not made by a key that is trusted here")
	}
	p, err := sig.claims()
	if err != nil {
		return nil, err
	}
	if p.Digest != s.Root && p.Digest != s.Manifest {
		return nil, fmt.Errorf("it is of another image, %s", p.Digest)
	}
	if err := id.allows(s.Reference, p.Reference, sig.bundle != nil); err != nil {
		return nil, err
	}
	return &Accepted{Signed: p.Digest, Reference: p.Reference, Key: key, Payload: sig.payload, Signature: sig.signature}, nil
}

func verifiedBy(keys []*Key, sig *signature) *Key {
	for _, k := range keys {
		if k.Verify(sig.payload, sig.signature) {
			return k
		}
	}
	return nil
}
