package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Resolved is what a source's reference stands for.
type Resolved struct {
	Root     digest.Digest // the manifest, or the image index that led to it
	Manifest digest.Digest
}

// Accept decides whether an image may come in, by an error if it may not. It is asked once the manifest is known: before a
// layer is fetched, before anything that the store has of the image is restored, and before the image gets a name, also
// where all of it is in the store already. It returns the signatures that it has verified, to be remembered.
type Accept func(ctx context.Context, r Resolved) ([]Signature, error)

// Signature is one that was verified when an image was pulled. What the store has of it is a note, and no proof to anybody:
// who can write to the store can write it, too. Payload and Signature are there so that it can be verified again.
type Signature struct {
	Signed    digest.Digest `json:"signed"`    // of the manifest, or the image index that led to it
	Reference string        `json:"reference"` // the identity that the signer gave the image
	Key       digest.Digest `json:"key"`       // fingerprint: of the key's DER, the SubjectPublicKeyInfo
	KeyFile   string        `json:"key_file,omitempty"`
	Payload   []byte        `json:"payload"`
	Signature []byte        `json:"signature"`
	Time      time.Time     `json:"time"` // when it was verified
}

const (
	// maxSignaturesFile bounds the note about one manifest, in bytes.
	maxSignaturesFile = 4 << 20
	// maxNotedSignatures bounds how many are noted: a policy has seldom more than two requirements.
	maxNotedSignatures = 32
)

// accept asks whether a manifest may come in, once.
func (im *importer) accept(ctx context.Context, manifest digest.Digest) (err error) {
	if im.Accept == nil || im.accepted == manifest {
		return nil
	}
	im.Progress.Step("check signatures")
	if im.signatures, err = im.Accept(ctx, Resolved{Root: im.root, Manifest: manifest}); err != nil {
		return err
	}
	im.accepted = manifest
	im.report.SignedBy = nil
	for _, s := range im.signatures {
		if !slices.Contains(im.report.SignedBy, s.Key) {
			im.report.SignedBy = append(im.report.SignedBy, s.Key)
		}
	}
	return nil
}

func signaturesFile(manifest digest.Digest) string {
	return dirSignatures + "/" + manifest.String() + ".json"
}

// noteSignatures remembers the signatures by which a manifest came in. Those of other keys that it had before stay.
func (im *importer) noteSignatures(manifest digest.Digest) error {
	if len(im.signatures) == 0 {
		return nil
	}
	have, err := Signatures(im.s, manifest)
	if err != nil && !errors.Is(err, errBadNote) {
		return err // who can't read it now should not replace it
	}
	have = slices.DeleteFunc(have, func(s Signature) bool {
		return slices.ContainsFunc(im.signatures, func(n Signature) bool { return n.Key == s.Key && n.Signed == s.Signed })
	})
	list := append(slices.Clone(im.signatures), have...)
	b, err := json.Marshal(list[:min(len(list), maxNotedSignatures)])
	if err != nil {
		return err
	}
	return im.s.WriteFile(signaturesFile(manifest), append(b, '\n'))
}

// errBadNote is wrapped by errors about notes that make no sense.
var errBadNote = errors.New("it makes no sense")

// Signatures reads what was noted of a manifest's signatures, the newest first; none, if nothing was.
func Signatures(s *store.Store, manifest digest.Digest) ([]Signature, error) {
	if err := oci.CheckDigest(manifest); err != nil {
		return nil, err
	}
	b, err := s.ReadFile(signaturesFile(manifest))
	if err != nil {
		return nil, ignoreMissing(err)
	}
	list, err := ParseSignatures(b)
	if err != nil {
		return nil, fmt.Errorf("flatroot/%s: %w: %w", signaturesFile(manifest), errBadNote, err)
	}
	return list, nil
}

// ParseSignatures reads the JSON of a manifest's signatures, which anybody may have written.
func ParseSignatures(b []byte) ([]Signature, error) {
	if len(b) > maxSignaturesFile {
		return nil, fmt.Errorf("%d bytes, more than %d", len(b), maxSignaturesFile)
	}
	var list []Signature
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	if len(list) > maxNotedSignatures {
		return nil, fmt.Errorf("%d signatures, more than %d", len(list), maxNotedSignatures)
	}
	for i, s := range list {
		if err := errors.Join(oci.CheckDigest(s.Signed), oci.CheckDigest(s.Key)); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i+1, err)
		}
	}
	return list, nil
}
