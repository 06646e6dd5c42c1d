// Package oci is what flatroot knows about container images before it opens a
// layer: references, platforms, manifests, image indexes and configs, and the
// two interfaces through which images come in (Source) and go out (Sink).
//
// Words are those of the OCI image specification. A descriptor names a blob by
// media type, digest and size. A manifest lists an image's config and layers.
// An image index (in Docker's words a manifest list) lists manifests by
// platform. A blob digest is of the bytes as they are stored, mostly
// compressed; a diffID is of the uncompressed tar, and is a type of its own so
// that the two can't be mixed up.
//
// Invariants:
//
//   - Everything that is parsed here is hostile. Documents are at most
//     MaxManifestSize bytes, and their digest is compared with the descriptor
//     that led to them before a byte is interpreted.
//   - Field names are matched exactly and must not repeat, so that no other
//     reader can see another image in the same bytes.
//   - A document that could be read both as a manifest and as an image index
//     is refused, whatever the media type says (CVE-2021-41190).
//   - Digests are SHA-256, always: nothing else is compared, and nothing else
//     becomes part of a path.
//   - Raw bytes are kept: an Image's Manifest and Config are what was fetched,
//     Docker schema 2 included.
//   - The diffIDs of an Image are its config's claims. The importer computes
//     its own and compares.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DiffID is the digest of a layer's uncompressed tar.
type DiffID digest.Digest

// String returns the diffID as ALGORITHM:HEX.
func (d DiffID) String() string { return string(d) }

// Hex returns the hexadecimal half of a valid diffID.
func (d DiffID) Hex() string { return digest.Digest(d).Encoded() }

// ChainID is the digest of a stack of layers: of the lowest its diffID, of
// every other one the digest of what is below it and its own diffID.
type ChainID digest.Digest

// String returns the chainID as ALGORITHM:HEX.
func (c ChainID) String() string { return string(c) }

// ChainIDs returns the chainID of every prefix of a stack of layers, lowest
// layer first, by the rule of the image specification's config page.
func ChainIDs(layers []DiffID) []ChainID {
	chain := make([]ChainID, len(layers))
	for i, d := range layers {
		chain[i] = ChainID(d)
		if i > 0 {
			chain[i] = ChainID(digest.FromString(chain[i-1].String() + " " + d.String()))
		}
	}
	return chain
}

// Layer is one layer of an image, as manifest and config describe it.
type Layer struct {
	Descriptor ocispec.Descriptor // of the blob: media type, digest and size as stored
	DiffID     DiffID             // claimed by the config
}

// Image is one image for one platform: manifest and config, both verified
// against the descriptors that led to them, and the layers that they claim.
type Image struct {
	Descriptor       ocispec.Descriptor // of the manifest
	Manifest         []byte             // raw
	ConfigDescriptor ocispec.Descriptor
	Config           []byte  // raw
	Layers           []Layer // lowest first
	Platform         Platform
	Reference        string        // where it came from, for messages
	IndexDigest      digest.Digest // of the outermost image index that led here; empty if none did
}

// DiffIDs returns the diffIDs that the config claims, lowest layer first.
func (m *Image) DiffIDs() []DiffID {
	ids := make([]DiffID, len(m.Layers))
	for i, l := range m.Layers {
		ids[i] = l.DiffID
	}
	return ids
}

// Source is one image, somewhere else. All methods but Close may be called
// concurrently.
type Source interface {
	// Resolve asks what the reference stands for now, as cheaply as the
	// source can: a registry answers a HEAD. The descriptor may be an image
	// index's. Image then follows that very descriptor.
	Resolve(ctx context.Context) (ocispec.Descriptor, error)
	// Image returns manifest, config and layers for the source's platform.
	Image(ctx context.Context) (*Image, error)
	// OpenBlob returns a blob's bytes as they are stored. They are not
	// verified: whoever reads them computes the digest, and has to anyway.
	OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// String returns the reference, for messages.
	String() string
	Close() error
}

// ConvertedSource is a Source that has layers in another form than its manifest
// lists them: uncompressed, where the manifest is one of a registry.
type ConvertedSource interface {
	Source
	// Stored returns a layer with the descriptor of the blob that the source
	// has of it. What tells the layer is its diffID.
	Stored(ctx context.Context, l Layer) (Layer, error)
}

// Stored returns a layer as the source has it: what OpenBlob is to be asked
// for.
func Stored(ctx context.Context, src Source, l Layer) (Layer, error) {
	if c, ok := src.(ConvertedSource); ok {
		return c.Stored(ctx, l)
	}
	return l, nil
}

