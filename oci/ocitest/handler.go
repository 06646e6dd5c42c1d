package ocitest

import (
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/flatroot/flatroot/oci"
)

// Handler serves the blobs as a registry that can only be read, under any
// repository and tag, and under the digests that their descriptors claim, be
// that true or not.
func (b *Built) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.WriteHeader(http.StatusOK)
			return
		}
		blob := b.request(r.URL.Path)
		if blob == nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}`))
			return
		}
		w.Header().Set("Content-Type", blob.Descriptor.MediaType)
		w.Header().Set("Docker-Content-Digest", blob.Descriptor.Digest.String())
		w.Header().Set("Content-Length", strconv.Itoa(len(blob.Data)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(blob.Data)
		}
	})
}

// request finds what a path of the distribution specification's asks for.
func (b *Built) request(p string) *Blob {
	manifest := path.Base(path.Dir(p)) == "manifests"
	if manifest && !strings.Contains(path.Base(p), ":") {
		return &b.Blobs[len(b.Blobs)-1]
	}
	for i := range b.Blobs {
		d := b.Blobs[i].Descriptor
		isManifest := oci.IsManifest(d.MediaType) || oci.IsIndex(d.MediaType)
		if d.Digest.String() == path.Base(p) && isManifest == manifest {
			return &b.Blobs[i]
		}
	}
	return nil
}

// Honest tells whether every blob is what its descriptor says, so that a real
// registry would take it.
func (b *Built) Honest() bool {
	for _, blob := range b.Blobs {
		if oci.Verify("", blob.Data, blob.Descriptor) != nil {
			return false
		}
	}
	return true
}
