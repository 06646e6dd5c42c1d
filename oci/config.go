package oci

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is the part of an image's config that matters before it runs.
type Config struct {
	Platform Platform // empty where the config doesn't say
	DiffIDs  []DiffID // lowest layer first
}

// ParseConfig reads an image's config, OCI's or Docker's. Fields that we
// don't use are not looked at.
func ParseConfig(raw []byte) (*Config, error) {
	o, err := parseBounded(raw)
	if err != nil {
		return nil, err
	}
	c := new(Config)
	err = o.texts(text{"os", &c.Platform.OS}, text{"architecture", &c.Platform.Architecture},
		text{"variant", &c.Platform.Variant})
	if err != nil {
		return nil, err
	}
	if c.DiffIDs, err = readDiffIDs(o); err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	return c, nil
}

// readDiffIDs reads a config's rootfs. The only type that the specification
// has is "layers".
func readDiffIDs(o object) ([]DiffID, error) {
	rootfs, err := o.sub("rootfs")
	switch {
	case err != nil:
		return nil, err
	case rootfs == nil:
		return nil, errors.New("missing")
	}
	kind, err := rootfs.str("type")
	switch {
	case err != nil:
		return nil, err
	case kind != "layers":
		return nil, fmt.Errorf("type is %s, want \"layers\"", quote(kind))
	}
	items, err := rootfs.list("diff_ids")
	if err != nil {
		return nil, err
	}
	ids := make([]DiffID, len(items))
	for i := range items {
		id, err := object{"diff_id": items[i]}.str("diff_id")
		if err == nil {
			err = CheckDigest(digestOf(id))
		}
		if err != nil {
			return nil, fmt.Errorf("diff_ids[%d]: %w", i, err)
		}
		ids[i] = DiffID(id)
	}
	return ids, nil
}

// digestOf names the conversion: a text that nobody has checked yet.
func digestOf(s string) digest.Digest { return digest.Digest(s) }

// ParseImage reads a manifest and its config into an image. Their digests
// are compared with desc and with the manifest's own descriptor of its
// config; the errors of that are *SizeError and *DigestError.
func ParseImage(desc ocispec.Descriptor, manifest, config []byte) (*Image, error) {
	if err := Verify("manifest", manifest, desc); err != nil {
		return nil, err
	}
	doc, err := ParseDocument(manifest, desc.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return newImage(desc, doc, manifest, config)
}

// newImage puts an image together from a manifest that has been verified and
// read, and a config that has not.
func newImage(desc ocispec.Descriptor, doc *Document, manifest, config []byte) (*Image, error) {
	if doc.IsIndex() {
		return nil, fmt.Errorf("manifest %s: is an image index", desc.Digest)
	}
	if err := Verify("config", config, doc.Config); err != nil {
		return nil, err
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", doc.Config.Digest, err)
	}
	if len(c.DiffIDs) != len(doc.Layers) {
		return nil, fmt.Errorf("config %s has %d diff_ids, manifest %s has %d layers",
			doc.Config.Digest, len(c.DiffIDs), desc.Digest, len(doc.Layers))
	}
	desc.MediaType = doc.MediaType
	m := &Image{
		Descriptor: desc, Manifest: manifest,
		ConfigDescriptor: doc.Config, Config: config,
		Layers: make([]Layer, len(doc.Layers)), Platform: c.Platform,
	}
	for i, l := range doc.Layers {
		m.Layers[i] = Layer{Descriptor: l, DiffID: c.DiffIDs[i]}
	}
	return m, nil
}

// ParseLayout reads the file oci-layout of an OCI image layout and returns
// its version.
func ParseLayout(raw []byte) (version string, err error) {
	o, err := parseBounded(raw)
	if err != nil {
		return "", err
	}
	return o.str("imageLayoutVersion")
}