// FileBlob is a blob that is put together from files, uncompressed.
type FileBlob interface {
	io.ReadCloser
	// Through has contents read by way of clones. Before size bytes that are
	// all of f are read as what stands at an offset of the blob, via is
	// called, and if it returns a file, that one is read instead and closed.
	// It is to be called before the first Read.
	Through(via CloneFunc)
}

// CloneFunc clones the file that stands at an offset of a blob; nil: it does
// not.
type CloneFunc func(f *os.File, offset, size int64) *os.File

// RangeSource is a Source that can give a part of a blob.
type RangeSource interface {
	Source
	// OpenRange returns length bytes of a blob from offset on, which lie
	// within it, as they are stored. Like those of OpenBlob they are not
	// verified; there may be fewer only with an error. ErrNoRange says that
	// all of the blob can be had, or nothing.
	OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error)
}

// NetworkSource is a Source at the other end of a network, where blobs may
// break off and take long to fetch again: what came of them is worth keeping.
type NetworkSource interface {
	Source
	// OpenBlobFrom is OpenBlob for what follows the first offset bytes of a
	// blob, which are there already; offset may be the blob's size.
	OpenBlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// MirroredSource is a NetworkSource that may have a blob from several places. What they give is not verified there: who reads
// it says if it was wrong.
type MirroredSource interface {
	NetworkSource
	// Distrust says that what was read of a blob, since it was opened last, is not what its descriptor says, and why. It is
	// true if the blob can be had from somebody else: who opens it next is not given those bytes again.
	Distrust(desc ocispec.Descriptor, why error) bool
}

// ErrNoImage is what a Source's errors wrap where there is no such image.
var ErrNoImage = errors.New("no image")

// ErrNoRange is what a RangeSource's errors wrap that can't give a part.
var ErrNoRange = errors.New("no part of a blob can be had, only all of it")

// CheckRange refuses what does not lie within a blob.
func CheckRange(desc ocispec.Descriptor, offset, length int64) error {
	if offset < 0 || length <= 0 || offset > desc.Size-length {
		return fmt.Errorf("%d bytes at %d of %d: no such part", length, offset, desc.Size)
	}
	return nil
}

// Sink is a place that an image is written to, under one name. Blobs come
// first, several of them at once, the manifest that lists them last.
type Sink interface {
	// HasBlob tells whether the blob need not be put.
	HasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	// PutBlob stores a blob and compares digest and size with desc. Putting
	// a blob that is there is success, and may leave r unread. If r is an
	// io.Seeker too, a sink that has been cut off may go back in it; the blob
	// begins where r is when it is given.
	PutBlob(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error
	// PutManifest stores a manifest or image index, after everything that it
	// lists, and gives it the sink's name.
	PutManifest(ctx context.Context, raw []byte, desc ocispec.Descriptor) error
	Close() error
}

// IndexSink is a Sink that may hold an image index, with all images that it
// lists.
type IndexSink interface {
	Sink
	// PutListed stores a manifest that an image index is going to list, after
	// everything that it lists itself, and gives it no name.
	PutListed(ctx context.Context, raw []byte, desc ocispec.Descriptor) error
}

// Mounter is a Sink that may have a blob without it being sent: another image
// at the same place has it.
type Mounter interface {
	Sink
	// MountBlob takes a blob over from the place that another image is at, and
	// tells whether that could be done. If not, it is still to be put.
	MountBlob(ctx context.Context, desc ocispec.Descriptor, from Reference) (bool, error)
}

// StagingSink is a Sink that takes a blob in before its digest is known, so
// that it need not be written somewhere else first.
type StagingSink interface {
	Sink
	// Stage begins a blob. Nobody sees it before it is published.
	Stage() (StagedBlob, error)
}

// StagedBlob is a blob on its way into a StagingSink.
type StagedBlob interface {
	io.Writer
	// Descriptor has digest and size of what was written so far.
	Descriptor() ocispec.Descriptor
	// Publish makes the sink have the blob, as PutBlob does.
	Publish(ctx context.Context) error
	// Close ends it. If it was not published nothing of it stays.
	Close() error
}

// LayerSink is a Sink that keeps layers as files, not as blobs. It is given all
// of an image's layers, each in turn, then its config by PutBlob, then the
// manifest, which may list blobs that are nowhere there.
type LayerSink interface {
	Sink
	// PutLayer stores the next layer, on those that came before: the lowest
	// comes first. It is given digest and size of the layer's tar and compares
	// them, and those of the blob if it is certain that the blob unpacks to
	// this tar; zero: it isn't. If the layer is there on the same others, r is
	// left unread and false is returned.
	PutLayer(ctx context.Context, tar, blob ocispec.Descriptor, r io.Reader) (bool, error)
}
