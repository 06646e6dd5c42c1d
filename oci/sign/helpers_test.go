package sign_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

const (
	manifest = digest.Digest("sha256:8751d5375e136eaf7e59579b32ab187a4f96c182e4bd0af54c47525baada86c6")
	index    = digest.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")
	stranger = digest.Digest("sha256:2222222222222222222222222222222222222222222222222222222222222222")
	app      = "registry.example.com/org/app"
)

// beside is a source that has nothing but attachments.
type beside struct {
	oci.Source
	of      map[digest.Digest][]*ocitest.Built
	blobs   map[digest.Digest][]byte
	fetched int
}

func newBeside() *beside {
	return &beside{of: map[digest.Digest][]*ocitest.Built{}, blobs: map[digest.Digest][]byte{}}
}

// attach puts signatures beside a digest.
func (s *beside) attach(of digest.Digest, images ...*ocitest.Built) *beside {
	s.of[of] = append(s.of[of], images...)
	for _, b := range images {
		for _, blob := range b.Blobs {
			s.blobs[blob.Descriptor.Digest] = blob.Data
		}
	}
	return s
}

func (s *beside) OpenBlob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	s.fetched++
	b, ok := s.blobs[d.Digest]
	if !ok {
		return nil, errors.New("no such blob")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *beside) Attachments(_ context.Context, of digest.Digest, _ oci.AttachmentKind) iter.Seq2[*oci.Attachment, error] {
	return func(yield func(*oci.Attachment, error) bool) {
		for _, b := range s.of[of] {
			root := b.Blobs[len(b.Blobs)-1]
			a := &oci.Attachment{Descriptor: root.Descriptor}
			doc, err := oci.ParseAttachment(root.Data, root.Descriptor.MediaType)
			if a.Document = doc; err != nil {
				a = nil
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// subject is the image registry.example.com/org/app:v1 with a source.
func subject(t *testing.T, src oci.Source) *sign.Subject {
	t.Helper()
	return &sign.Subject{Reference: reference(t, "docker://"+app+":v1"), Source: src, Root: manifest, Manifest: manifest}
}

func reference(t *testing.T, s string) oci.Reference {
	t.Helper()
	ref, err := oci.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func keyOf(t *testing.T, s *signtest.Signer) *sign.Key {
	t.Helper()
	k, err := sign.ParseKey(s.PEM)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantRefusal checks that an error is a refusal, has these texts, and fits on a few lines.
func wantRefusal(t *testing.T, err error, texts ...string) {
	t.Helper()
	if !errors.As(err, new(*sign.RefusedError)) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got %v\nwant %q in it", err, text)
		}
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' }) || len(err.Error()) > 3000 {
		t.Errorf("not fit to print: %q", err)
	}
}
