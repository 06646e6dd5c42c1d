package registry

import (
	"context"
	"slices"
	"strings"
)

// ask has the endpoints try something, one after the other, until one succeeds, and after a pause all of them again as long
// as there is hope and patience. what is for messages.
func (s *Source) ask(ctx context.Context, what string, p *patience, try func(*repository) error) error {
	for {
		err := s.askOnce(ctx, what, try)
		if err == nil {
			return nil
		}
		if err := p.wait(ctx, what, err); err != nil {
			return err
		}
	}
}

func (s *Source) askOnce(ctx context.Context, what string, try func(*repository) error) error {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	var errs []error
	for i := range s.endpoints {
		n := (first + i) % len(s.endpoints)
		err := try(s.endpoints[n])
		if err == nil {
			s.askFirst(n)
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		if i+1 < len(s.endpoints) {
			s.tell(Notice{What: what, Err: err, Next: s.endpoints[(n+1)%len(s.endpoints)].ref.Host})
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return endpointErrors(errs)
}

// askFirst remembers which endpoint has what was asked for.
func (s *Source) askFirst(n int) {
	s.mu.Lock()
	s.first = n
	s.mu.Unlock()
}

// askOthersFirst has an endpoint asked last that does not bring to an end what it begins.
func (s *Source) askOthersFirst(e *repository) {
	s.askFirst((slices.Index(s.endpoints, e) + 1) % len(s.endpoints))
}

func (s *Source) tell(n Notice) { s.opts.tell(s.ref, n) }

func (s *Source) patience() *patience { return &patience{Retry: s.opts.Retry, tell: s.tell} }

// endpointErrors is why none of several endpoints has something, in the order in which they were asked.
type endpointErrors []error

func (e endpointErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e endpointErrors) Unwrap() []error { return e }
