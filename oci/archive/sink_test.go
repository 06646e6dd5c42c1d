package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/archive"
	"github.com/flatroot/flatroot/oci/ocitest"
)

func ref(path, name string) oci.Reference {
	return oci.Reference{Transport: oci.OCIArchive, Path: path, Tag: name}
}

// push writes an image's blobs in the order of their places in order, and its manifest.
func push(t *testing.T, path, name string, b *ocitest.Built, order ...int) error {
	t.Helper()
	s, err := archive.Create(context.Background(), ref(path, name))
	if err != nil {
		return err
	}
	if order == nil {
		for i := range b.Blobs {
			order = append(order, i)
		}
	}
	last := len(b.Blobs) - 1
	for _, i := range order {
		if i != last {
			err = errors.Join(err, s.PutBlob(context.Background(), b.Blobs[i].Descriptor, bytes.NewReader(b.Blobs[i].Data)))
		}
	}
	if err == nil {
		err = s.PutManifest(context.Background(), b.Blobs[last].Data, b.Blobs[last].Descriptor)
	}
	return errors.Join(err, s.Close())
}

func TestSink(t *testing.T) {
	b, err := ocitest.Sample(amd64).Build()
	check(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "web.tar")
	check(t, push(t, path, "v1", b))
	noTemporaries(t, dir, "web.tar")
	m, err := read(ref(path, "v1"), archive.Options{})
	check(t, err)
	if m.Descriptor.Digest != b.Root().Digest {
		t.Errorf("got %s", m.Descriptor.Digest)
	}
	st, err := os.Stat(path)
	check(t, err)
	if st.Mode() != 0o644 {
		t.Errorf("mode %s", st.Mode())
	}
	first, err := os.ReadFile(path)
	check(t, err)

	var names []string
	for tr := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Mode != map[byte]int64{tar.TypeDir: 0o755, tar.TypeReg: 0o644}[h.Typeflag] {
			t.Errorf("header %+v", h)
		}
		names = append(names, h.Name)
	}
	if !slices.IsSorted(names) || len(names) != 4+len(b.Blobs) {
		t.Errorf("names %q", names)
	}

	// In another order, over the old one, whose mode stays: the same bytes.
	check(t, os.Chmod(path, 0o600), push(t, path, "v1", b, 2, 1, 0))
	again, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(again, first) {
		t.Error("the same image gave another archive")
	}
	if st, err = os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %s, %v", st.Mode(), err)
	}
	noTemporaries(t, dir, "web.tar")
}

// TestSinkIndex writes an image index with all that it lists.
func TestSinkIndex(t *testing.T) {
	b, err := ocitest.Index{Images: []ocitest.Image{ocitest.Sample(amd64)}}.Build()
	check(t, err)
	path := filepath.Join(t.TempDir(), "web.tar")
	check(t, push(t, path, "", b))
	m, err := read(ref(path, ""), archive.Options{Platform: amd64})
	check(t, err)
	if m.IndexDigest != b.Root().Digest {
		t.Errorf("got %s", m.IndexDigest)
	}
}

