package dir_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/dir"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/sign/signtest"
)

// sigstore is a signature as skopeo writes it into a directory.
func sigstore(t *testing.T, s signtest.Signature) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"mimeType": signtest.PayloadType, "payload": s.Payload,
		"annotations": map[string]string{signtest.Annotation: base64.StdEncoding.EncodeToString(s.Signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return "\x00sigstore-json\n" + string(b)
}

// TestAttachments finds the signatures of an image index and of a manifest that it lists, and tells of those that are of no use.
func TestAttachments(t *testing.T) {
	b, err := ocitest.Index{Images: []ocitest.Image{ocitest.Sample(amd64)}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	root, manifest := b.Root(), b.Find("manifest").Descriptor
	s := signtest.New("P-256").Of(root.Digest, "registry.example.com/app")
	good := sigstore(t, s)
	prefix := manifest.Digest.Encoded() + ".signature-"
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprint("signature-", i+1)] = good
	}
	const json = "\x00sigstore-json\n"
	for name, c := range map[string]struct {
		files map[string]string
		of    ocispec.Descriptor
		found int
		why   []string // one for each error
		kind  string
	}{
		"none":                 {of: root},
		"of the index":         {files: map[string]string{"signature-1": good, "signature-2": good, prefix + "1": good, "signature-4": good}, of: root, found: 2},
		"of the manifest":      {files: map[string]string{"signature-1": good, "signature-2": good, prefix + "1": good}, of: manifest, found: 1},
		"another kind":         {files: map[string]string{"signature-1": good}, of: root, kind: "sbom"},
		"no digest":            {files: map[string]string{"signature-1": good}, of: ocispec.Descriptor{Digest: "sha256:../x"}, why: []string{"digest"}},
		"GPG's before":         {files: map[string]string{"signature-1": "\x90\x0d\x03", "signature-2": good}, of: root, found: 1, why: []string{"signature-1: is not in sigstore's form"}},
		"GPG's with a name":    {files: map[string]string{"signature-1": "\x00simple-signing\nx"}, of: root, why: []string{"such as GPG's"}},
		"empty":                {files: map[string]string{"signature-1": ""}, of: root, why: []string{"is not in sigstore's form"}},
		"no JSON":              {files: map[string]string{"signature-1": json + "<html>"}, of: root, why: []string{"invalid character"}},
		"a list":               {files: map[string]string{"signature-1": json + "[]"}, of: root, why: []string{"cannot unmarshal"}},
		"a member twice":       {files: map[string]string{"signature-1": good[:len(good)-1] + `,"payload":"eA=="}`}, of: root, why: []string{"stands twice"}},
		"a member in capitals": {files: map[string]string{"signature-1": strings.Replace(good, "payload", "Payload", 1)}, of: root, why: []string{"payload is missing"}},
		"no base64":            {files: map[string]string{"signature-1": strings.Replace(good, `"payload":"`, `"payload":"!`, 1)}, of: root, why: []string{"payload: illegal base64"}},
		"one more member":      {files: map[string]string{"signature-1": good[:len(good)-1] + `,"more":[1]}`}, of: root, found: 1},
		"large":                {files: map[string]string{"signature-1": good + strings.Repeat(" ", 256<<10)}, of: root, why: []string{"more than 262144"}},
		"many":                 {files: many, of: root, found: 32, why: []string{"more attachments than are looked at: 32"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := b.WriteDir(path); err != nil {
				t.Fatal(err)
			}
			for name, data := range c.files {
				if err := os.WriteFile(path+"/"+name, []byte(data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			src, err := dir.Open(oci.Reference{Transport: oci.Dir, Path: path}, dir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			kind := c.kind
			if kind == "" {
				kind = "sig"
			}
			found, errs := 0, []error{}
			for a, err := range src.Attachments(context.Background(), c.of.Digest, oci.AttachmentKind{Suffix: kind}) {
				if err != nil {
					errs = append(errs, err)
					continue
				}
				found++
				l := a.Document.Layers[0]
				if string(l.Data) != string(s.Payload) || oci.Verify("payload", l.Data, l) != nil || l.MediaType != signtest.PayloadType || l.Annotations[signtest.Annotation] == "" {
					t.Errorf("got %+v", l)
				}
			}
			if found != c.found || len(errs) != len(c.why) {
				t.Errorf("found %d, %v", found, errs)
			}
			for i, why := range c.why {
				if text := errors.Join(errs[min(i, len(errs)):]...); text == nil || !strings.Contains(text.Error(), why) {
					t.Errorf("got %v, want %q", errs, why)
				}
			}
		})
	}
}

// TestSignatureIsALink follows none.
func TestSignatureIsALink(t *testing.T) {
	b, err := ocitest.Sample(amd64).Build()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	if err := errors.Join(b.WriteDir(path), os.Symlink("/etc/passwd", path+"/signature-1")); err != nil {
		t.Fatal(err)
	}
	src, err := dir.Open(oci.Reference{Transport: oci.Dir, Path: path}, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	n := 0
	for a, err := range src.Attachments(context.Background(), b.Root().Digest, oci.AttachmentKind{Suffix: "sig"}) {
		if n++; a != nil || err == nil || !strings.Contains(err.Error(), "is a symbolic link") || n > 1 {
			t.Errorf("got %v, %v", a, err)
		}
	}
}
