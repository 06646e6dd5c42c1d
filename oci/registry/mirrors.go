package registry

import (
	"context"
	"slices"
	"strings"
)

// ask has the endpoints try something, one after the other, until one succeeds, and after a pause all of them again as long
// as there is hope and patience. what is for messages.
func (s *Source) ask(ctx context.Context, what string, p *patience, try func(*repository) error) error {
	return s.askBut(ctx, what, p, nil, try)
}

// askBut is ask that leaves some endpoints out.
func (s *Source) askBut(ctx context.Context, what string, p *patience, out []*repository, try func(*repository) error) error {
	for {
		err := s.askOnce(ctx, what, s.order(out), try)
		if err == nil {
			return nil
		}
		if err := p.wait(ctx, what, err); err != nil {
			return err
		}
	}
}

// order lists the endpoints as they are to be asked, without some.
func (s *Source) order(out []*repository) []*repository {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	order := slices.Concat(s.endpoints[first:], s.endpoints[:first])
	return slices.DeleteFunc(order, func(e *repository) bool { return slices.Contains(out, e) })
}

func (s *Source) askOnce(ctx context.Context, what string, order []*repository, try func(*repository) error) error {
	var errs []error
	for i, e := range order {
		err := try(e)
		if err == nil {
			s.askFirst(slices.Index(s.endpoints, e))
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		if i+1 < len(order) {
			s.tell(Notice{What: what, Err: err, Next: order[i+1].ref.Host})
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
