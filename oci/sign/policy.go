package sign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/oci"
)

// Policy says what is asked of images, by where they are.
type Policy struct {
	standard   []Requirement // of all that no scope is about
	transports map[string]map[string][]Requirement
}

// Requirement is one thing that is asked of an image.
type Requirement struct {
	kind     string
	refusal  string // why it can't be met here, whatever the image is; empty: it can
	keys     []*Key
	keyPaths []string // read when they are needed
	identity Identity
}

// The kinds, by their names in the policy.
const (
	insecureAcceptAnything = "insecureAcceptAnything"
	reject                 = "reject"
	signedBy               = "signedBy"
	signedBaseLayer        = "signedBaseLayer"
	sigstoreSigned         = "sigstoreSigned"
)

// SignedBy requires a signature by one of these keys.
func SignedBy(keys []*Key, id Identity) Requirement {
	return Requirement{kind: sigstoreSigned, keys: keys, identity: id}
}

// maxFile bounds a policy, in bytes.
const maxFile = 4 << 20

// ReadPolicy reads a policy file.
func ReadPolicy(file string) (*Policy, error) {
	b, err := readFile(file, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	p, err := ParsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", file, err)
	}
	return p, nil
}

// ReadKey reads a file with one public key.
func ReadKey(file string) (*Key, error) {
	b, err := readFile(file, maxKey)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	k, err := ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("public key %s: %w", file, err)
	}
	k.File = file
	return k, nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(file string, limit int64) ([]byte, error) {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file)
	case st.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes, more than %d", file, st.Size(), limit)
	}
	return os.ReadFile(file)
}

// Accepts tells whether all images that a reference may stand for are
// accepted, whatever they are, so that nothing need be checked.
func (p *Policy) Accepts(ref oci.Reference) bool {
	_, requirements, err := p.lookUp(ref)
	return err == nil && !slices.ContainsFunc(requirements, func(r Requirement) bool { return r.kind != insecureAcceptAnything })
}

// Check asks of an image all that the policy requires where it is from. It
// returns the signatures by which it was accepted: none, if none are required.
func (p *Policy) Check(ctx context.Context, s *Subject) ([]*Accepted, error) {
	scope, requirements, err := p.lookUp(s.Reference)
	if err != nil {
		return nil, s.refused(err.Error())
	}
	var accepted []*Accepted
	for _, r := range requirements {
		a, err := r.Check(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("policy for %s: %w", scope, err)
		}
		if a != nil {
			accepted = append(accepted, a)
		}
	}
	return accepted, nil
}

// Check asks of an image what the requirement is. It returns the signature by
// which it was accepted; nil if it needs none.
func (r *Requirement) Check(ctx context.Context, s *Subject) (*Accepted, error) {
	switch {
	case r.refusal != "":
		return nil, s.refused(r.refusal)
	case r.kind == insecureAcceptAnything:
		return nil, nil
	case r.kind == sigstoreSigned:
		keys := r.keys
		for _, file := range r.keyPaths {
			k, err := ReadKey(file)
			if err != nil {
				return nil, s.refused(err.Error())
			}
			keys = append(keys[:len(keys):len(keys)], k)
		}
		return s.accept(ctx, keys, r.identity)
	}
	return nil, s.refused("it is rejected, whatever its signatures")
}

// lookUp finds what is required of an image: by the most specific scope, then
// by the default of its transport, then by that of all.
func (p *Policy) lookUp(ref oci.Reference) (scope string, rs []Requirement, err error) {
	scopes := p.transports[string(ref.Transport)]
	candidates, err := scopesOf(ref)
	if err != nil {
		return "", nil, err
	}
	if ref.Transport == oci.ContainersStorage {
		for scope := range scopes {
			if scope != "" {
				return "", nil, errors.New("the policy has scopes of containers-storage:, and only the one of all its images is understood here")
			}
		}
	}
	for _, scope := range candidates {
		if rs, ok := scopes[scope]; ok {
			return string(ref.Transport) + " scope " + scope, rs, nil
		}
	}
	if rs, ok := scopes[""]; ok {
		return "transport " + string(ref.Transport), rs, nil
	}
	return "all that it does not name", p.standard, nil
}

// scopesOf lists the scopes that an image is in, the most specific first.
func scopesOf(ref oci.Reference) ([]string, error) {
	switch ref.Transport {
	case oci.Docker:
		return registryScopes(ref), nil
	case oci.OCI, oci.OCIArchive, oci.Dir:
		return pathScopes(ref.Path)
	}
	return nil, nil // only the transport's own
}

// registryScopes are the image, its repository, what that lies in up to the
// host with its port, and then *.DOMAIN of all domains that the host is in.
func registryScopes(ref oci.Reference) []string {
	n, _, _ := identityOf(ref)
	scopes := []string{n.String()}
	for at := n.repository; at != "."; at = path.Dir(at) {
		scopes = append(scopes, at)
	}
	host, _, _ := strings.Cut(ref.Host, ":")
	for {
		_, domain, ok := strings.Cut(host, ".")
		if !ok {
			return scopes
		}
		scopes = append(scopes, "*."+domain)
		host = domain
	}
}

// pathScopes are a path without symbolic links and all above it but the root.
func pathScopes(name string) ([]string, error) {
	at, err := filepath.Abs(name)
	if err == nil {
		at, err = filepath.EvalSymlinks(at)
	}
	if err != nil {
		return nil, err
	}
	var scopes []string
	for ; at != "/"; at = path.Dir(at) {
		scopes = append(scopes, at)
	}
	return scopes, nil
}
