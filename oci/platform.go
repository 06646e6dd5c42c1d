package oci

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Platform is what an image runs on, in the words that Go and the image
// specification share.
type Platform struct {
	OS           string
	Architecture string
	Variant      string // such as "v7" of arm; empty: the architecture's usual one
}

// String returns OS/ARCH or OS/ARCH/VARIANT, and "" of the zero Platform.
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	switch {
	case p == Platform{}:
		return ""
	case p.Variant != "":
		return s + "/" + p.Variant
	}
	return s
}

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT. The names that uname and
// Debian have for architectures are understood and replaced.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, badPlatformPart) {
		return Platform{}, fmt.Errorf("platform %s: want OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64", quote(s))
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

// badPlatformPart tells whether one part of a platform can't be one.
func badPlatformPart(s string) bool {
	return s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
}

// normal replaces other names of an architecture, and drops a variant that is
// what its architecture means without one.
func (p Platform) normal() Platform {
	p.OS = strings.ToLower(p.OS)
	p.Architecture = strings.ToLower(p.Architecture)
	p.Variant = strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Variant == "v"+strconv.Itoa(usualLevel(p.Architecture)) {
		p.Variant = ""
	}
	return p
}

// usualLevel returns the number N of the variant vN that an architecture
// means when none is given; 0 where variants aren't numbered.
func usualLevel(arch string) int {
	switch arch {
	case "amd64":
		return 1
	case "arm":
		return 7
	case "arm64":
		return 8
	}
	return 0
}

// level returns the number N of a normalised platform's variant vN, and false
// where variants can't be ordered.
func (p Platform) level() (int, bool) {
	usual := usualLevel(p.Architecture)
	if usual == 0 {
		return 0, false
	}
	if p.Variant == "" {
		return usual, true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
	return n, err == nil && n > 0 && n < 100
}

// Ranks of Match: numbered variants come between a missing and an exact one.
const (
	rankMissing = 1
	rankExact   = 1000
)

// Match tells how well an image for platform have runs on p: 0 not at all,
// and otherwise the more the better. The same variant is best; then, where
// variants are numbered, the highest one below p's, since processors of arm,
// arm64 and amd64 run what was built for their ancestors; then no variant.
func (p Platform) Match(have Platform) int {
	missing := have.Variant == ""
	p, have = p.normal(), have.normal()
	switch {
	case p.OS != have.OS || p.Architecture != have.Architecture:
		return 0
	case p.Variant == have.Variant:
		return rankExact
	}
	if missing {
		return rankMissing
	}
	want, ok := p.level()
	got, ok2 := have.level()
	if !ok || !ok2 || got > want {
		return 0
	}
	return rankMissing + got
}

// DefaultPlatform returns the platform of this machine.
func DefaultPlatform() Platform {
	var u unix.Utsname
	machine := ""
	if err := unix.Uname(&u); err == nil {
		machine = unix.ByteSliceToString(u.Machine[:])
	}
	return Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: armVariant(runtime.GOARCH, machine)}.normal()
}

// armVariant returns the variant of a 32-bit arm machine from the name that
// uname(2) has for it: armv6l, armv7l, or armv8l and aarch64 where a 32-bit
// program runs under a 64-bit kernel. Other architectures have none.
func armVariant(arch, machine string) string {
	if arch != "arm" {
		return ""
	}
	if machine == "aarch64" {
		return "v8"
	}
	if rest, ok := strings.CutPrefix(machine, "armv"); ok && rest != "" && rest[0] >= '5' && rest[0] <= '8' {
		return "v" + rest[:1]
	}
	return ""
}

// maxListed bounds how many of somebody else's entries an error lists.
const maxListed = 20

// PlatformError says that there is no image for a platform.
type PlatformError struct {
	Want Platform
	Have []Platform // what there is, without the unknown ones
}

func (e *PlatformError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no image for %s", e.Want)
	}
	have := make([]string, 0, len(e.Have))
	for _, p := range e.Have {
		have = append(have, Printable(p.String(), maxQuoted))
	}
	slices.Sort(have)
	have = slices.Compact(have)
	more := ""
	if len(have) > maxListed {
		have, more = have[:maxListed], " and others"
	}
	return fmt.Sprintf("no image for %s; there is %s%s (choose with --platform)", e.Want, strings.Join(have, ", "), more)
}

// Select returns the manifest of an image index that is for a platform. One
// without a platform is taken only if it is the only one. Entries for the
// platform unknown/unknown, which is how builders mark attestations, are no
// images. Among equals the first one is taken. The error is *PlatformError.
func Select(manifests []ocispec.Descriptor, want Platform) (ocispec.Descriptor, error) {
	var images []ocispec.Descriptor
	for _, d := range manifests {
		if IsImage(d) {
			images = append(images, d)
		}
	}
	if len(images) == 1 && PlatformOf(images[0]) == (Platform{}) {
		return images[0], nil
	}
	best, rank, have := -1, 0, []Platform(nil)
	for i, d := range images {
		p := PlatformOf(d)
		if p == (Platform{}) {
			continue
		}
		have = append(have, p)
		if r := want.Match(p); r > rank {
			best, rank = i, r
		}
	}
	if best < 0 {
		return ocispec.Descriptor{}, &PlatformError{Want: want, Have: have}
	}
	return images[best], nil
}

// PlatformOf returns the platform that a descriptor claims.
func PlatformOf(d ocispec.Descriptor) Platform {
	if d.Platform == nil {
		return Platform{}
	}
	return Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}
}
