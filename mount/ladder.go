package mount

import (
	"errors"
	"fmt"
)

// Rung is a step of the ladder: one way of mounting, and what it comes to here.
type Rung struct {
	Name   string // native, hybrid, hybrid-userns, fuse, fusermount, passthrough
	Mode   Mode
	About  string // what it is, a sentence without its end
	OK     bool
	Plan   *Plan  // nil if not OK, and if the request has no files
	Reason error  // why it isn't OK; as NewPlan's errors
	Advice string // what would change that; may be empty
}

// rung is how one way of mounting is planned.
type rung struct {
	name  string
	mode  Mode
	about string
	lack  func(Request, Features) error // what machine and user lack for it
	plan  func(Request, Features) (*Plan, error)
}

// ladder has the ways in order of preference.
var ladder = [...]rung{
	{"native", ModeNative, "EROFS and overlayfs in the kernel", nativeLack, planNative},
	{"hybrid", ModeHybrid, "metadata by a FUSE server, content by overlayfs", hybridLack, planHybrid},
	{"hybrid-userns", ModeHybrid, "the same in a user and mount namespace, without root", userHybridLack, planUserHybrid},
	{"fuse", ModeFUSE, "everything by a FUSE server", fuseLack, planFUSE},
	{"fusermount", ModeFUSE, "the same for any user, mounted by fusermount3", fusermountLack, planFusermount},
	{"passthrough", ModeFUSE, "metadata by a FUSE server, open files by the kernel", passthroughLack, planPassthrough},
}

// passthroughRung is taken only when asked for.
const passthroughRung = "passthrough"

// Ladder says of each rung whether r can have it on a machine with f, whatever
// r.Mode is. A request without image and objects asks about the machine and user
// alone. It makes no system calls. FUSE rungs are OK only with r.Start.
func Ladder(r Request, f Features) []Rung {
	bare := r.Image == nil && len(r.Objects) == 0
	var list []Rung
	for _, l := range ladder {
		g := Rung{Name: l.name, Mode: l.mode, About: l.about}
		r.Mode, r.Passthrough = l.mode, l.name == passthroughRung
		switch {
		case l.mode != ModeNative && r.Start == nil:
			g.Reason = fmt.Errorf("FUSE servers: %w", ErrUnavailable)
		case bare:
			g.Reason = l.lack(r, f)
		default:
			if g.Reason = checkRequest(r, f); g.Reason == nil {
				g.Plan, g.Reason = l.try(r, f)
			}
		}
		g.OK = g.Reason == nil
		var why *refusal
		if errors.As(g.Reason, &why) {
			g.Advice = why.advice
		}
		list = append(list, g)
	}
	return list
}

func (l rung) try(r Request, f Features) (*Plan, error) {
	if err := l.lack(r, f); err != nil {
		return nil, err
	}
	if len(r.Objects) == 0 {
		return nil, refuse("no object directory: give store= or basedir=")
	}
	return l.plan(r, f)
}

// candidate tells whether NewPlan looks at a rung for r.
func (l rung) candidate(r Request) bool {
	switch {
	case r.Mode != ModeAuto && r.Mode != l.mode, l.mode != ModeNative && r.Start == nil:
		return false
	}
	return r.Passthrough == (l.name == passthroughRung)
}

// NewPlan makes the plan for r on a machine with f: of the first rung that can do
// what was asked or, where the strongest verification was asked for, of the first
// of those that reach it. It makes no system calls. Errors are ErrRefused,
// ErrUnavailable, fs.ErrPermission or a *DigestError.
func NewPlan(r Request, f Features) (*Plan, error) {
	if err := checkRequest(r, f); err != nil {
		return nil, err
	}
	var c choice
	for _, l := range ladder {
		if !l.candidate(r) {
			continue
		}
		p, err := l.try(r, f)
		if err != nil && final(err) {
			return nil, err
		}
		if c.see(l, p, err); c.settled(r.Verity) {
			break
		}
	}
	return c.result(r)
}

// checkRequest refuses what makes no sense on any rung.
func checkRequest(r Request, f Features) error {
	switch {
	case r.Verity != Auto && r.Verity != Require && r.Verity != Objects && r.Verity != Off:
		return refuse("unknown verity policy %q", r.Verity)
	case r.Passthrough && r.Mode != ModeFUSE:
		return refuse("passthrough is for mode=fuse alone")
	}
	return checkWritable(r, f)
}

// choice is the state of NewPlan between rungs.
type choice struct {
	best     *Plan
	refused  []error
	passed   []string // what kept rungs from being the best
	anything bool     // some rung was looked at
}

func (c *choice) see(l rung, p *Plan, err error) {
	c.anything = true
	switch {
	case isAside(err):
	case err != nil:
		c.refused = append(c.refused, err)
		c.pass(reasonOf(err))
	case c.best == nil:
		c.best = p
	case p.Verification.strength() > c.best.Verification.strength():
		v := c.best.Verification
		c.pass(fmt.Sprintf("mode %s reaches no more than %s", c.best.Mode, v))
		for _, why := range v.Why {
			c.pass(why)
		}
		c.best = p
	}
}

func (c *choice) pass(why string) { c.passed = appendReason(c.passed, why) }

// reasonOf is an error without its advice.
func reasonOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.reason
	}
	return err.Error()
}

// settled: no later rung can be preferred.
func (c *choice) settled(v Policy) bool {
	return c.best != nil && (v != Auto || c.best.Verification.Full())
}

func (c *choice) result(r Request) (*Plan, error) {
	switch {
	case c.best != nil:
		why := &c.best.Verification.Why
		for _, w := range c.passed {
			*why = appendReason(*why, w)
		}
		return c.best, nil
	case !c.anything:
		return nil, fmt.Errorf("mode=%s: %w", r.Mode, ErrUnavailable)
	case len(c.refused) == 1:
		return nil, c.refused[0]
	}
	return nil, refusals(c.refused)
}
