package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	// maxKey bounds a key's file, in bytes. An RSA key of 8192 bits has 1.5 KB.
	maxKey = 64 << 10
	// minRSA and maxRSA bound an RSA key, in bits: what is smaller can be
	// broken, and what is larger takes long to check.
	minRSA, maxRSA = 2048, 8192
)

// Key is a public key that signatures are verified with.
type Key struct {
	File        string        // it was read from; empty: from the policy itself
	Fingerprint digest.Digest // of the key's DER, the SubjectPublicKeyInfo
	public      crypto.PublicKey
}

// String names the key in messages.
func (k *Key) String() string {
	if k.File == "" {
		return k.Fingerprint.String()
	}
	return k.File + " (" + k.Fingerprint.String() + ")"
}

// ParseKey reads one public key in PEM, as cosign.pub has it: ECDSA on P-256,
// P-384 or P-521, Ed25519, or RSA.
func ParseKey(b []byte) (*Key, error) {
	if len(b) > maxKey {
		return nil, fmt.Errorf("has %d bytes, more than a public key", len(b))
	}
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, errors.New("is no public key in PEM, which begins -----BEGIN PUBLIC KEY-----")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("is a private key: want the public one")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("is no public key but %q: want -----BEGIN PUBLIC KEY-----", block.Type)
	case strings.TrimSpace(string(rest)) != "":
		// Other tools take the first key of a file and ignore the others.
		return nil, errors.New("has more than one public key: put each in a file of its own")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := checkKind(public); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &Key{Fingerprint: digest.FromBytes(der), public: public}, nil
}

// checkKind refuses keys that signatures are not verified with.
func checkKind(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("is an ECDSA key on %s: want P-256, P-384 or P-521", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("is an RSA key of %d bits: want %d to %d", n, minRSA, maxRSA)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("is a key of a kind that is not known here (%T): want ECDSA, Ed25519 or RSA", public)
	}
	return nil
}

// Verify tells whether the key has made a signature of a payload. What is
// signed with ECDSA, in ASN.1, and RSA, by PKCS #1 v1.5, is the payload's
// SHA-256, as cosign's specification and containers have it; newer versions of
// cosign take SHA-384 with P-384 and SHA-512 with P-521. With Ed25519 it is the
// payload itself or, again in newer versions, its SHA-512 by Ed25519ph; no
// signature of one kind is good for the other.
func (k *Key) Verify(payload, signature []byte) bool {
	sum := sha256.Sum256(payload)
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, sum[:], signature) || ecdsa.VerifyASN1(public, curveSum(public, payload), signature)
	case ed25519.PublicKey:
		long := sha512.Sum512(payload)
		return ed25519.Verify(public, payload, signature) ||
			ed25519.VerifyWithOptions(public, long[:], signature, &ed25519.Options{Hash: crypto.SHA512}) == nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// curveSum is the hash whose length is the curve's.
func curveSum(public *ecdsa.PublicKey, payload []byte) []byte {
	switch public.Curve {
	case elliptic.P384():
		sum := sha512.Sum384(payload)
		return sum[:]
	case elliptic.P521():
		sum := sha512.Sum512(payload)
		return sum[:]
	}
	sum := sha256.Sum256(payload)
	return sum[:]
}
