package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// headers makes a tar of nothing but headers.
func headers(t *testing.T, hs ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func indexBytes(b []byte) (map[string]entry, error) {
	return indexTar(context.Background(), bytes.NewReader(b), int64(len(b)))
}

// TestIndexBounds sets the bounds low.
func TestIndexBounds(t *testing.T) {
	entries, names := maxEntries, maxNames
	defer func() { maxEntries, maxNames = entries, names }()
	var hs []*tar.Header
	for i := range 101 {
		hs = append(hs, &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%099d", i)})
	}
	maxEntries, maxNames = 100, 101*99
	if _, err := indexBytes(headers(t, hs[:100]...)); err != nil {
		t.Error(err)
	}
	if _, err := indexBytes(headers(t, hs...)); err == nil || !strings.Contains(err.Error(), "more than 100 entries") {
		t.Errorf("entries: %v", err)
	}
	maxNames = 100*99 - 1
	if _, err := indexBytes(headers(t, hs[:100]...)); err == nil || !strings.Contains(err.Error(), "more than 9899 bytes of names") {
		t.Errorf("names: %v", err)
	}
}

// TestIndexKinds has an entry of every kind: only files can be opened, and nothing is read for the others.
func TestIndexKinds(t *testing.T) {
	b := headers(t,
		&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}},
		&tar.Header{Typeflag: tar.TypeReg, Name: "file", Size: 700},
		&tar.Header{Typeflag: tar.TypeDir, Name: "dir/"},
		&tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "./file"},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "dir/sym", Linkname: "../file"},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "abs", Linkname: "/file"},
		&tar.Header{Typeflag: tar.TypeChar, Name: "char", Devmajor: 1, Devminor: 3},
		&tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"},
	)
	entries, err := indexBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	files := &tarFiles{tar: bytes.NewReader(b), entries: entries}
	for name, size := range map[string]int64{"file": 700, "hard": 700, "dir/sym": 700, "./file": 700, "dir": -1, "abs": -1, "char": -1, "fifo": -1, "none": -1, "../file": -1} {
		f, err := files.Open(name)
		if (err == nil) != (size >= 0) || err == nil && f.Size() != size {
			t.Errorf("%s: got %v, %v", name, f, err)
		}
	}
}

func TestSparseIsRefused(t *testing.T) {
	h := &tar.Header{PAXRecords: map[string]string{"GNU.sparse.major": "1"}, Typeflag: tar.TypeReg, Name: "x", Size: 1}
	if err := add(map[string]entry{}, h, 0, 1); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("got %v", err)
	}
}

// TestInflateBounds sets the bounds low.
func TestInflateBounds(t *testing.T) {
	size, ratio, from := maxInflated, maxRatio, ratioFrom
	defer func() { maxInflated, maxRatio, ratioFrom = size, ratio, from }()
	t.Setenv("TMPDIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "zeros.tar.gz")
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		src, err := Open(oci.Reference{Transport: oci.OCIArchive, Path: path}, Options{})
		if err != nil {
			return err
		}
		_, err = src.Image(context.Background())
		return errors.Join(err, src.Close())
	}
	maxInflated = 4 << 20
	if err := open(); err == nil || !strings.Contains(err.Error(), "more than 4194304 bytes: decompress it first") {
		t.Errorf("size: %v", err)
	}
	maxInflated, ratioFrom, maxRatio = size, 4<<20, 100
	if err := open(); err == nil || !strings.Contains(err.Error(), "more than 100 times") {
		t.Errorf("ratio: %v", err)
	}
	maxRatio = ratio * 10
	if err := open(); err == nil || !strings.Contains(err.Error(), "is an empty archive") {
		t.Errorf("within all bounds: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := openTar(ctx, f, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// FuzzIndex reads any tar: what an index says lies within the tar, and every name leads to such a place or nowhere.
func FuzzIndex(f *testing.F) {
	f.Add(ocitest.Tar(ocitest.File{Name: "a/"}, ocitest.File{Name: "a/b", Data: "x"}, ocitest.File{Name: "c", Link: "a/b"}))
	b, err := ocitest.Sample(oci.Platform{OS: "linux", Architecture: "amd64"}).Build()
	if err != nil {
		f.Fatal(err)
	}
	list, err := b.OCIArchive("v1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ocitest.Tar(list...))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := indexBytes(data)
		if err != nil {
			return
		}
		files := &tarFiles{tar: bytes.NewReader(data), entries: entries}
		for name := range entries {
			if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "../") {
				t.Fatalf("name %q", name)
			}
			r, err := files.Open(name)
			if err != nil {
				continue
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != r.Size() {
				t.Fatalf("%q: %d bytes of %d, %v", name, n, r.Size(), err)
			}
		}
	})
}

// FuzzDocker reads any tar as a docker-archive.
func FuzzDocker(f *testing.F) {
	b, err := ocitest.Sample(oci.Platform{OS: "linux", Architecture: "amd64"}).Build()
	if err != nil {
		f.Fatal(err)
	}
	list, err := ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"a:1"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ocitest.Tar(list...), "")
	f.Add(ocitest.Tar(list...), "a")
	f.Add(ocitest.Tar(list...), "@0")
	f.Fuzz(func(t *testing.T, data []byte, tag string) {
		entries, err := indexBytes(data)
		if err != nil {
			return
		}
		s := &dockerSource{source: &source{
			ref: oci.Reference{Transport: oci.DockerArchive, Path: "x", Tag: tag},
			tar: &tarFiles{tar: bytes.NewReader(data), entries: entries},
		}}
		m, err := s.Image(context.Background())
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			r, err := s.OpenBlob(context.Background(), l.Descriptor)
			if err != nil {
				continue // two layers of one diffID may have two sizes: one of them lies
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != l.Descriptor.Size {
				t.Fatalf("%d bytes of %d, %v", n, l.Descriptor.Size, err)
			}
		}
	})
}
