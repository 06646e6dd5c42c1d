package ocitest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayoutHandler serves the images of a layout directory as a registry that can only be read, under any repository, tags being
// the layout's names. It gives parts of blobs.
func LayoutHandler(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, name := filepath.Split(r.URL.Path)
		switch {
		case r.URL.Path == "/v2/":
			return
		case strings.HasSuffix(kind, "/manifests/"):
			d, err := layoutManifest(dir, name)
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", d.MediaType)
			w.Header().Set("Docker-Content-Digest", d.Digest.String())
			name = d.Digest.String()
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
		}
		f, err := os.Open(filepath.Join(dir, "blobs", strings.ReplaceAll(name, ":", "/")))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, "", time.Time{}, f)
	})
}

// layoutManifest finds the manifest of a layout that has a name or a digest.
func layoutManifest(dir, name string) (ocispec.Descriptor, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == name || d.Digest == digest.Digest(name) {
			return d, nil
		}
	}
	return ocispec.Descriptor{}, os.ErrNotExist
}
