// Package signtest makes keys and signatures as cosign does, with the standard
// library alone, and writes them beside images in layouts and registries.
package signtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci/ocitest"
)

// The names that cosign's specification has.
const (
	PayloadType = "application/vnd.dev.cosign.simplesigning.v1+json"
	Annotation  = "dev.cosignproject.cosign/signature"
	Artifact    = "application/vnd.dev.cosign.artifact.sig.v1+json"
	BundleType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	Kind        = "kind"
	SavedKind   = "dev.cosignproject.cosign/sigs"
)

// Signer is a key pair.
type Signer struct {
	private crypto.Signer
	PEM     []byte // the public key
}

// Kinds lists the kinds of keys that there are.
func Kinds() []string { return []string{"P-256", "P-384", "P-521", "Ed25519", "RSA"} }

// New makes a key pair of one of Kinds. It panics where the machine can't, as
// only a wrong test asks so.
func New(kind string) *Signer {
	s := &Signer{private: generate(kind)}
	der, err := x509.MarshalPKIXPublicKey(s.private.Public())
	if err != nil {
		panic(err)
	}
	s.PEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return s
}

func generate(kind string) crypto.Signer {
	curves := map[string]elliptic.Curve{"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	var k crypto.Signer
	var err error
	switch curve := curves[kind]; {
	case curve != nil:
		k, err = ecdsa.GenerateKey(curve, rand.Reader)
	case kind == "Ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case kind == "RSA":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("no key is of kind %q", kind)
	}
	if err != nil {
		panic(err)
	}
	return k
}

// Sign signs a payload: of Ed25519 itself, else its SHA-256.
func (s *Signer) Sign(payload []byte) []byte {
	sum := sha256.Sum256(payload)
	message, opts := sum[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := s.private.(ed25519.PrivateKey); ok {
		message, opts = payload, crypto.Hash(0)
	}
	sig, err := s.private.Sign(rand.Reader, message, opts)
	if err != nil {
		panic(err)
	}
	return sig
}

// Payload is what is signed of an image that the signer calls reference.
func Payload(of digest.Digest, reference string) []byte {
	b, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": reference},
			"image":    map[string]any{"docker-manifest-digest": of},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	if err != nil {
		panic(err)
	}
	return b
}

// Signature is one layer of an image of signatures.
type Signature struct {
	Payload, Signature []byte
	Bundle             bool // the payload is a bundle, and has the signature in it
	// Edit may make the descriptor lie.
	Edit func(*ocispec.Descriptor)
}

// Of is a signature as it should be.
func (s *Signer) Of(of digest.Digest, reference string) Signature {
	p := Payload(of, reference)
	return Signature{Payload: p, Signature: s.Sign(p)}
}

// Bundle is a bundle with a statement about an image.
func (s *Signer) Bundle(of digest.Digest, predicate string) Signature {
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q}`, of.Encoded(), predicate)
	const kind = "application/vnd.in-toto+json"
	signed := fmt.Sprintf("DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement)
	raw, err := json.Marshal(map[string]any{
		"mediaType": BundleType,
		"dsseEnvelope": map[string]any{
			"payload": []byte(statement), "payloadType": kind, "signatures": []any{map[string]any{"sig": s.Sign([]byte(signed))}},
		},
	})
	if err != nil {
		panic(err)
	}
	return Signature{Payload: raw, Bundle: true}
}

// Image is an image of signatures, as bytes.
func Image(list ...Signature) *ocitest.Built { return image("", ocispec.Descriptor{}, list) }

// Referrer is one that names what it is about, for who looks among referrers.
func Referrer(subject ocispec.Descriptor, artifact string, list ...Signature) *ocitest.Built {
	return image(artifact, subject, list)
}

func image(artifact string, subject ocispec.Descriptor, list []Signature) *ocitest.Built {
	b := &ocitest.Built{}
	add := func(mediaType string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		b.Blobs = append(b.Blobs, ocitest.Blob{Descriptor: d, Data: data})
		return d
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	m.Config = add(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`))
	if artifact != "" {
		m.ArtifactType, m.Config.MediaType, m.Subject = artifact, artifact, &subject
		b.Blobs[0].Descriptor.MediaType = artifact
	}
	for _, s := range list {
		kind := PayloadType
		if s.Bundle {
			kind = BundleType
		}
		d := add(kind, s.Payload)
		if !s.Bundle {
			d.Annotations = map[string]string{Annotation: base64.StdEncoding.EncodeToString(s.Signature)}
		}
		if s.Edit != nil {
			s.Edit(&d)
		}
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	add(ocispec.MediaTypeImageManifest, raw)
	return b
}

// Tag is where cosign looks for the signatures of an image.
func Tag(of digest.Digest) string { return strings.ReplaceAll(of.String(), ":", "-") + ".sig" }
