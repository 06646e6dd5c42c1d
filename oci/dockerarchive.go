package oci

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ArchivedImage is what the manifest.json of a docker-archive says of one
// image. None of it has been looked at: names and paths are hostile.
type ArchivedImage struct {
	Config string   // path of the config in the archive
	Names  []string // RepoTags: short or full, none for an image without a name
	Layers []string // paths, lowest layer first
}

// maxArchivedLayers bounds the layers of an image in a docker-archive, of
// which none costs more than a few bytes there. overlayfs takes 500.
const maxArchivedLayers = 4096

// ParseDockerArchive reads the manifest.json of a docker-archive, which is a
// list of images. Its fields are those of `docker save`; others are not looked
// at.
func ParseDockerArchive(raw []byte) ([]ArchivedImage, error) {
	if len(raw) > MaxManifestSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxManifestSize)
	}
	if err := checkJSON(raw); err != nil {
		return nil, err
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, err
	}
	images := make([]ArchivedImage, len(items))
	for i, item := range items {
		o, err := asObject(item)
		if err == nil {
			images[i], err = readArchivedImage(o)
		}
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", i, err)
		}
	}
	return images, nil
}

func readArchivedImage(o object) (m ArchivedImage, err error) {
	if m.Config, err = o.str("Config"); err != nil {
		return m, err
	}
	if err := errors.Join(o.read("RepoTags", &m.Names), o.read("Layers", &m.Layers)); err != nil {
		return m, err
	}
	if m.Config == "" {
		return m, errors.New("Config is missing")
	}
	if len(m.Layers) > maxArchivedLayers {
		return m, fmt.Errorf("has %d layers, more than %d", len(m.Layers), maxArchivedLayers)
	}
	return m, nil
}
