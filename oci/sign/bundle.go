package sign

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
)

// Names of sigstore's bundles, in which cosign puts signatures since version
// 3: a DSSE envelope around an in-toto statement, by cosign's
// specs/BUNDLE_SPEC.md, the DSSE protocol 1.0 and in-toto's Statement v1.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	statementType = "application/vnd.in-toto+json"
	statementKind = "https://in-toto.io/Statement/v1"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"

	// emptyType is what registries say of a bundle's manifest that go by the
	// media type of its config.
	emptyType = "application/vnd.oci.empty.v1+json"
)

// Bundle is what matters of a bundle where the key is known: its envelope.
// Nothing of it is verified.
type Bundle struct {
	Signed    []byte // what was signed: DSSE's encoding of the statement
	Signature []byte
	statement []byte
}

// ParseBundle reads a bundle with one signature of a statement.
func ParseBundle(raw []byte) (*Bundle, error) {
	if len(raw) > maxPayload {
		return nil, fmt.Errorf("bundle has %d bytes, more than %d", len(raw), maxPayload)
	}
	b, err := parseBundle(raw)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

func parseBundle(raw []byte) (*Bundle, error) {
	if err := oci.CheckJSON(raw); err != nil {
		return nil, err
	}
	var envelope json.RawMessage
	if err := readSome(raw, map[string]any{"dsseEnvelope": &envelope}); err != nil {
		return nil, err
	}
	var signatures []json.RawMessage
	var kind string
	b := &Bundle{}
	err := readSome(envelope, map[string]any{"payload": &b.statement, "payloadType": &kind, "signatures": &signatures})
	switch {
	case err != nil:
		return nil, err
	case len(signatures) != 1:
		return nil, fmt.Errorf("the envelope has %d signatures, want 1", len(signatures))
	case kind != statementType:
		return nil, fmt.Errorf("the payload is of type %q, want %s", oci.Printable(kind, 100), statementType)
	}
	b.Signed = preAuthentication(kind, b.statement)
	return b, readSome(signatures[0], map[string]any{"sig": &b.Signature})
}

// preAuthentication is DSSE's encoding of what is signed, PAE.
func preAuthentication(kind string, payload []byte) []byte {
	head := "DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(payload)) + " "
	return append([]byte(head), payload...)
}

// parseStatement reads the digest of the one image that a statement is about.
// It has to be a signature: of a provenance or list of parts the same key
// says nothing about whether the image may be used.
func parseStatement(b []byte) (p Payload, err error) {
	if err := oci.CheckJSON(b); err != nil {
		return p, err
	}
	var kind, predicate string
	var subjects []json.RawMessage
	err = readSome(b, map[string]any{"_type": &kind, "predicateType": &predicate, "subject": &subjects})
	switch {
	case err != nil:
		return p, err
	case kind != statementKind:
		return p, fmt.Errorf("it is of type %q, want %s", oci.Printable(kind, 100), statementKind)
	case predicate != signPredicate:
		return p, fmt.Errorf("it is no signature but says something else of the image: %q", oci.Printable(predicate, 100))
	case len(subjects) != 1:
		return p, fmt.Errorf("it is about %d subjects, want 1", len(subjects))
	}
	var digests map[string]json.RawMessage
	var hex string
	if err := readSome(subjects[0], map[string]any{"digest": &digests}); err != nil {
		return p, fmt.Errorf("subject: %w", err)
	}
	if err := json.Unmarshal(digests["sha256"], &hex); err != nil {
		return p, fmt.Errorf("subject: digest: sha256: %w", err)
	}
	p.Digest = digest.NewDigestFromEncoded(digest.SHA256, hex)
	return p, oci.CheckDigest(p.Digest)
}

// readSome reads some members of an object, all of which have to be there.
// Others may be, too.
func readSome(raw []byte, into map[string]any) error {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	for name, to := range into {
		value, ok := o[name]
		if !ok {
			return fmt.Errorf("%s is missing", name)
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
