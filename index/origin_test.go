package index

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

func TestLayerOrigin(t *testing.T) {
	s := storetest.New(t, store.InitOptions{})
	src := newSource(t, ocitest.Image{Layers: text(t, sampleText)})
	src.name = "oci:/a  b/\x01/ü" // a path may be anything
	img, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LayerOrigin(s, img.Layers[0].DiffID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a layer that is not there: %v", err)
	}
	if _, err := Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "image"}); err != nil {
		t.Fatal(err)
	}
	o, err := LayerOrigin(s, img.Layers[0].DiffID)
	if err != nil || o.Repository != src.name || o.Time.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
	got, want := o.Layer(img.Layers[0].DiffID), img.Layers[0]
	if got.DiffID != want.DiffID || got.Descriptor.Digest != want.Descriptor.Digest ||
		got.Descriptor.Size != want.Descriptor.Size || got.Descriptor.MediaType != want.Descriptor.MediaType {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestHostileOrigin has files that no import wrote.
func TestHostileOrigin(t *testing.T) {
	blob := digest.FromString("blob")
	good := fmt.Sprintf(`{"repository":"oci:x","blob":%q,"media_type":"m","size":1,"time":"2026-01-01T00:00:00Z"}`, blob)
	if _, err := ParseOrigin([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "x", "[]", "{}", good + "x", good[:len(good)-1],
		strings.Replace(good, "oci:x", "", 1),
		strings.Replace(good, "oci:x", strings.Repeat("x", maxReference+1), 1),
		strings.Replace(good, `"m"`, `"`+strings.Repeat("m", 256)+`"`, 1),
		strings.Replace(good, "sha256:", "sha256:../", 1),
		strings.Replace(good, "sha256:", "sha512:", 1),
		strings.Replace(good, `"size":1`, `"size":-1`, 1),
		strings.Replace(good, `"size":1`, `"size":1e30`, 1),
		strings.Replace(good, "2026", "year", 1),
		good + strings.Repeat(" ", maxOrigin),
	} {
		if o, err := ParseOrigin([]byte(bad)); err == nil {
			t.Errorf("%.200s: %+v", bad, o)
		}
	}
	s := storetest.New(t, store.InitOptions{})
	d := oci.DiffID(blob)
	if err := s.WriteFile(originFile(digest.Digest(d)), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if _, err := LayerOrigin(s, d); err == nil || !strings.Contains(err.Error(), originFile(digest.Digest(d))) {
		t.Errorf("%v", err)
	}
	if _, err := LayerOrigin(s, "../../x"); err == nil {
		t.Error("a path was taken for a diffID")
	}
}
