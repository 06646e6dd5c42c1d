package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestChainIDs(t *testing.T) {
	a, b, c := DiffID(digest.FromString("a")), DiffID(digest.FromString("b")), DiffID(digest.FromString("c"))
	got := ChainIDs([]DiffID{a, b, c})
	ab := digest.FromString(string(a) + " " + string(b))
	want := []ChainID{ChainID(a), ChainID(ab), ChainID(digest.FromString(string(ab) + " " + string(c)))}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := ChainIDs(nil); len(got) != 0 {
		t.Errorf("no layers: got %v", got)
	}
}

func TestCheckDigest(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for d, ok := range map[digest.Digest]bool{
		digest.Digest("sha256:" + hex): true,
		"":                             false,
		digest.Digest(hex):             false,
		digest.Digest("sha256:" + strings.ToUpper(hex)): false,
		digest.Digest("sha256:" + hex[1:]):              false,
		digest.Digest("sha256:" + hex + "0"):            false,
		digest.Digest("sha512:" + hex + hex):            false,
		digest.Digest("sha256:../" + hex[3:]):           false,
		digest.Digest("sha256:" + hex[1:] + "\x00"):     false,
		"sha256:": false,
	} {
		if err := CheckDigest(d); (err == nil) != ok {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"a\nb\x1b[31m\tc":            "a b [31m c",
		"\u202egnp.exe\xff end \x00": "gnp.exe end",
		strings.Repeat("x", 100):     strings.Repeat("x", 40) + "…",
		"tête " + "日本":               "tête 日本",
	} {
		if got := Printable(in, 40); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestMediaTypes(t *testing.T) {
	if got := BareMediaType(" Application/JSON ; charset=utf-8"); got != "application/json" {
		t.Errorf("got %q", got)
	}
	for _, mt := range ManifestMediaTypes() {
		if IsManifest(mt) == IsIndex(mt) {
			t.Errorf("%s is both or neither", mt)
		}
	}
	for mt, want := range map[string]bool{
		ocispec.MediaTypeImageLayerZstd:                                true,
		MediaTypeDockerLayerGzip:                                       true,
		dockerForeignLayerGzip:                                         true,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": true,
		ocispec.MediaTypeImageLayerGzip + "+encrypted":                 false,
		"":                             false,
		"application/vnd.in-toto+json": false,
	} {
		if IsLayer(mt) != want {
			t.Errorf("IsLayer(%q) is %v", mt, !want)
		}
	}
}

// TestOCILayer: every layer of Docker's has a type of OCI's that is read, and says the same of its compression.
func TestOCILayer(t *testing.T) {
	for mt, want := range map[string]string{
		MediaTypeDockerLayer:            ocispec.MediaTypeImageLayer,
		MediaTypeDockerLayerGzip:        ocispec.MediaTypeImageLayerGzip,
		MediaTypeDockerLayerZstd:        ocispec.MediaTypeImageLayerZstd,
		dockerForeignLayer:              foreignLayer,
		dockerForeignLayerGzip:          foreignLayer + "+gzip",
		ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
		"application/odd":               "application/odd",
	} {
		if got := OCILayer(mt); got != want || IsLayer(got) != IsLayer(mt) {
			t.Errorf("%s becomes %s", mt, got)
		}
	}
}
