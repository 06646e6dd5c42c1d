package oci

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64":    "linux/amd64",
		"Linux/x86_64":   "linux/amd64",
		"linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3",
		"linux/aarch64":  "linux/arm64",
		"linux/arm64/v8": "linux/arm64",
		"linux/arm":      "linux/arm",
		"linux/arm/v7":   "linux/arm",
		"linux/armel":    "linux/arm/v6",
		"linux/armhf":    "linux/arm",
		"linux/i386":     "linux/386",
		"linux/riscv64":  "linux/riscv64",
		"linux":          "",
		"":               "",
		"linux/":         "",
		"/amd64":         "",
		"linux/arm/v7/x": "",
		"linux/arm/":     "",
		"linux/a b":      "",
		"linux/a\x00":    "",
	} {
		p, err := ParsePlatform(in)
		if got := p.String(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestArmVariant(t *testing.T) {
	for _, c := range []struct{ arch, machine, want string }{
		{"arm", "armv7l", "v7"}, {"arm", "armv6l", "v6"}, {"arm", "armv5tel", "v5"},
		{"arm", "armv8l", "v8"}, {"arm", "aarch64", "v8"}, {"arm", "strange", ""}, {"arm", "armv", ""},
		{"amd64", "x86_64", ""}, {"arm64", "aarch64", ""},
	} {
		if got := armVariant(c.arch, c.machine); got != c.want {
			t.Errorf("%s on %s: got %q, want %q", c.arch, c.machine, got, c.want)
		}
	}
	if p := DefaultPlatform(); p.OS != "linux" || p.Architecture != runtime.GOARCH {
		t.Errorf("default platform is %s", p)
	}
}

// index makes an image index's entries: "" is one without a platform. The
// number of an entry is its size.
func index(platforms ...string) []ocispec.Descriptor {
	descs := make([]ocispec.Descriptor, len(platforms))
	for i, s := range platforms {
		descs[i].Size = int64(i)
		if s == "" {
			continue
		}
		parts := append(strings.Split(s, "/"), "")
		descs[i].Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	return descs
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		want  string
		index []string
		entry int // -1: PlatformError
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64"}, 1},
		{"linux/amd64", []string{"windows/amd64", "linux/amd64", "linux/amd64"}, 1},
		{"linux/amd64", []string{"linux/amd64/v3", "linux/amd64/v1"}, 1},
		{"linux/amd64", []string{"linux/amd64/v2"}, -1},
		{"linux/amd64/v3", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, 1},
		{"linux/arm/v6", []string{"linux/arm/v7", "linux/arm/v6", "linux/arm"}, 1},
		{"linux/arm/v6", []string{"linux/arm/v7", "linux/arm"}, 1},
		{"linux/arm/v7", []string{"linux/arm/v5", "linux/arm/v6", "linux/arm64"}, 1},
		{"linux/arm/v7", []string{"linux/arm/v6", "linux/arm"}, 1},
		{"linux/arm/v5", []string{"linux/arm/v6", "linux/arm/v7"}, -1},
		{"linux/arm64", []string{"linux/arm/v7", "linux/arm64/v8"}, 1},
		{"linux/arm64", []string{"linux/arm64/v9"}, -1},
		{"linux/ppc64le/power9", []string{"linux/ppc64le/power10", "linux/ppc64le"}, 1},
		{"linux/riscv64", []string{"linux/amd64"}, -1},
		{"linux/amd64", []string{""}, 0},
		{"linux/amd64", []string{"", ""}, -1},
		{"linux/amd64", []string{"", "linux/arm64"}, -1},
		{"linux/amd64", []string{"", "linux/amd64"}, 1},
		{"linux/amd64", []string{"unknown/unknown", ""}, 1},
		{"linux/amd64", []string{"unknown/unknown"}, -1},
		{"linux/amd64", nil, -1},
	} {
		want, err := ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Select(index(c.index...), want)
		var pe *PlatformError
		switch {
		case c.entry < 0 && !errors.As(err, &pe):
			t.Errorf("%s of %q: got entry %d, %v; want a PlatformError", c.want, c.index, d.Size, err)
		case c.entry >= 0 && (err != nil || d.Size != int64(c.entry)):
			t.Errorf("%s of %q: got entry %d, %v; want %d", c.want, c.index, d.Size, err, c.entry)
		}
	}
}

func TestPlatformErrorText(t *testing.T) {
	_, err := Select(index("linux/s390x", "linux/arm/v6", "linux/arm/v6", "evil\n/arch"), Platform{OS: "linux", Architecture: "amd64"})
	want := "no image for linux/amd64; there is evil /arch, linux/arm/v6, linux/s390x (choose with --platform)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	many := make([]string, 10000)
	for i := range many {
		many[i] = "linux/a" + strings.Repeat("x", i%50)
	}
	if _, err = Select(index(many...), Platform{OS: "linux", Architecture: "amd64"}); err == nil || len(err.Error()) > 2000 {
		t.Errorf("error is not bounded: %d bytes", len(err.Error()))
	}
}
