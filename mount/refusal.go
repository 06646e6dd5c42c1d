package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// refusal says why a rung of the ladder can't be had, and what would change that.
type refusal struct {
	reason string
	advice string // what to do, without a subject; may be empty
	kind   error  // ErrRefused, if nil
	// hopeless: it is about the request, so that no other rung does better.
	hopeless bool
	// aside: another rung is the one for this user, and has its own to say.
	aside bool
}

func (e *refusal) Error() string {
	s := e.reason
	if e.kind != nil {
		s += ": " + e.kind.Error()
	}
	if e.advice != "" {
		s += "; " + e.advice
	}
	return s
}

func (e *refusal) Is(target error) bool {
	if e.kind == nil {
		return target == ErrRefused
	}
	return target == e.kind
}

// refuse is a refusal that no other rung could do without.
func refuse(format string, a ...any) error {
	return &refusal{reason: fmt.Sprintf(format, a...), hopeless: true}
}

// lacking is a refusal because of what this machine or rung doesn't have.
func lacking(advice, format string, a ...any) error {
	return &refusal{reason: fmt.Sprintf(format, a...), advice: advice}
}

// denied is a refusal because of who asks.
func denied(advice, reason string) error {
	return &refusal{reason: reason, advice: advice, kind: fs.ErrPermission}
}

// notFor is a refusal in favour of another rung.
func notFor(kind error, reason string) error {
	return &refusal{reason: reason, kind: kind, aside: true}
}

func isAside(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.aside
}

// final tells errors after which no other rung needs to be looked at.
func final(err error) bool {
	var r *refusal
	var d *DigestError
	return errors.As(err, &d) || errors.As(err, &r) && r.hopeless
}

// refusals is what NewPlan says if no rung can be had: each reason once, in the
// order of the ladder, then what to do.
type refusals []error

func (e refusals) Unwrap() []error { return e }

func (e refusals) Error() string {
	var reasons, advice []string
	for _, err := range e {
		reason, a := err.Error(), ""
		var r *refusal
		if errors.As(err, &r) {
			reason, a = r.reason, r.advice
		}
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
		if a != "" && !slices.Contains(advice, a) {
			advice = append(advice, a)
		}
	}
	s := strings.Join(reasons, "; ")
	if len(advice) > 0 {
		s += "; " + strings.Join(advice, ", or ")
	}
	return s
}
