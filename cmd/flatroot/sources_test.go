package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// TestSourcesAgree reads one image from every kind of file: the flattened image has one digest.
func TestSourcesAgree(t *testing.T) {
	m := ocitest.Sample(oci.DefaultPlatform())
	m.Layers = append(m.Layers, ocitest.Tar(ocitest.File{Name: "usr/.wh.a"}, ocitest.File{Name: "usr/c", Link: "b"}))
	digests := map[string]string{}
	for how, c := range map[string]ocitest.Compression{"gzip": ocitest.Gzip, "zstd": ocitest.Zstd, "none": ocitest.None} {
		m.Compression = []ocitest.Compression{c}
		b, err := m.Build()
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range writeAll(t, b) {
			src, _, err := (&console{}).openSourceTold(ref, oci.Platform{}, noMeter{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := index.Digest(context.Background(), src, fsverity.SHA256, reading{}.options())
			if err := errors.Join(err, src.Close()); err != nil {
				t.Fatalf("%s: %v", ref, err)
			}
			transport, _, _ := strings.Cut(ref, ":")
			digests[how+" "+transport] = r.Image.String()
		}
	}
	for name, d := range digests {
		if d != digests["gzip oci"] {
			t.Errorf("%s: %s, want %s", name, d, digests["gzip oci"])
		}
	}
	if len(digests) != 3*4 {
		t.Errorf("read %d sources", len(digests))
	}
}

// writeAll writes an image in every form, and returns references of it.
func writeAll(t *testing.T, b *ocitest.Built) []string {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	archive, err := b.OCIArchive("v1")
	docker, derr := ocitest.DockerArchive(ocitest.Archived{Built: b, Names: []string{"web:v1"}})
	err = errors.Join(err, derr,
		b.WriteLayout(in("layout"), "v1"),
		os.WriteFile(in("oci.tar"), ocitest.Tar(archive...), 0o644),
		os.WriteFile(in("docker.tar"), ocitest.Tar(docker...), 0o644),
		os.Mkdir(in("dir"), 0o755), b.WriteDir(in("dir")),
	)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"oci:" + in("layout") + ":v1", "oci-archive:" + in("oci.tar") + ":v1", "docker-archive:" + in("docker.tar") + ":web:v1", "dir:" + in("dir")}
}
