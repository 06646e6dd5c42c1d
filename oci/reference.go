package oci

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Transport is the part of a reference before the first colon: it tells where
// the image is and who can read it.
type Transport string

// The transports that container tools share.
const (
	Docker            Transport = "docker" // a registry
	OCI               Transport = "oci"    // a directory in OCI image layout
	OCIArchive        Transport = "oci-archive"
	DockerArchive     Transport = "docker-archive"
	ContainersStorage Transport = "containers-storage"
	Dir               Transport = "dir"
)

// transports lists all transports, for messages and tests.
func transports() []Transport {
	return []Transport{Docker, OCI, OCIArchive, DockerArchive, ContainersStorage, Dir}
}

// Reference names one image somewhere.
type Reference struct {
	Transport Transport
	// Path is the directory or file of the transports that have one, and all
	// that follows the colon for containers-storage.
	Path string
	// Host is a registry's name, with its port if one was given, and
	// Repository the path of the image there.
	Host, Repository string
	// Tag is the tag in a registry, or the name inside a layout or archive;
	// empty there means the only image, and @N the one at place N (Index).
	Tag string
	// Digest is the manifest's or image index's, and decides when Tag is
	// given too.
	Digest digest.Digest
}

// ErrNoReference is what ParseReference wraps when a text has no transport
// and doesn't look like a registry reference either: it may be a path or a
// name in the store.
var ErrNoReference = errors.New("no image reference")

// DefaultTag is the tag of a registry reference that has neither tag nor
// digest.
const DefaultTag = "latest"

// dockerHub is the registry of docker:// references that name none, and
// library/ the place there of repositories that have no slash.
const dockerHub = "docker.io"

// maxReference bounds a reference, in bytes: a path of PATH_MAX and a name of
// the 255 bytes that registries allow fit.
const maxReference = 4096 + 512

