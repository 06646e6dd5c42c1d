package oci

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, from the image manifest version 2, schema 2 page of
// the distribution project. Those of OCI are in image-spec.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeDockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"

	// Layers that were not to be pushed to other registries. Deprecated, but
	// met; to a reader they are layers like any other.
	foreignLayer           = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	dockerForeignLayer     = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignLayerGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

	dockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// ManifestMediaTypes lists the documents that we read, those of OCI first:
// what a registry is asked for.
func ManifestMediaTypes() []string {
	return []string{
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		MediaTypeDockerManifest, MediaTypeDockerManifestList,
	}
}

// IsManifest tells whether a media type is that of one image's manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest
}

// IsIndex tells whether a media type is that of an image index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerManifestList
}

// IsConfig tells whether a media type is that of an image's config.
func IsConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == MediaTypeDockerConfig
}

// IsLayer tells whether a media type is that of a layer that we can read.
// How it is compressed is told from its bytes, so the types differ in name
// only; what encryption and other schemes append to a type makes it unknown.
func IsLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		foreignLayer, foreignLayer + "+gzip", foreignLayer + "+zstd",
		MediaTypeDockerLayer, MediaTypeDockerLayerGzip, MediaTypeDockerLayerZstd,
		dockerForeignLayer, dockerForeignLayerGzip:
		return true
	}
	return false
}

// OCILayer returns the media type that the image specification has for a layer
// of Docker's; others are returned as they are.
func OCILayer(mediaType string) string {
	switch mediaType {
	case MediaTypeDockerLayer:
		return ocispec.MediaTypeImageLayer
	case MediaTypeDockerLayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	case MediaTypeDockerLayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	case dockerForeignLayer:
		return foreignLayer
	case dockerForeignLayerGzip:
		return foreignLayer + "+gzip"
	}
	return mediaType
}

// isSchema1 tells whether a media type is Docker's first, which has no config
// and so no diffIDs.
func isSchema1(mediaType string) bool {
	return mediaType == dockerSchema1 || mediaType == dockerSchema1Signed
}

// BareMediaType returns a Content-Type without its parameters.
func BareMediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}
