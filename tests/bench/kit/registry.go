package kit

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ServeLayouts starts a registry on loopback whose repositories are the OCI layouts below dir, by the names of their
// directories, and gives its HOST:PORT. It ends with the program.
func ServeLayouts(dir string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(l, layouts(dir)) //nolint:errcheck // there is nobody to tell
	return l.Addr().String(), nil
}

type layouts string

func (dir layouts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if len(parts) != 3 { // the version check
		return
	}
	layout, kind, id := filepath.Join(string(dir), filepath.Base(parts[0])), parts[1], parts[2]
	d, mediaType := digest.Digest(id), "application/octet-stream"
	if kind == "manifests" {
		desc := find(layout, id)
		d, mediaType = desc.Digest, desc.MediaType
	}
	if d.Validate() != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	http.ServeFile(w, r, filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded()))
}

// find gives the manifest of a tag or digest; none: one without a digest.
func find(layout, id string) (none ocispec.Descriptor) {
	raw, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	var index ocispec.Index
	if err != nil || json.Unmarshal(raw, &index) != nil {
		return none
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == id || m.Digest.String() == id {
			return m
		}
	}
	return none
}
