package sign

import (
	"errors"
	"fmt"
	"strings"

	"github.com/flatroot/flatroot/oci"
)

// Identity is a rule of containers-policy.json(5) about the reference that a
// signer gave an image: signedIdentity. The zero Identity allows none.
type Identity struct {
	rule   string
	named  named  // of exactReference and exactRepository
	prefix string // of remapIdentity
	signed string // what takes its place
}

// The rules, by the names that the policy has for them.
const (
	matchExact             = "matchExact"
	matchRepoDigestOrExact = "matchRepoDigestOrExact"
	matchRepository        = "matchRepository"
	exactReference         = "exactReference"
	exactRepository        = "exactRepository"
	remapIdentity          = "remapIdentity"

	// sameRepository is ours, and in no policy: matchRepository, where both the
	// signature and the image have a name.
	sameRepository = "sameRepository"
)

// named is an image's reference as containers write it: HOST/REPOSITORY and
// perhaps a tag or a digest.
type named struct{ repository, rest string }

func (n named) String() string { return n.repository + n.rest }

// maxNamed bounds a reference in a payload, in bytes: a repository, a tag and a
// digest have no more.
const maxNamed = 512

// parseNamed reads a reference in which docker.io and library/ may be left
// out. Unlike oci.ParseReference it adds no tag.
func parseNamed(s string) (named, error) {
	if len(s) > maxNamed {
		return named{}, fmt.Errorf("reference of %d bytes", len(s))
	}
	ref, err := oci.ParseReference(string(oci.Docker) + "://" + s)
	if err != nil {
		return named{}, err
	}
	n := named{repository: ref.Host + "/" + ref.Repository}
	bare, _, _ := strings.Cut(s, "@")
	if strings.Contains(bare[strings.LastIndexByte(bare, '/')+1:], ":") {
		n.rest = ":" + ref.Tag
	}
	if ref.Digest != "" {
		n.rest += "@" + string(ref.Digest)
	}
	return n, nil
}

// identityOf is what a source's reference says of itself; false: nothing, as
// one that has a path, which anybody may have given it.
func identityOf(ref oci.Reference) (n named, digested, ok bool) {
	if ref.Transport != oci.Docker {
		return named{}, false, false
	}
	n.repository = ref.Host + "/" + ref.Repository
	if ref.Digest != "" { // it decides, whatever the tag
		n.rest = "@" + string(ref.Digest)
		return n, true, true
	}
	n.rest = ":" + ref.Tag
	return n, false, true
}

// SameRepository is the identity that is asked for with a key alone: a
// registry's image has to be signed as one of its repository, by whatever tag,
// unless the signature is a bundle, which names none. Elsewhere an image has no
// identity, and any is as good.
func SameRepository() Identity { return Identity{rule: sameRepository} }

// SignedAs is the identity HOST/REPOSITORY, with whatever tag, or one with
// this tag or digest.
func SignedAs(s string) (Identity, error) {
	n, err := parseNamed(s)
	if err != nil {
		return Identity{}, err
	}
	if n.rest == "" {
		return Identity{rule: exactRepository, named: n}, nil
	}
	return Identity{rule: exactReference, named: n}, nil
}

// allows holds the reference that a signer gave against the one that was
// asked for. One who made a bundle gave none.
func (id Identity) allows(asked oci.Reference, signedAs string, bundle bool) error {
	switch {
	case id.rule == sameRepository && (bundle || asked.Transport != oci.Docker):
		return nil
	case bundle:
		return fmt.Errorf("it is a bundle, which does not say as what the image was signed, and %s asks for that", id)
	}
	signed, err := parseNamed(signedAs)
	if err != nil {
		return fmt.Errorf("it was signed as %q, which is no reference: %w", oci.Printable(signedAs, 200), err)
	}
	ok, err := id.matches(asked, signed)
	if err == nil && !ok {
		err = fmt.Errorf("it was signed as %s, which %s does not allow", signed, id)
	}
	return err
}

// errNoIdentity says that a rule goes by what a source does not have.
var errNoIdentity = errors.New("the image has no name of its own where it is, so that only exactReference and exactRepository can say which it has to be")

func (id Identity) matches(asked oci.Reference, signed named) (bool, error) {
	switch id.rule {
	case exactReference:
		return signed == id.named, nil
	case exactRepository:
		return signed.repository == id.named.repository, nil
	}
	own, digested, ok := identityOf(asked)
	if !ok {
		return false, errNoIdentity
	}
	switch id.rule {
	case matchRepository, sameRepository:
		return signed.repository == own.repository, nil
	case matchExact:
		return signed == own, nil
	case remapIdentity:
		own.repository = id.remap(own.repository)
		return repoDigestOrExact(own, digested, signed), nil
	case matchRepoDigestOrExact:
		return repoDigestOrExact(own, digested, signed), nil
	}
	return false, fmt.Errorf("the identity rule %q is not known", id.rule)
}

// repoDigestOrExact is the rule matchRepoDigestOrExact. What cosign signs has
// a repository alone and never matches.
func repoDigestOrExact(own named, digested bool, signed named) bool {
	if digested {
		return signed.rest != "" && signed.repository == own.repository
	}
	return signed == own
}

// remap replaces the prefix of a repository, whole components of it.
func (id Identity) remap(repository string) string {
	if rest, ok := strings.CutPrefix(repository, id.prefix); ok && (rest == "" || rest[0] == '/') {
		return id.signed + rest
	}
	return repository
}

// String says what the rule asks for.
func (id Identity) String() string {
	switch id.rule {
	case exactReference, exactRepository:
		return id.rule + " " + id.named.String()
	case remapIdentity:
		return id.rule + " from " + id.prefix + " to " + id.signed
	case sameRepository:
		return matchRepository
	}
	return id.rule
}
