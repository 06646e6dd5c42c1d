package mount

import (
	"errors"
	"fmt"
	"strings"
)

// Op is what a Step does.
type Op string

const (
	// OpHash computes the image's digest from its file and compares it.
	OpHash Op = "hash"
	// OpSeal copies the image into sealed memory and goes on with the copy.
	OpSeal Op = "seal"
	// OpErofs makes a detached EROFS mount of the image.
	OpErofs Op = "erofs"
	// OpOverlay makes the detached overlay of that mount and the objects.
	OpOverlay Op = "overlay"
	// OpAttach puts the overlay on the target; missing if there is none.
	OpAttach Op = "attach"
)

// Option is one file system option for the kernel; without a value it is a flag.
type Option struct {
	Key, Value string
}

func (o Option) String() string {
	if o.Value == "" {
		return o.Key
	}
	return o.Key + "=" + o.Value
}

// LayerForm is a way of telling overlayfs its layers.
type LayerForm string

const (
	// LayersByMount: lowerdir+ and datadir+ as descriptors, the lower one of a
	// mount that is attached nowhere (kernel 6.15).
	LayersByMount LayerForm = "mount"
	// LayersByName: lowerdir+ and datadir+ as text; the lower mount is attached
	// to a private directory meanwhile.
	LayersByName LayerForm = "name"
	// LayersByString: all in one lowerdir=A::B (kernel 6.5), attached as well.
	LayersByString LayerForm = "string"
)

// Step is one thing to do.
type Step struct {
	Op      Op
	Options []Option    // OpErofs, OpOverlay: in this order
	Forms   []LayerForm // OpOverlay: tried in this order until the kernel knows one
	Attrs   []string    // OpOverlay: mount attributes
	Target  string      // OpAttach
}

func (s Step) String() string {
	words := []string{string(s.Op)}
	for _, o := range s.Options {
		words = append(words, o.String())
	}
	if len(s.Forms) > 0 {
		var forms []string
		for _, f := range s.Forms {
			forms = append(forms, string(f))
		}
		words = append(words, "layers-by:"+strings.Join(forms, "|"))
	}
	words = append(words, s.Attrs...)
	if s.Target != "" {
		words = append(words, s.Target)
	}
	return strings.Join(words, " ")
}

// Plan is what will be done for a Request. NewPlan makes it, Do or Detach
// carry it out while the request's files are open.
type Plan struct {
	Mode         Mode
	Source       string // as mountinfo will show it
	Verification Verification
	Steps        []Step

	request Request
}

// String is the plan as text, a line per step.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mode %s, %s\n", p.Mode, p.Verification)
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	return b.String()
}

// rung is one mode of the ladder: it makes a plan or says why it can't.
type rung struct {
	mode Mode
	plan func(Request, Features) (*Plan, error)
}

// ladder has the modes in order of preference. ModeAuto takes the first whose
// plan function finds that it can do what was asked.
var ladder = [...]rung{
	{ModeNative, planNative},
}

// NewPlan makes the plan for r on a machine with f. It makes no system calls.
// Errors are ErrRefused, ErrUnavailable, fs.ErrPermission or a *DigestError.
func NewPlan(r Request, f Features) (*Plan, error) {
	if r.Verity != Auto && r.Verity != Require && r.Verity != Objects && r.Verity != Off {
		return nil, refuse("unknown verity policy %q", r.Verity)
	}
	var reasons []error
	for _, l := range ladder {
		if r.Mode != ModeAuto && r.Mode != l.mode {
			continue
		}
		p, err := l.plan(r, f)
		if err == nil {
			return p, nil
		}
		reasons = append(reasons, err)
	}
	if len(reasons) == 0 {
		return nil, fmt.Errorf("mode=%s: %w", r.Mode, ErrUnavailable)
	}
	return nil, errors.Join(reasons...)
}
