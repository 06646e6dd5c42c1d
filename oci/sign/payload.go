package sign

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
)

// payloadType is critical.type of the payloads that cosign makes, and others
// that sign as it does. That of GPG's simple signing is another one, and no
// key here makes it good.
const payloadType = "cosign container image signature"

// Payload is what was signed.
type Payload struct {
	Digest    digest.Digest
	Reference string // docker-reference
}

// ParsePayload reads a payload by the rules of containers' readers: what is
// critical has these members and no others, so that nothing that a signer
// demands is passed over.
func ParsePayload(b []byte) (p Payload, err error) {
	if len(b) > maxPayload {
		return p, fmt.Errorf("payload has %d bytes, more than %d", len(b), maxPayload)
	}
	if err := oci.CheckJSON(b); err != nil {
		return p, fmt.Errorf("payload: %w", err)
	}
	var critical, optional, image, identity json.RawMessage
	var kind string
	for _, part := range []struct {
		what    string
		raw     *json.RawMessage
		members map[string]any
	}{
		{"payload", (*json.RawMessage)(&b), map[string]any{"critical": &critical, "optional": &optional}},
		{"critical", &critical, map[string]any{"type": &kind, "image": &image, "identity": &identity}},
		{"critical.image", &image, map[string]any{"docker-manifest-digest": &p.Digest}},
		{"critical.identity", &identity, map[string]any{"docker-reference": &p.Reference}},
	} {
		if err := readMembers(*part.raw, part.members, "optional"); err != nil {
			return p, fmt.Errorf("%s: %w", part.what, err)
		}
	}
	if kind != payloadType {
		return p, fmt.Errorf("critical.type is %q, want %q", oci.Printable(kind, 100), payloadType)
	}
	if err := oci.CheckDigest(p.Digest); err != nil {
		return p, fmt.Errorf("critical.image.docker-manifest-digest: %w", err)
	}
	return p, nil
}

// readMembers reads an object that has all of these members but the optional
// ones, and no others. oci.CheckJSON has made sure that none repeats.
func readMembers(raw []byte, into map[string]any, optional ...string) error {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("is null, not an object")
	}
	for name, value := range o {
		to, ok := into[name]
		if !ok {
			return fmt.Errorf("there is no member %q", oci.Printable(name, 100))
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name := range into {
		if _, ok := o[name]; !ok && !slices.Contains(optional, name) {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}
