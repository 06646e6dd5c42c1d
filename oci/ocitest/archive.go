package ocitest

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// OCIArchive returns the files of an oci-archive, to be damaged or put into a
// Tar.
func (b *Built) OCIArchive(name string) ([]File, error) {
	d := b.Root()
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		return nil, err
	}
	files := []File{
		{Name: ocispec.ImageLayoutFile, Data: `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`},
		{Name: ocispec.ImageIndexFile, Data: string(index)}, {Name: "blobs/"}, {Name: "blobs/sha256/"},
	}
	have := map[string]bool{}
	for _, blob := range b.Blobs {
		if name := "blobs/sha256/" + blob.Descriptor.Digest.Encoded(); !have[name] {
			have[name] = true
			files = append(files, File{Name: name, Data: string(blob.Data)})
		}
	}
	return files, nil
}

// Archived is an image in a docker-archive.
type Archived struct {
	*Built
	Names []string
}

// DockerArchive returns the files of a docker-archive as `docker save` writes
// it, but for layers that are as the images have them, compressed or not. An
// image's config and layers are looked for among its blobs.
func DockerArchive(images ...Archived) ([]File, error) {
	type image struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	list := []image{}
	var files []File
	have := map[string]bool{}
	add := func(name string, data []byte) string {
		if !have[name] {
			have[name] = true
			files = append(files, File{Name: name, Data: string(data)})
		}
		return name
	}
	for _, a := range images {
		m := image{RepoTags: a.Names, Layers: []string{}}
		for _, blob := range a.Blobs {
			hex := blob.Descriptor.Digest.Encoded()
			switch t := blob.Descriptor.MediaType; {
			case oci.IsConfig(t):
				m.Config = add(hex+".json", blob.Data)
			case oci.IsLayer(t):
				m.Layers = append(m.Layers, add(hex+"/layer.tar", blob.Data))
			}
		}
		list = append(list, m)
	}
	manifest, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	add("manifest.json", manifest)
	return files, nil
}

// WriteDir writes the image as skopeo's dir: does.
func (b *Built) WriteDir(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("Directory Transport Version: 1.1\n"), 0o644); err != nil {
		return err
	}
	for i, blob := range b.Blobs {
		name := blob.Descriptor.Digest.Encoded()
		switch t := blob.Descriptor.MediaType; {
		case i == len(b.Blobs)-1:
			name = "manifest.json"
		case oci.IsManifest(t) || oci.IsIndex(t):
			name += ".manifest.json"
		}
		if err := os.WriteFile(filepath.Join(dir, name), blob.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