func TestSinkRefuses(t *testing.T) {
	b := sample(t, "x", ocitest.Gzip)
	layer, config, manifest := b.Blobs[0], b.Blobs[1], b.Blobs[2]
	ctx := context.Background()
	put := func(s *archive.Sink, blob ocitest.Blob) error {
		return s.PutBlob(ctx, blob.Descriptor, bytes.NewReader(blob.Data))
	}
	for name, c := range map[string]struct {
		do   func(s *archive.Sink) error
		want string
	}{
		"layer missing": {func(s *archive.Sink) error {
			return errors.Join(put(s, config), s.PutManifest(ctx, manifest.Data, manifest.Descriptor))
		}, "has not been put"},
		"no manifest": {func(s *archive.Sink) error { return s.PutManifest(ctx, []byte("{}"), manifest.Descriptor) }, "schemaVersion"},
		"other manifest": {func(s *archive.Sink) error {
			return errors.Join(put(s, layer), put(s, config), s.PutManifest(ctx, append(manifest.Data, ' '), manifest.Descriptor))
		}, "longer than"},
		"other bytes": {func(s *archive.Sink) error {
			return put(s, ocitest.Blob{Descriptor: layer.Descriptor, Data: bytes.Repeat([]byte("x"), len(layer.Data))})
		}, "has digest"},
		"fewer bytes": {func(s *archive.Sink) error {
			return put(s, ocitest.Blob{Descriptor: layer.Descriptor, Data: layer.Data[1:]})
		}, "its descriptor says"},
		"no digest":    {func(s *archive.Sink) error { return put(s, ocitest.Blob{Data: layer.Data}) }, "digest is missing"},
		"source fails": {func(s *archive.Sink) error { return s.PutBlob(ctx, layer.Descriptor, failing{}) }, "source failed"},
		"cancelled": {func(s *archive.Sink) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return s.PutBlob(ctx, layer.Descriptor, bytes.NewReader(layer.Data))
		}, "canceled"},
		"two images": {func(s *archive.Sink) error {
			return errors.Join(put(s, layer), put(s, config), s.PutManifest(ctx, manifest.Data, manifest.Descriptor), s.PutManifest(ctx, manifest.Data, manifest.Descriptor))
		}, "it has been written"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := archive.Create(ctx, ref(filepath.Join(dir, "a.tar"), ""))
			check(t, err)
			if err := c.do(s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			check(t, s.Close())
			if name == "two images" {
				noTemporaries(t, dir, "a.tar")
				return
			}
			noTemporaries(t, dir)
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("source failed") }

// TestSinkAndOldFile writes where something is already.
func TestSinkAndOldFile(t *testing.T) {
	b, other := sample(t, "x", ocitest.Gzip), sample(t, "y", ocitest.Gzip)
	two := func(path string) error {
		dir := t.TempDir()
		check(t, other.WriteLayout(dir, "v1"), other.WriteLayout(dir, "v2"))
		index, err := os.ReadFile(filepath.Join(dir, "index.json"))
		check(t, err)
		return os.WriteFile(path, ocitest.Tar(ocitest.File{Name: "index.json", Data: string(index)}), 0o644)
	}
	text := func(path string) error { return os.WriteFile(path, []byte("precious"), 0o644) }
	named := func(name string) func(string) error {
		return func(path string) error { return push(t, path, name, other) }
	}
	docker := func(path string) error {
		list, err := ocitest.DockerArchive(ocitest.Archived{Built: other})
		return errors.Join(err, os.WriteFile(path, ocitest.Tar(list...), 0o644))
	}
	gz := func(path string) error {
		list, err := other.OCIArchive("v1")
		return errors.Join(err, os.WriteFile(path, compressed(t, ocitest.Tar(list...), ocitest.Gzip), 0o644))
	}
	for name, c := range map[string]struct {
		before func(path string) error
		name   string
		want   string // "": replaced
	}{
		"same name":        {named("v1"), "v1", ""},
		"none, none":       {named(""), "", ""},
		"other name":       {named("v2"), "v1", `with other images ("v2")`},
		"named, none":      {named("v2"), "", `with other images ("v2")`},
		"none, named":      {named(""), "v1", `with other images ("")`},
		"one of two":       {two, "v1", `with other images ("v1", "v2")`},
		"text":             {text, "v1", "no OCI archive"},
		"docker-archive":   {docker, "v1", "no OCI archive"},
		"compressed":       {gz, "v1", "no OCI archive"},
		"directory":        {func(p string) error { return os.Mkdir(p, 0o755) }, "v1", "is a directory"},
		"symlink":          {func(p string) error { return os.Symlink("nowhere", p) }, "v1", "is a symbolic link"},
		"no directory yet": {func(p string) error { return os.Remove(filepath.Dir(p)) }, "v1", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.tar")
			check(t, c.before(path))
			old, _ := os.ReadFile(path)
			err := push(t, path, c.name, b)
			if c.want == "" {
				check(t, err)
				m, err := read(ref(path, c.name), archive.Options{})
				check(t, err)
				if m.Descriptor.Digest != b.Root().Digest {
					t.Error("the old image is still there")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, old) {
				t.Error("the old file is another now")
			}
		})
	}
}

// TestSinkMeanwhile lets somebody else make the file before the archive is whole.
func TestSinkMeanwhile(t *testing.T) {
	b := sample(t, "x", ocitest.Gzip)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	s, err := archive.Create(context.Background(), ref(path, ""))
	check(t, err)
	defer s.Close()
	check(t, os.WriteFile(path, []byte("precious"), 0o644))
	for _, blob := range b.Blobs[:2] {
		check(t, s.PutBlob(context.Background(), blob.Descriptor, bytes.NewReader(blob.Data)))
	}
	if err := s.PutManifest(context.Background(), b.Blobs[2].Data, b.Blobs[2].Descriptor); err == nil || !strings.Contains(err.Error(), "somebody else has written") {
		t.Errorf("got %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != "precious" {
		t.Errorf("got %q, %v", now, err)
	}
	noTemporaries(t, dir, "a.tar")
}

// TestSinkConcurrent puts blobs, and one of them several times, at once.
func TestSinkConcurrent(t *testing.T) {
	layers := make([][]byte, 8)
	for i := range layers {
		layers[i] = ocitest.Tar(ocitest.File{Name: "f", Data: strings.Repeat(string(rune('a'+i)), 1000*i)})
	}
	b, err := ocitest.Image{Layers: layers, Platform: amd64}.Build()
	check(t, err)
	path := filepath.Join(t.TempDir(), "a.tar")
	s, err := archive.Create(context.Background(), ref(path, ""))
	check(t, err)
	var wg sync.WaitGroup
	last := len(b.Blobs) - 1
	for range 3 {
		for _, blob := range b.Blobs[:last] {
			wg.Go(func() {
				if err := s.PutBlob(context.Background(), blob.Descriptor, bytes.NewReader(blob.Data)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	has, err := s.HasBlob(context.Background(), b.Blobs[0].Descriptor)
	check(t, err)
	if has2, _ := s.HasBlob(context.Background(), ocispec.Descriptor{Digest: b.Blobs[0].Descriptor.Digest}); !has || has2 {
		t.Errorf("has %v, of another size %v", has, has2)
	}
	check(t, s.PutManifest(context.Background(), b.Blobs[last].Data, b.Blobs[last].Descriptor), s.Close())
	_, err = read(ref(path, ""), archive.Options{})
	check(t, err)
}

// TestSinkSweeps finds what a killed process may leave where the file system has no unnamed files.
func TestSinkSweeps(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, ".flatroot-LEFT"), []byte("half"), 0o600))
	check(t, push(t, filepath.Join(dir, "a.tar"), "", sample(t, "x", ocitest.Gzip)))
	noTemporaries(t, dir, "a.tar")
}

func TestSinkReference(t *testing.T) {
	for _, r := range []oci.Reference{ref("a.tar", "@0"), {Transport: oci.OCIArchive, Path: "a.tar", Digest: "sha256:x"}} {
		if _, err := archive.Create(context.Background(), r); err == nil || !strings.Contains(err.Error(), "can't be written to a digest or a place") {
			t.Errorf("%s: %v", r, err)
		}
	}
}
