package mount

import "testing"

// What the tests in package mount_test, which may import servers, have in common
// with those in this package.
var (
	NeedFUSE        = needFUSE
	InUserNamespace = inUserNamespace
	Tmpfs           = tmpfs
	CheckSample     = checkSample
	CheckContent    = checkContent
	UserNamespace   = userNamespace
	Enable          = enable
	Layers          = layers
)

// NewSample writes a sample to dir, and a request for it: the path of its object too.
func NewSample(t *testing.T, dir, target string) (Request, string) {
	t.Helper()
	s := newSample(t, dir, false)
	return s.request(t, target), s.object
}

// State is a snapshot that Same compares with.
type State struct{ before state }

func Snapshot(t *testing.T) State  { return State{snapshot(t)} }
func (s State) Same(t *testing.T)  { t.Helper(); s.before.same(t) }
func Must(t testing.TB, err error) { t.Helper(); must(t, err) }

// CloseFiles closes what NewSample opened, before the test ends.
func CloseFiles(r Request) { r.Image.Close(); closeAll(r.Objects) }

// OneForm has a plan for an overlay tell its layers in one way only.
func OneForm(p *Plan, f LayerForm) { p.overlay().Forms = []LayerForm{f} }

// FormsOf are the ways that it has.
func FormsOf(p *Plan) []LayerForm { return p.overlay().Forms }
