package layout_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

func TestSource(t *testing.T) {
	ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
		dir := t.TempDir()
		if err := b.WriteLayout(dir, "v1"); err != nil {
			t.Fatal(err)
		}
		return func(p oci.Platform) (oci.Source, error) {
			return layout.Open(oci.Reference{Transport: oci.OCI, Path: dir, Tag: "v1"}, layout.Options{Platform: p})
		}
	})
}

// write adds an image with one file to a layout.
func write(t *testing.T, dir, name, content string) ocispec.Descriptor {
	t.Helper()
	d, err := ocitest.Image{Layers: [][]byte{ocitest.Tar(ocitest.File{Name: "f", Data: content})}, Platform: amd64}.WriteLayout(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// image opens a layout and loads an image.
func image(dir, ref string, p oci.Platform) (*oci.Image, error) {
	r, err := oci.ParseReference("oci:" + dir + ref)
	if err != nil {
		return nil, err
	}
	src, err := layout.Open(r, layout.Options{Platform: p})
	if err != nil {
		return nil, err
	}
	m, err := src.Image(context.Background())
	return m, errors.Join(err, src.Close())
}

func TestWhichImage(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "", "1")
	if m, err := image(dir, "", oci.Platform{}); err != nil || m.Descriptor.Digest != one.Digest {
		t.Errorf("only one: got %v, %v", m, err)
	}
	two := write(t, dir, "v2", "2")
	write(t, dir, "v3", "3")
	write(t, dir, "twice", "4")
	write(t, dir, "twice", "5")
	for ref, want := range map[string]string{
		":v2":                                two.Digest.String(),
		"@" + string(one.Digest):             one.Digest.String(),
		":v3@" + string(two.Digest):          two.Digest.String(),
		"":                                   "!has 5 images; choose by name, oci:DIR:NAME; there is twice, v2, v3",
		":v4":                                `!no image named "v4"; there is twice, v2, v3`,
		":twice":                             "!2 images have that name",
		"@sha256:" + strings.Repeat("0", 64): "!no such file",
	} {
		m, err := image(dir, ref, oci.Platform{})
		if part, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%q: got %v, want %q in it", ref, err, part)
			}
		} else if err != nil || m.Descriptor.Digest.String() != want {
			t.Errorf("%q: got %v, %v; want %s", ref, m, err, want)
		}
	}
}

func TestPlatformsWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	arm := oci.Platform{OS: "linux", Architecture: "arm64"}
	for _, p := range []oci.Platform{arm, amd64} {
		b, err := ocitest.Sample(p).Build()
		if err != nil {
			t.Fatal(err)
		}
		root := &b.Blobs[len(b.Blobs)-1].Descriptor
		root.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture}
		if err := b.WriteLayout(dir, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"", ":v1"} {
		if m, err := image(dir, ref, arm); err != nil || m.Platform != arm {
			t.Errorf("%q: got %v, %v", ref, m, err)
		}
	}
}