// The parts of a registry reference, after the grammar that the distribution
// specification shares with Docker. A port has no leading zero and at most
// five digits.
var (
	hostRE       = pattern(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?$`)
	repositoryRE = pattern(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE        = pattern(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	layoutNameRE = pattern(`^[A-Za-z0-9_][A-Za-z0-9_.\-+:@/]{0,511}$`)
	placeRE      = pattern(`^@(?:0|[1-9][0-9]{0,8})$`)
)

// pattern compiles a regular expression when it is first used: those above take a millisecond, more than a program needs
// that has no references to read.
func pattern(s string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(s) })
}

// maxRepository is the length in bytes that registries allow a repository's
// name, host included.
const maxRepository = 255

// ParseReference reads TRANSPORT:REST. Without a transport it is a registry
// reference if there is a slash and what is before it has a dot, a colon or
// is localhost; everything else is ErrNoReference.
func ParseReference(s string) (Reference, error) {
	r, err := parseReference(s)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %s: %w", quote(s), err)
	}
	return r, nil
}

func parseReference(s string) (Reference, error) {
	if len(s) > maxReference {
		return Reference{}, fmt.Errorf("longer than %d bytes", maxReference)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Reference{}, errors.New("has control characters")
	}
	head, rest, ok := strings.Cut(s, ":")
	if !ok {
		return parseBare(s)
	}
	switch t := Transport(head); t {
	case Docker:
		if rest, ok = strings.CutPrefix(rest, "//"); !ok {
			return Reference{}, errors.New("want docker://HOST/REPOSITORY[:TAG]")
		}
		return parseRegistry(addHub(rest))
	case OCI, OCIArchive, DockerArchive:
		return parsePath(t, rest)
	case ContainersStorage, Dir:
		return parseWhole(t, rest)
	}
	return parseBare(s)
}

// parseBare reads a reference that has none of our transports.
func parseBare(s string) (Reference, error) {
	first, _, slash := strings.Cut(s, "/")
	switch scheme, _, url := strings.Cut(s, "://"); {
	case strings.HasPrefix(s, ".") || strings.HasPrefix(s, "/"):
		return Reference{}, fmt.Errorf("%w: it is a path; of an image write %s:DIR or %s:FILE", ErrNoReference, OCI, OCIArchive)
	case url:
		return Reference{}, fmt.Errorf("there is no transport %s: want one of %s", quote(scheme), transportList())
	case slash && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return parseRegistry(s)
	}
	return Reference{}, fmt.Errorf("%w: it has no transport, such as docker://, and does not begin with a registry's name", ErrNoReference)
}

// transportList lists the transports as one writes them.
func transportList() string {
	var b strings.Builder
	for i, t := range transports() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.prefix())
	}
	return b.String()
}

// prefix returns what stands before the rest of a reference.
func (t Transport) prefix() string {
	if t == Docker {
		return "docker://"
	}
	return string(t) + ":"
}

// addHub completes what docker:// allows to leave out.
func addHub(s string) string {
	first, _, slash := strings.Cut(s, "/")
	switch {
	case !slash, !strings.ContainsAny(first, ".:") && first != "localhost":
		return dockerHub + "/" + s
	}
	return s
}

// parseRegistry reads HOST/REPOSITORY[:TAG][@DIGEST].
func parseRegistry(s string) (Reference, error) {
	host, rest, ok := strings.Cut(s, "/")
	r := Reference{Transport: Docker, Host: strings.ToLower(host)}
	if !ok || !hostRE().MatchString(host) {
		return Reference{}, fmt.Errorf("%s is no registry's name, HOST or HOST:PORT (there are the transports %s)", quote(host), transportList())
	}
	if r.Host == "index.docker.io" {
		r.Host = dockerHub
	}
	rest, err := r.cutDigest(rest)
	if err != nil {
		return Reference{}, err
	}
	// A tag has no slash, so the last colon decides.
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !tagRE().MatchString(r.Tag) {
			return Reference{}, fmt.Errorf("%s is no tag: up to 128 letters, digits, dots, dashes and underscores", quote(r.Tag))
		}
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = DefaultTag
	}
	if r.Host == dockerHub && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	if !repositoryRE().MatchString(rest) || len(r.Host)+1+len(rest) > maxRepository {
		return Reference{}, fmt.Errorf("%s is no repository: lower-case letters, digits, single separators and slashes, %d bytes at most", quote(rest), maxRepository)
	}
	r.Repository = rest
	return r, nil
}

// cutDigest takes @DIGEST off the end of s.
func (r *Reference) cutDigest(s string) (rest string, err error) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, nil
	}
	r.Digest = digest.Digest(s[i+1:])
	return s[:i], CheckDigest(r.Digest)
}

// parsePath reads PATH[:NAME], PATH:@INDEX or PATH@DIGEST. As in other tools
// the first colon ends the path, so that a name may have one.
func parsePath(t Transport, s string) (Reference, error) {
	r := Reference{Transport: t}
	if i := strings.LastIndex(s, "@sha256:"); i >= 0 {
		if t == DockerArchive {
			return Reference{}, fmt.Errorf("an image in a %s is chosen by name, or by place, :@0 being the first, not by digest", t)
		}
		rest, err := r.cutDigest(s)
		if err != nil {
			return Reference{}, err
		}
		s = rest
	}
	path, name, ok := strings.Cut(s, ":")
	if path == "" {
		return Reference{}, fmt.Errorf("the path is missing: want %sPATH[:NAME]", t.prefix())
	}
	if ok && !placeRE().MatchString(name) {
		if err := checkImageName(t, name); err != nil {
			return Reference{}, err
		}
	}
	r.Path, r.Tag = path, name
	return r, nil
}

// checkImageName refuses what can't be a name in a layout or archive.
func checkImageName(t Transport, name string) error {
	if t == DockerArchive {
		_, err := FullName(name)
		return err
	}
	if !layoutNameRE().MatchString(name) {
		return fmt.Errorf("%s is no name of an image: letters, digits and any of ._-+:@/", quote(name))
	}
	return nil
}

// FullName completes a name by which Docker knows an image, as docker:// does:
// HOST/REPOSITORY:TAG. Archives have names in both forms.
func FullName(name string) (string, error) {
	r, err := parseRegistry(addHub(name))
	switch {
	case err != nil:
		return "", err
	case r.Digest != "":
		return "", fmt.Errorf("%s has a digest: want a name, REPOSITORY[:TAG]", quote(name))
	}
	return r.Name(), nil
}

// Index returns the place of the image in its layout or archive, the first
// being 0, if the reference goes by place.
func (r Reference) Index() (int, bool) {
	if r.Transport == Docker || !placeRE().MatchString(r.Tag) {
		return 0, false
	}
	i, err := strconv.Atoi(r.Tag[1:])
	return i, err == nil
}

// parseWhole reads what only the transport itself can take apart.
func parseWhole(t Transport, s string) (Reference, error) {
	if s == "" {
		return Reference{}, fmt.Errorf("nothing follows %s", t.prefix())
	}
	return Reference{Transport: t, Path: s}, nil
}

// String returns the reference, transport included, in the one form that
// ParseReference reads back as the same.
func (r Reference) String() string {
	s := r.Transport.prefix() + r.Path
	if r.Transport == Docker {
		s += r.Host + "/" + r.Repository
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// CheckWritable refuses a reference that says which of several images is
// meant, but not how a new one would be called.
func (r Reference) CheckWritable() error {
	if _, place := r.Index(); place || r.Digest != "" {
		return errors.New("an image can't be written to a digest or a place: want a name, or none")
	}
	return nil
}

// Absolute returns the reference with its path, if it has one, made absolute.
func (r Reference) Absolute() Reference {
	switch r.Transport {
	case OCI, OCIArchive, DockerArchive, Dir:
		if path, err := filepath.Abs(r.Path); err == nil {
			r.Path = path
		}
	}
	return r
}

// Name returns the name that an image gets in the store when the user gives
// none: of a registry reference HOST/REPOSITORY:TAG (or @DIGEST), of the
// others the name inside if it is a full one, and else the file's or
// directory's, with the name inside or DefaultTag as tag.
func (r Reference) Name() string {
	switch {
	case r.Transport == Docker && r.Tag == "":
		return r.Host + "/" + r.Repository + "@" + string(r.Digest)
	case r.Transport == Docker:
		return r.Host + "/" + r.Repository + ":" + r.Tag
	case r.Transport == ContainersStorage:
		return storageName(r.Path)
	case r.Transport == DockerArchive && strings.Contains(r.Tag, "/"):
		return withTag(r.Tag)
	case strings.ContainsAny(r.Tag, ":/"):
		return plain(r.Tag)
	case strings.HasPrefix(r.Tag, "@"):
		return pathName(r.Path) + ":" + r.Tag[1:]
	case r.Transport == DockerArchive && r.Tag != "":
		return withTag(r.Tag)
	case r.Tag != "":
		return pathName(r.Path) + ":" + plain(r.Tag)
	}
	return pathName(r.Path) + ":" + DefaultTag
}

// shortID is how much of an image's ID tools show.
const shortID = 12

// storageName returns a containers-storage reference without the store that
// may stand before it in brackets and the image's ID that may stand after it,
// with a tag.
func storageName(s string) string {
	if strings.HasPrefix(s, "[") {
		if i := strings.IndexByte(s, ']'); i >= 0 {
			s = s[i+1:]
		}
	}
	if name, id, ok := strings.Cut(s, "@"); ok && !strings.Contains(id, ":") {
		s = cmp.Or(name, id[:min(len(id), shortID)])
	}
	return withTag(s)
}

// withTag makes a name of one that may have no tag.
func withTag(s string) string {
	s = plain(s)
	if strings.ContainsRune(s[strings.LastIndexByte(s, '/')+1:], ':') || strings.Contains(s, "@") {
		return s
	}
	return s + ":" + DefaultTag
}

// pathName makes a name of a path's last part, without an archive's suffix.
func pathName(path string) string {
	base := filepath.Base(path)
	for _, suffix := range []string{".tar", ".oci"} {
		base = strings.TrimSuffix(base, suffix)
	}
	return plain(strings.ReplaceAll(base, ":", "-"))
}

// plain replaces what a name in the store can't have, and keeps a name from
// being taken for a path or an option.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/:@+-", r) {
			return r
		}
		return '-'
	}, s)
	var parts []string
	for part := range strings.SplitSeq(s, "/") {
		if part = strings.TrimLeft(part, ".-:"); part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "image"
	}
	return strings.Join(parts, "/")
}
