package index

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/tree"
)

func writeImage(w io.Writer, t *tree.Tree) error {
	_, err := erofs.Write(w, t, erofs.WriteOptions{Undigested: true})
	return err
}

// countingSource counts the blobs that are opened.
type countingSource struct {
	oci.Source
	opened atomic.Int32
}

func (c *countingSource) OpenBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	c.opened.Add(1)
	return c.Source.OpenBlob(ctx, d)
}

func openLayout(t *testing.T, m ocitest.Image) *countingSource {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := m.WriteLayout(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	ref, err := oci.ParseReference("oci:" + dir + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	src, err := layout.Open(ref, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return &countingSource{Source: src}
}

func sampleLayers() [][]byte {
	big := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB: streamed
	large := strings.Repeat("7", 5000)
	return [][]byte{
		ocitest.Tar(
			ocitest.File{Name: "usr/"},
			ocitest.File{Name: "usr/small", Data: "hello"},
			ocitest.File{Name: "usr/large", Data: large},
			ocitest.File{Name: "usr/big", Data: big},
		),
		ocitest.Tar(
			ocitest.File{Name: "usr/.wh.small"},
			ocitest.File{Name: "usr/copy", Data: large},
		),
	}
}

func TestImport(t *testing.T) {
	for _, c := range []ocitest.Compression{ocitest.Gzip, ocitest.Zstd, ocitest.None} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			s := storetest.New(t, store.InitOptions{})
			testImport(t, s, ocitest.Image{Layers: sampleLayers(), Compression: []ocitest.Compression{c}})
		})
	}
}

func testImport(t *testing.T, s *store.Store, m ocitest.Image) {
	ctx := context.Background()
	src := openLayout(t, m)
	o := ImportOptions{Image: writeImage, Name: "example.org/app:1"}
	r, err := Import(ctx, s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Layers != (LayerCounts{Total: 2, Fetched: 2}) || src.opened.Load() != 2 {
		t.Errorf("layers %+v, %d blobs opened", r.Layers, src.opened.Load())
	}
	if r.Objects.New != 2 {
		t.Errorf("%d new objects, want 2", r.Objects.New)
	}
	img, err := src.Image(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range img.Layers {
		var b bytes.Buffer
		if err := WriteTar(ctx, s, l.DiffID, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), m.Layers[i]) {
			t.Errorf("layer %d: the store gives back another tar", i)
		}
	}
	again, err := Import(ctx, s, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if src.opened.Load() != 2 || again.Image != r.Image || again.Layers.Reused != 2 {
		t.Errorf("second import: %d blobs opened, %+v", src.opened.Load(), again)
	}
	d, err := Digest(ctx, src, s.Algorithm(), o)
	if err != nil {
		t.Fatal(err)
	}
	if d.Image != r.Image || d.ImageBytes != r.ImageBytes {
		t.Errorf("Digest gives %s, Import %s", d.Image, r.Image)
	}
	if i, err := Find(s, "example.org/app:1"); err != nil || i.Image != r.Image {
		t.Errorf("Find: %+v, %v", i, err)
	}
}
