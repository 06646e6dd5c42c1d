package fsverity

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
)

// Digest is a file's fs-verity digest together with its algorithm. It is
// comparable; the zero value stands for "none".
type Digest struct {
	alg Algorithm
	raw [maxSize]byte // zero behind alg.Size()
}

// NewDigest makes a digest of raw bytes, which it copies.
func NewDigest(a Algorithm, raw []byte) (Digest, error) {
	if a.Size() == 0 {
		return Digest{}, fmt.Errorf("digest of %v: unknown algorithm", a)
	}
	if len(raw) != a.Size() {
		return Digest{}, fmt.Errorf("%v digest has %d bytes, want %d", a, len(raw), a.Size())
	}
	d := Digest{alg: a}
	copy(d.raw[:], raw)
	return d, nil
}

// ParseDigest reads 64 (SHA-256) or 128 (SHA-512) hexadecimal digits of either
// case.
func ParseDigest(hex string) (Digest, error) {
	var d Digest
	err := d.UnmarshalText([]byte(hex))
	return d, err
}

// ParseObjectPath reads what [Digest.ObjectPath] writes, and nothing else: upper
// case is refused, so that the path can be made again from the digest.
func ParseObjectPath(path []byte) (Digest, error) {
	if len(path) < 3 || path[2] != '/' {
		return Digest{}, fmt.Errorf("object path %.140q has no / behind two digits", path)
	}
	if bytes.ContainsAny(path, "ABCDEF") {
		return Digest{}, fmt.Errorf("object path %.140q has upper-case digits", path)
	}
	var digits [2 * maxSize]byte
	n := copy(digits[:], path[:2])
	if len(path)-1 > len(digits) {
		return Digest{}, errDigits(len(path) - 1)
	}
	n += copy(digits[n:], path[3:])
	var d Digest
	err := d.UnmarshalText(digits[:n])
	return d, err
}

// UnmarshalText is [ParseDigest] for bytes; it leaves d alone when it fails.
func (d *Digest) UnmarshalText(text []byte) error {
	var p Digest
	switch len(text) {
	case 2 * sizeSHA256:
		p.alg = SHA256
	case 2 * sizeSHA512:
		p.alg = SHA512
	default:
		return errDigits(len(text))
	}
	if _, err := hex.Decode(p.raw[:], text); err != nil {
		return fmt.Errorf("digest %q: %w", text, err)
	}
	*d = p
	return nil
}

func errDigits(n int) error {
	return fmt.Errorf("digest has %d hexadecimal digits, want %d (sha256) or %d (sha512)",
		n, 2*sizeSHA256, 2*sizeSHA512)
}

// MarshalText is [Digest.String] for encoders.
func (d Digest) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, d.raw[:d.alg.Size()]), nil
}

// IsZero tells whether d is the zero value, which is no digest at all; a digest
// whose bytes are all zero is not.
func (d Digest) IsZero() bool { return d.alg == 0 }

// Algorithm is what the digest was computed with, 0 of the zero value.
func (d Digest) Algorithm() Algorithm { return d.alg }

// Bytes returns a fresh copy of the digest's bytes.
func (d Digest) Bytes() []byte { return d.AppendTo(nil) }

// AppendTo appends the digest's bytes to b.
func (d Digest) AppendTo(b []byte) []byte { return append(b, d.raw[:d.alg.Size()]...) }

// String is the digest in lower-case hexadecimal, "" of the zero value.
func (d Digest) String() string { return hex.EncodeToString(d.raw[:d.alg.Size()]) }

// ObjectPath is the digest as composefs names an object below objects/: its
// first two hexadecimal digits, a slash, and the others. It is "" of the zero
// value.
func (d Digest) ObjectPath() string {
	if d.IsZero() {
		return ""
	}
	var b [1 + 2*maxSize]byte
	raw := d.raw[:d.alg.Size()]
	hex.Encode(b[:2], raw[:1])
	b[2] = '/'
	n := 3 + hex.Encode(b[3:], raw[1:])
	return string(b[:n])
}

// Compare orders digests by algorithm, then by bytes; the zero value is first.
func (d Digest) Compare(o Digest) int {
	return cmp.Or(cmp.Compare(d.alg, o.alg), bytes.Compare(d.raw[:], o.raw[:]))
}
