package oci

import (
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize bounds a manifest, an image index and a config, in bytes.
// The distribution specification lets registries refuse manifests above
// 4 MiB, so no larger one can be relied on.
const MaxManifestSize = 4 << 20

// schemaVersion is that of every document we read, Docker's included.
const schemaVersion = 2

// ErrSchema1 is what a Docker schema 1 manifest gets.
var ErrSchema1 = errors.New("docker schema 1 manifests have no diffIDs and are not supported: push the image again with a current tool")

// ErrArtifact is what is wrapped when a manifest is not of an image.
var ErrArtifact = errors.New("not a container image")

// Document is a manifest or an image index, checked.
type Document struct {
	MediaType    string
	ArtifactType string
	Config       ocispec.Descriptor   // of a manifest
	Layers       []ocispec.Descriptor // of a manifest, lowest first
	Manifests    []ocispec.Descriptor // of an image index
	Annotations  map[string]string
}

// IsIndex tells whether the document is an image index.
func (d *Document) IsIndex() bool { return IsIndex(d.MediaType) }

// ParseDocument reads a manifest or an image index. The media type with which
// it came may be empty or generic, and decides only if the document names
// none itself; the two must not disagree about which of the two kinds it is.
func ParseDocument(raw []byte, mediaType string) (*Document, error) {
	o, err := parseBounded(raw)
	if err != nil {
		return nil, err
	}
	doc := new(Document)
	if doc.MediaType, err = documentType(o, BareMediaType(mediaType)); err != nil {
		return nil, err
	}
	if err := doc.readCommon(o); err != nil {
		return nil, err
	}
	if doc.IsIndex() {
		doc.Manifests, err = readDescriptors(o, "manifests")
	} else {
		err = doc.readManifest(o)
	}
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// parseBounded refuses what is too large before it parses.
func parseBounded(raw []byte) (object, error) {
	if len(raw) > MaxManifestSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxManifestSize)
	}
	return parseObject(raw)
}

// documentType returns the media type of a manifest or image index, after
// making sure that nobody can read it as the other.
func documentType(o object, declared string) (string, error) {
	own, err := o.str("mediaType")
	if err != nil {
		return "", err
	}
	if isSchema1(own) || isSchema1(declared) || o.has("fsLayers") {
		return "", ErrSchema1
	}
	var version int64
	if err := o.read("schemaVersion", &version); err != nil {
		return "", err
	}
	if version != schemaVersion {
		return "", fmt.Errorf("schemaVersion is %d, want %d", version, schemaVersion)
	}
	isManifest := o.has("layers") || o.has("config")
	isIndex := o.has("manifests")
	switch {
	case isManifest && isIndex:
		return "", errors.New("has the fields of a manifest and those of an image index, so that readers may disagree about it")
	case !isManifest && !isIndex:
		return "", errors.New("is no manifest and no image index: it has neither layers nor manifests")
	}
	return agree(own, declared, isIndex)
}

// agree settles the media type of a document from what it says, what was said
// of it, and what its fields make it.
func agree(own, declared string, isIndex bool) (string, error) {
	for _, t := range []string{own, declared} {
		if IsManifest(t) && isIndex || IsIndex(t) && !isIndex {
			return "", fmt.Errorf("media type %s does not fit the fields", quote(t))
		}
	}
	switch {
	case IsManifest(own) || IsIndex(own):
		return own, nil
	case own != "":
		return "", fmt.Errorf("media type %s: %w", quote(own), ErrArtifact)
	case IsManifest(declared) || IsIndex(declared):
		return declared, nil
	case isIndex:
		return ocispec.MediaTypeImageIndex, nil
	}
	return ocispec.MediaTypeImageManifest, nil
}

// readCommon reads what manifests and image indexes share.
func (d *Document) readCommon(o object) error {
	if err := o.read("annotations", &d.Annotations); err != nil {
		return err
	}
	var err error
	d.ArtifactType, err = o.str("artifactType")
	return err
}

// readManifest reads what makes a manifest an image's.
func (d *Document) readManifest(o object) error {
	if err := d.readParts(o); err != nil {
		return err
	}
	if !IsConfig(d.Config.MediaType) {
		kind := d.Config.MediaType
		if d.ArtifactType != "" {
			kind = d.ArtifactType
		}
		return fmt.Errorf("%w but an artifact of type %s", ErrArtifact, quote(kind))
	}
	for i, l := range d.Layers {
		if !IsLayer(l.MediaType) {
			return fmt.Errorf("layers[%d]: media type %s is no file system layer's", i, quote(l.MediaType))
		}
	}
	return nil
}

// readParts reads what all manifests have, those of images and others.
func (d *Document) readParts(o object) error {
	config, err := o.sub("config")
	switch {
	case err != nil:
		return err
	case config == nil:
		return errors.New("config is missing")
	}
	if d.Config, err = readDescriptor(config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if d.Config.Size > MaxManifestSize {
		return fmt.Errorf("config has %d bytes, more than %d", d.Config.Size, MaxManifestSize)
	}
	if !o.has("layers") {
		return errors.New("layers are missing")
	}
	d.Layers, err = readDescriptors(o, "layers")
	return err
}

// readDescriptors reads a member that is an array of descriptors.
func readDescriptors(o object, name string) ([]ocispec.Descriptor, error) {
	items, err := o.list(name)
	if err != nil {
		return nil, err
	}
	descs := make([]ocispec.Descriptor, len(items))
	for i, item := range items {
		sub, err := asObject(item)
		if err == nil {
			descs[i], err = readDescriptor(sub)
		}
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", name, i, err)
		}
	}
	return descs, nil
}

// readDescriptor reads and checks a descriptor. Its data is not looked at,
// since a blob has one place only, nor are its urls, since nobody asked for
// requests to hosts that a manifest chooses.
func readDescriptor(o object) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	var dgst string
	err := o.texts(text{"mediaType", &d.MediaType}, text{"digest", &dgst}, text{"artifactType", &d.ArtifactType})
	if err != nil {
		return d, err
	}
	d.Digest = digestOf(dgst)
	if !o.has("size") {
		return d, errors.New("size is missing")
	}
	if err := o.read("size", &d.Size); err != nil {
		return d, err
	}
	if err := o.read("annotations", &d.Annotations); err != nil {
		return d, err
	}
	if d.Platform, err = readPlatform(o); err != nil {
		return d, err
	}
	return d, CheckDescriptor(d)
}

// readPlatform reads a descriptor's platform, nil if it has none.
func readPlatform(o object) (*ocispec.Platform, error) {
	sub, err := o.sub("platform")
	if sub == nil || err != nil {
		return nil, err
	}
	var p ocispec.Platform
	err = sub.texts(text{"os", &p.OS}, text{"architecture", &p.Architecture},
		text{"variant", &p.Variant}, text{"os.version", &p.OSVersion})
	if err != nil {
		return nil, fmt.Errorf("platform: %w", err)
	}
	return &p, sub.read("os.features", &p.OSFeatures)
}
