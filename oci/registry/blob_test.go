package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/registry"
)

// TestOpenRange asks registries for parts: one that gives them, one that has none, and some that give something else.
func TestOpenRange(t *testing.T) {
	b := sample(t)
	m := b.Handler()
	image := open(t, serve(t, m), "org/app:v1", registry.Options{})
	img, err := image.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	layer := img.Layers[0].Descriptor
	var whole []byte
	for _, blob := range b.Blobs {
		if blob.Descriptor.Digest == layer.Digest {
			whole = blob.Data
		}
	}
	answer := func(status int, contentRange string, body []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				m.ServeHTTP(w, r)
				return
			}
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})
	}
	good := fmt.Sprintf("bytes 3-9/%d", layer.Size)
	for name, c := range map[string]struct {
		h       http.Handler
		want    string
		noRange bool
	}{
		"part":          {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveRange(w, r, m, whole) }), "", false},
		"size unknown":  {answer(206, "bytes 3-9/*", whole[3:10]), "", false},
		"all of it":     {answer(200, "", whole), "200 OK", true},
		"refused":       {answer(416, "", nil), "416", true},
		"another part":  {answer(206, fmt.Sprintf("bytes 4-10/%d", layer.Size), whole[4:11]), "asked for bytes 3-9", true},
		"another size":  {answer(206, "bytes 3-9/10", whole[3:10]), "has 10 bytes, its descriptor says", false},
		"no word of it": {answer(206, "", whole[3:10]), "asked for bytes 3-9", true},
		"too short":     {answer(206, good, whole[3:9]), "6 bytes", false},
		"not found":     {answer(404, "", nil), "404", false},
	} {
		t.Run(name, func(t *testing.T) {
			src := open(t, serve(t, c.h), "org/app:v1", registry.Options{})
			r, err := src.OpenRange(context.Background(), layer, 3, 7)
			if c.want != "" {
				wantError(t, err, c.want)
				if errors.Is(err, oci.ErrNoRange) != c.noRange {
					t.Errorf("no range: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, whole[3:10]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	for _, part := range [][2]int64{{-1, 2}, {0, 0}, {layer.Size, 1}, {0, layer.Size + 1}, {1, 1<<63 - 1}} {
		_, err := image.OpenRange(context.Background(), layer, part[0], part[1])
		wantError(t, err, "no such part")
	}
}

// serveRange gives parts of a blob.
func serveRange(w http.ResponseWriter, r *http.Request, h http.Handler, blob []byte) {
	var first, last int
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n != 2 {
		h.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(blob)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(blob[first : last+1])
}