// A manifest that only an image index lists is found by its digest.
func TestDigestBelowIndex(t *testing.T) {
	dir := t.TempDir()
	b, err := ocitest.Index{Images: []ocitest.Image{ocitest.Sample(amd64)}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.WriteLayout(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	want := b.Find("manifest").Descriptor.Digest
	if m, err := image(dir, "@"+want.String(), oci.Platform{}); err != nil || m.Descriptor.Digest != want || m.IndexDigest != "" {
		t.Errorf("got %+v, %v", m, err)
	}
}

// overwrite replaces a file of a layout.
func overwrite(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace removes a file of a layout and lets make put something else there.
func replace(t *testing.T, dir, name string, make func(path string) error) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := make(path); err != nil {
		t.Fatal(err)
	}
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o644) }
func mkdir(path string) error  { return os.Mkdir(path, 0o755) }

func TestBadLayouts(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir, manifest string)
		want   string
	}{
		{"no oci-layout", func(t *testing.T, dir, _ string) { replace(t, dir, "oci-layout", func(string) error { return nil }) }, "not an OCI image layout"},
		{"oci-layout no JSON", func(t *testing.T, dir, _ string) { overwrite(t, dir, "oci-layout", "1.0.0") }, "not an OCI image layout"},
		{"version", func(t *testing.T, dir, _ string) { overwrite(t, dir, "oci-layout", `{"imageLayoutVersion":"2.0.0"}`) }, `version is "2.0.0"`},
		{"oci-layout too big", func(t *testing.T, dir, _ string) { overwrite(t, dir, "oci-layout", strings.Repeat(" ", 5000)) }, "more than 4096"},
		{"oci-layout a pipe", func(t *testing.T, dir, _ string) { replace(t, dir, "oci-layout", mkfifo) }, "is a pipe"},
		{"no index.json", func(t *testing.T, dir, _ string) { replace(t, dir, "index.json", func(string) error { return nil }) }, "no such file"},
		{"index.json no JSON", func(t *testing.T, dir, _ string) { overwrite(t, dir, "index.json", "<html>") }, `begins "<html>"`},
		{"index.json a manifest", func(t *testing.T, dir, m string) { overwrite(t, dir, "index.json", m) }, "does not fit the fields"},
		{"index.json a directory", func(t *testing.T, dir, _ string) { replace(t, dir, "index.json", mkdir) }, "is a directory"},
		{"index.json too big", func(t *testing.T, dir, _ string) {
			replace(t, dir, "index.json", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, 1<<40)) })
		}, "more than 4194304"},
		{"index.json a link", func(t *testing.T, dir, _ string) {
			replace(t, dir, "index.json", func(p string) error { return os.Symlink("/etc/passwd", p) })
		}, "is a symbolic link"},
		{"path for a digest", func(t *testing.T, dir, _ string) {
			overwrite(t, dir, "index.json", `{"schemaVersion":2,"manifests":[{"mediaType":"`+ocispec.MediaTypeImageManifest+`","digest":"sha256:../../../../etc/passwd","size":1}]}`)
		}, "want 64"},
		{"negative size", func(t *testing.T, dir, _ string) {
			overwrite(t, dir, "index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":-1}]}`)
		}, "negative"},
		{"manifest claims 1 TiB", func(t *testing.T, dir, _ string) {
			overwrite(t, dir, "index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1099511627776}]}`)
		}, "more than 4194304"},
		{"no blobs", func(t *testing.T, dir, _ string) {
			if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"blobs outside", func(t *testing.T, dir, _ string) {
			out := t.TempDir()
			if err := errors.Join(os.Rename(filepath.Join(dir, "blobs"), out+"/blobs"), os.Symlink(out+"/blobs", filepath.Join(dir, "blobs"))); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := ocitest.Sample(amd64).Build()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.WriteLayout(dir, "v1"); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir, string(b.Find("manifest").Data))
			if _, err := image(dir, "", oci.Platform{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestBadBlobs(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(path string) error
		want   string
	}{
		"truncated": {func(p string) error { return os.WriteFile(p, []byte("x"), 0o644) }, "has 1 bytes, its descriptor says"},
		"a link":    {func(p string) error { return os.Symlink("/etc/passwd", p) }, "is a symbolic link"},
		"a pipe":    {mkfifo, "is a pipe"},
		"missing":   {func(string) error { return nil }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := ocitest.Sample(amd64).Build()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.WriteLayout(dir, "v1"); err != nil {
				t.Fatal(err)
			}
			layer := b.Find("layer").Descriptor
			replace(t, dir, "blobs/sha256/"+layer.Digest.Encoded(), c.damage)
			src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: dir}, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = src.OpenBlob(context.Background(), layer); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if err := src.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOrigin opens a layout by a relative path: what is remembered of it holds in any directory.
func TestOrigin(t *testing.T) {
	at := "@" + digest.FromString("some").String()
	dir := t.TempDir()
	write(t, dir, "v1", "1")
	t.Chdir(filepath.Dir(dir))
	for ref, want := range map[string]string{
		"oci:" + filepath.Base(dir) + ":v1":  "oci:" + dir + ":v1",
		"oci:./" + filepath.Base(dir) + "//": "oci:" + dir,
		"oci:" + dir + at:                    "oci:" + dir + at,
	} {
		r, err := oci.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		src, err := layout.Open(r, layout.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if got := src.Origin(); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}
