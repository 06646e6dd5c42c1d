package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/flatroot/flatroot/oci"
)

// Retry says how often and when a request is sent again that failed for a reason which may pass. The pauses double, and each
// is shortened by a random part, at most half of it, so that clients that failed together don't come back together.
type Retry struct {
	Tries   int           // in a row that bring nothing; 6
	First   time.Duration // pause before the second try; 1 s
	Longest time.Duration // pause, unless the registry asks for more; 30 s
	// Total bounds the pauses for one document or blob, and what a registry's Retry-After is heeded up to; 5 min. Of a blob
	// it begins anew with each MiB that comes.
	Total time.Duration
}

func (r Retry) fill() Retry {
	if r.Tries == 0 {
		r.Tries = 6
	}
	for _, d := range []struct {
		to  *time.Duration
		def time.Duration
	}{{&r.First, time.Second}, {&r.Longest, 30 * time.Second}, {&r.Total, 5 * time.Minute}} {
		if *d.to == 0 {
			*d.to = d.def
		}
	}
	return r
}

// Notice is about something that failed, and what is done next.
type Notice struct {
	Source string // the reference of the image
	What   string // was asked for
	Err    error
	Wait   time.Duration // before it is asked for again
	Next   string        // the registry that is asked instead; empty: the same one, or all of them, after Wait
}

// String is the notice in one line.
func (n Notice) String() string {
	next := fmt.Sprintf("trying again in %v", n.Wait.Round(100*time.Millisecond))
	if n.Next != "" {
		next = "asking " + n.Next
	}
	return fmt.Sprintf("%s: %s: %v; %s", n.Source, n.What, n.Err, next)
}

// patience is what is left of it for one document or blob.
type patience struct {
	Retry
	tell   func(Notice)
	tries  int           // in a row that brought nothing
	waited time.Duration // since the last MiB
	gained int64         // bytes since then
}

// enoughGained is how many bytes have to come for the pauses to be counted anew: a registry that gives its blobs byte by
// byte does not keep us for ever.
const enoughGained = 1 << 20

// gain takes note of bytes that came.
func (p *patience) gain(n int) {
	p.tries = 0
	if p.gained += int64(n); p.gained >= enoughGained {
		p.gained, p.waited = 0, 0
	}
}

// wait pauses before another try, or returns an error if there is no use in one.
func (p *patience) wait(ctx context.Context, what string, err error) error {
	after, passing := mayPass(err)
	if !passing {
		p.tries++
		return err
	}
	return p.rest(ctx, what, err, after)
}

// rest pauses before another try of what has failed for whatever reason, or returns an error if it has failed too often.
func (p *patience) rest(ctx context.Context, what string, err error, after time.Duration) error {
	p.tries++
	if ctx.Err() != nil {
		return err
	}
	pause := max(after, p.pause())
	if p.tries >= p.Tries || p.waited+pause > p.Total {
		if p.tries == 1 {
			return err
		}
		return fmt.Errorf("%w (tried %d times)", err, p.tries)
	}
	p.waited += pause
	p.tell(Notice{What: what, Err: err, Wait: pause})
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *patience) pause() time.Duration {
	d := p.First
	for range p.tries - 1 {
		d = min(2*d, p.Longest)
	}
	return d - rand.N(d/2+1)
}

// mayPass tells whether something failed for a reason that may not be there any more the next time, and how long the
// registry asks to wait.
func mayPass(err error) (after time.Duration, ok bool) {
	if several := (endpointErrors)(nil); errors.As(err, &several) {
		for _, one := range several {
			if a, passing := mayPass(one); passing {
				after, ok = max(after, a), true
			}
		}
		return after, ok
	}
	if he := (*HTTPError)(nil); errors.As(err, &he) {
		return he.RetryAfter, he.mayPass()
	}
	if se := (*oci.SizeError)(nil); errors.As(err, &se) {
		return 0, false
	}
	if be := (*BodyError)(nil); errors.As(err, &be) {
		return 0, true
	}
	return 0, !isFinal(err) && isNetwork(err)
}

// mayPass is about statuses: those by which a registry says that it is busy or in trouble, but for those that say what it
// will never do.
func (e *HTTPError) mayPass() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusNetworkAuthenticationRequired:
		return false
	}
	return e.Status >= http.StatusInternalServerError
}

// isFinal knows failures of a connection that the next one would have too.
func isFinal(err error) bool {
	if ce := (*tls.CertificateVerificationError)(nil); errors.As(err, &ce) {
		return true
	}
	if de := (*net.DNSError)(nil); errors.As(err, &de) && de.IsNotFound {
		return true
	}
	// So crypto/tls calls the alerts of both sides.
	oe := (*net.OpError)(nil)
	return errors.As(err, &oe) && (oe.Op == "remote error" || oe.Op == "local error")
}

// isNetwork knows failures of a connection.
func isNetwork(err error) bool {
	for _, known := range []error{
		errStalled, errNotAsFar, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	ne, oe := (net.Error)(nil), (*net.OpError)(nil)
	if errors.As(err, &ne) && ne.Timeout() || errors.As(err, &oe) {
		return true
	}
	// net/http does not export the errors of its HTTP/2.
	return strings.Contains(err.Error(), "http2: ") || strings.Contains(err.Error(), "stream error: ")
}
