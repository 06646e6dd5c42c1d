package oci

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sha256HexLen is the length of a SHA-256 digest in hexadecimal.
const sha256HexLen = 64

// DigestError says that bytes are not those that a descriptor or a config
// promised.
type DigestError struct {
	What      string // what was hashed, such as "manifest" or "blob sha256:…"
	Want, Got digest.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s has digest %s, want %s", e.What, e.Got, e.Want)
}

// SizeError says that there are more or fewer bytes than a descriptor
// promised.
type SizeError struct {
	What      string
	Want, Got int64 // bytes; Got may stop counting one byte after Want
}

func (e *SizeError) Error() string {
	if e.Got > e.Want {
		return fmt.Sprintf("%s is longer than the %d bytes its descriptor says", e.What, e.Want)
	}
	return fmt.Sprintf("%s has %d bytes, its descriptor says %d", e.What, e.Got, e.Want)
}

// CheckDigest refuses everything but "sha256:" and 64 lower-case hexadecimal
// digits. What passes is safe as a part of a path.
func CheckDigest(d digest.Digest) error {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	switch {
	case d == "":
		return fmt.Errorf("digest is missing")
	case !ok:
		return fmt.Errorf("digest %s is not sha256", quote(string(d)))
	case len(hex) != sha256HexLen:
		return fmt.Errorf("digest %s has %d digits, want %d", quote(string(d)), len(hex), sha256HexLen)
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("digest %s is not lower-case hexadecimal", quote(string(d)))
		}
	}
	return nil
}

// CheckDescriptor refuses a descriptor whose digest can't be compared or
// whose size can't be.
func CheckDescriptor(desc ocispec.Descriptor) error {
	if err := CheckDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size < 0 {
		return fmt.Errorf("size of %s is negative: %d", desc.Digest, desc.Size)
	}
	return nil
}

// Describe returns the descriptor of bytes.
func Describe(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// Verify compares bytes with the descriptor that led to them. The errors are
// *SizeError and *DigestError.
func Verify(what string, b []byte, desc ocispec.Descriptor) error {
	if int64(len(b)) != desc.Size {
		return &SizeError{What: what, Want: desc.Size, Got: int64(len(b))}
	}
	if got := digest.FromBytes(b); got != desc.Digest {
		return &DigestError{What: what, Want: desc.Digest, Got: got}
	}
	return nil
}

// CopyBlob copies exactly the blob that desc describes, and verifies it. It
// reads at most one byte more. The errors are *SizeError and *DigestError, and
// those of reading, writing and the context.
func CopyBlob(ctx context.Context, w io.Writer, r io.Reader, desc ocispec.Descriptor) error {
	h := digest.SHA256.Digester()
	n, err := io.Copy(io.MultiWriter(w, h.Hash()), io.LimitReader(&ctxReader{ctx, r}, desc.Size))
	if err != nil {
		return err
	}
	if n == desc.Size {
		more, err := io.CopyN(io.Discard, r, 1)
		if err != nil && err != io.EOF {
			return err
		}
		n += more
	}
	what := "blob " + desc.Digest.String()
	if n != desc.Size {
		return &SizeError{What: what, Want: desc.Size, Got: n}
	}
	if got := h.Digest(); got != desc.Digest {
		return &DigestError{What: what, Want: desc.Digest, Got: got}
	}
	return nil
}

// ctxReader stops a long copy from a source that knows no context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
