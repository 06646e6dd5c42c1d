package layout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

var signatures = oci.AttachmentKind{Suffix: "sig", Types: []string{signtest.Artifact}, Annotation: signtest.SavedKind}

// editEntries changes the entries of a layout's index.
func editEntries(t *testing.T, dir string, edit func(*ocispec.Index)) {
	t.Helper()
	file := filepath.Join(dir, ocispec.ImageIndexFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	edit(&index)
	if raw, err = json.Marshal(index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestAttachments finds signatures by name, by cosign save's annotation and by artifact type, and does not take them for
// images.
func TestAttachments(t *testing.T) {
	dir := t.TempDir()
	image, err := ocitest.Sample(oci.Platform{}).WriteLayout(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	signer := signtest.New("P-256")
	var want []string
	for _, name := range []string{signtest.Tag(image.Digest), "registry.example.com/app:" + signtest.Tag(image.Digest), "", "x", "y"} {
		b := signtest.Image(signer.Of(image.Digest, name))
		if err := b.WriteLayout(dir, name); err != nil {
			t.Fatal(err)
		}
		want = append(want, b.Root().Digest.String())
	}
	editEntries(t, dir, func(x *ocispec.Index) {
		x.Manifests[3].Annotations = map[string]string{signtest.Kind: signtest.SavedKind}
		x.Manifests[4].ArtifactType = signtest.Artifact
	})
	src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: dir}, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var found []string
	for a, err := range src.Attachments(context.Background(), image.Digest, signatures) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, a.Descriptor.Digest.String())
	}
	if fmt.Sprint(found) != fmt.Sprint(want[:4]) {
		t.Errorf("found %q, want %q", found, want[:4])
	}
	// Two entries, x and y, have no sign of what they are.
	if _, err := src.Resolve(context.Background()); err == nil || !strings.Contains(err.Error(), "has 3 images") {
		t.Errorf("got %v", err)
	}
	editEntries(t, dir, func(x *ocispec.Index) { x.Manifests = x.Manifests[:4] })
	if d, err := src.Resolve(context.Background()); err != nil || d.Digest != image.Digest {
		t.Errorf("got %v, %v", d, err)
	}
}

// TestBadAttachments has layouts whose attachments are not what their entries say.
func TestBadAttachments(t *testing.T) {
	for _, c := range []struct {
		why    string
		damage func(t *testing.T, dir string, d *ocispec.Descriptor)
	}{
		{"descriptor says", func(t *testing.T, dir string, d *ocispec.Descriptor) { d.Size++ }},
		{"more than", func(t *testing.T, dir string, d *ocispec.Descriptor) { d.Size = 1 << 40 }},
		{"no such file", func(t *testing.T, dir string, d *ocispec.Descriptor) {
			d.Digest = "sha256:" + d.Digest[7:9] + d.Digest[7:69]
		}},
		{"has digest", func(t *testing.T, dir string, d *ocispec.Descriptor) {
			name := filepath.Join(dir, "blobs/sha256", d.Digest.Encoded())
			if err := os.WriteFile(name, []byte(strings.Repeat(" ", int(d.Size))), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.why, func(t *testing.T) {
			dir := t.TempDir()
			image, err := ocitest.Sample(oci.Platform{}).WriteLayout(dir, "v1")
			if err != nil {
				t.Fatal(err)
			}
			if err := signtest.Image(signtest.New("P-256").Of(image.Digest, "")).WriteLayout(dir, signtest.Tag(image.Digest)); err != nil {
				t.Fatal(err)
			}
			editEntries(t, dir, func(x *ocispec.Index) { c.damage(t, dir, &x.Manifests[1]) })
			src, err := layout.Open(oci.Reference{Transport: oci.OCI, Path: dir, Tag: "v1"}, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			var errs []error
			for a, err := range src.Attachments(context.Background(), image.Digest, signatures) {
				if err == nil {
					t.Errorf("got %v", a)
				}
				errs = append(errs, err)
			}
			if err := errors.Join(errs...); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v", err)
			}
		})
	}
}
