package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/archive"
	"github.com/flatroot/flatroot/oci/ocitest"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// sample builds an image with one file.
func sample(t testing.TB, content string, how ocitest.Compression) *ocitest.Built {
	t.Helper()
	b, err := ocitest.Image{
		Layers:   [][]byte{ocitest.Tar(ocitest.File{Name: "f", Data: content})},
		Platform: amd64, Compression: []ocitest.Compression{how},
	}.Build()
	check(t, err)
	return b
}

// write writes an archive and returns its path.
func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	check(t, os.WriteFile(path, data, 0o644))
	return path
}

func compressed(t testing.TB, data []byte, how ocitest.Compression) []byte {
	t.Helper()
	var b bytes.Buffer
	w := io.WriteCloser(gzip.NewWriter(&b))
	if how == ocitest.Zstd {
		z, err := zstd.NewWriter(&b)
		check(t, err)
		w = z
	}
	_, err := w.Write(data)
	check(t, err, w.Close())
	return b.Bytes()
}

// read opens an archive, and reads the image and the first bytes of its layers.
func read(ref oci.Reference, o archive.Options) (*oci.Image, error) {
	src, err := archive.Open(ref, o)
	if err != nil {
		return nil, err
	}
	m, err := src.Image(context.Background())
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	for _, l := range m.Layers {
		r, oerr := src.OpenBlob(context.Background(), l.Descriptor)
		if oerr == nil {
			_, rerr := io.ReadAll(r)
			oerr = errors.Join(rerr, r.Close())
		}
		err = errors.Join(err, oerr)
	}
	return m, errors.Join(err, src.Close())
}

// noTemporaries makes sure that nothing stays in a directory but what is named.
func noTemporaries(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		known := false
		for _, w := range want {
			known = known || e.Name() == w
		}
		if !known {
			t.Errorf("%s is left", e.Name())
		}
	}
}
