package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Origin says where a layer or a manifest was fetched from, so that it can be fetched again.
type Origin struct {
	// Repository is the reference of the image, for which it was fetched, or what it was built from.
	Repository string        `json:"repository"`
	Blob       digest.Digest `json:"blob"`
	MediaType  string        `json:"media_type"`
	Size       int64         `json:"size"` // bytes of the blob, or of the manifest
	Time       time.Time     `json:"time"`
}

const (
	// maxOrigin bounds such a file, in bytes; ours have about 300.
	maxOrigin = 64 << 10
	// maxReference bounds a reference in it, in bytes: two paths, as one that was relative may have, and a name.
	maxReference = 9 << 10
	// maxMediaType bounds a media type, in bytes. RFC 6838, 4.2, has 127 for each half.
	maxMediaType = 255
)

// Layer is the layer, of this diffID, as a source has it.
func (o Origin) Layer(d oci.DiffID) oci.Layer {
	return oci.Layer{DiffID: d, Descriptor: ocispec.Descriptor{MediaType: o.MediaType, Digest: o.Blob, Size: o.Size}}
}

// LayerOrigin reads where a layer came from; store.ErrNotFound.
func LayerOrigin(s *store.Store, d oci.DiffID) (Origin, error) {
	if err := oci.CheckDigest(digest.Digest(d)); err != nil {
		return Origin{}, err
	}
	return readOrigin(s, digest.Digest(d))
}

// ManifestOrigin reads where a manifest came from, and with it its config; store.ErrNotFound.
func ManifestOrigin(s *store.Store, d digest.Digest) (Origin, error) {
	if err := oci.CheckDigest(d); err != nil {
		return Origin{}, err
	}
	return readOrigin(s, d)
}

func readOrigin(s *store.Store, d digest.Digest) (Origin, error) {
	b, err := s.ReadFile(originFile(d))
	if err != nil {
		return Origin{}, err
	}
	o, err := ParseOrigin(b)
	if err != nil {
		return Origin{}, fmt.Errorf("flatroot/%s: %w", originFile(d), err)
	}
	return o, nil
}

// originFile is by the digest of a layer's tar, its diffID, or of a manifest.
func originFile(d digest.Digest) string { return dirOrigins + "/" + d.String() + ".json" }

// ParseOrigin reads the JSON of an origin, which anybody may have written.
func ParseOrigin(b []byte) (o Origin, err error) {
	if len(b) > maxOrigin {
		return o, fmt.Errorf("%d bytes, more than %d", len(b), maxOrigin)
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return Origin{}, err
	}
	if err := o.check(); err != nil {
		return Origin{}, err
	}
	return o, nil
}

func (o Origin) check() error {
	switch {
	case o.Repository == "":
		return errors.New("it names no repository")
	case len(o.Repository) > maxReference:
		return fmt.Errorf("repository %.100q…: a reference has no %d bytes", o.Repository, len(o.Repository))
	case len(o.MediaType) > maxMediaType:
		return fmt.Errorf("media type %.100q…: %d bytes", o.MediaType, len(o.MediaType))
	}
	return oci.CheckDescriptor(ocispec.Descriptor{Digest: o.Blob, Size: o.Size})
}

// noteOrigin remembers a blob's diffID, both of which were computed here, and where the blob came from.
func noteOrigin(s *store.Store, src oci.Source, l oci.Layer) error {
	if err := s.SetNote(notesBlobs, l.Descriptor.Digest.String(), l.DiffID.String()); err != nil {
		return err
	}
	return writeOrigin(s, digest.Digest(l.DiffID), src, l.Descriptor)
}

// writeOrigin remembers where the blob of a layer or a manifest came from.
func writeOrigin(s *store.Store, d digest.Digest, src oci.Source, blob ocispec.Descriptor) error {
	b, err := json.Marshal(Origin{
		Repository: repositoryOf(src), Blob: blob.Digest,
		MediaType: oci.Printable(blob.MediaType, maxMediaType-len("…")), Size: blob.Size,
		Time: time.Now().UTC().Truncate(time.Second),
	})
	if err != nil {
		return err
	}
	return s.WriteFile(originFile(d), append(b, '\n'))
}

// repositoryOf is how a source is found again. One that goes by a path knows a better one than the path that it was opened
// by, which may have been relative.
func repositoryOf(src oci.Source) string {
	if o, ok := src.(interface{ Origin() string }); ok {
		return o.Origin()
	}
	return src.String()
}
