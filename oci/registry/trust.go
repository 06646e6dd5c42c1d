package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// trust is who gave what is read of a blob, and who gave it wrong before.
type trust struct{ gave, wrong []*repository }

// trusted is the trust in what is given of a blob. The caller has the lock.
func (s *Source) trusted(d digest.Digest) *trust {
	if s.trust[d] == nil {
		s.trust[d] = new(trust)
	}
	return s.trust[d]
}

// forgetGivers begins a blob: what was read of it before doesn't matter.
func (s *Source) forgetGivers(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trusted(d).gave = nil
}

// gave notes an endpoint that gives some of a blob.
func (s *Source) gave(d digest.Digest, e *repository) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.trusted(d); !slices.Contains(t.gave, e) {
		t.gave = append(t.gave, e)
	}
}

// distrusted are those who are not asked for a blob since they have given it wrong.
func (s *Source) distrusted(d digest.Digest) []*repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.trusted(d).wrong)
}

// Distrust has a blob that was wrong asked of those who have given none of it. Each is found to be wrong once, so that it
// comes to an end.
func (s *Source) Distrust(desc ocispec.Descriptor, why error) bool {
	s.mu.Lock()
	t := s.trusted(desc.Digest)
	wrong := s.suspects(t)
	t.wrong, t.gave = append(t.wrong, wrong...), nil
	out := t.wrong
	over := len(wrong) == 0 || len(out) == len(s.endpoints)
	if over { // who begins the blob anew, in another way, begins with all
		t.wrong = nil
	}
	s.mu.Unlock()
	if over {
		return false
	}
	hosts := make([]string, len(wrong))
	for i, e := range wrong {
		hosts[i] = e.ref.Host
	}
	err := fmt.Errorf("%s gave it wrong: %w", strings.Join(hosts, " and "), why)
	s.tell(Notice{What: "blob " + desc.Digest.String(), Err: err, Next: s.order(out)[0].ref.Host})
	return true
}

// suspects are those who may have given a blob wrong. Where one went on with what another had begun it may be either: then
// it is the mirrors, as the registry itself is who to ask when nobody else is left.
func (s *Source) suspects(t *trust) []*repository {
	itself := s.endpoints[len(s.endpoints)-1]
	list := slices.DeleteFunc(slices.Clone(t.gave), func(e *repository) bool { return slices.Contains(t.wrong, e) })
	if len(list) > 1 {
		list = slices.DeleteFunc(list, func(e *repository) bool { return e == itself })
	}
	return list
}
