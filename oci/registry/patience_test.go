package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/flatroot/flatroot/oci"
)

func TestMayPass(t *testing.T) {
	in := func(err error) error { return &url.Error{Op: "Get", URL: "https://x/", Err: err} }
	for name, c := range map[string]struct {
		err   error
		after time.Duration
		want  bool
	}{
		"refused":       {in(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), 0, true},
		"reset":         {in(syscall.ECONNRESET), 0, true},
		"end":           {in(io.EOF), 0, true},
		"timeout":       {in(&net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}}), 0, true},
		"no such host":  {in(&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}), 0, false},
		"certificate":   {in(&tls.CertificateVerificationError{Err: errors.New("bad")}), 0, false},
		"alert":         {in(&net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}), 0, false},
		"HTTP/2":        {in(errors.New("http2: server sent GOAWAY and closed the connection")), 0, true},
		"stalled":       {fmt.Errorf("%w (1s)", errStalled), 0, true},
		"plain HTTP":    {in(errPlainHTTP), 0, false},
		"redirects":     {in(errors.New("more than 10 redirects")), 0, false},
		"body":          {&BodyError{Err: io.ErrUnexpectedEOF}, 0, true},
		"size":          {&oci.SizeError{}, 0, false},
		"digest":        {&oci.DigestError{}, 0, false},
		"429":           {&HTTPError{Status: 429, RetryAfter: time.Minute}, time.Minute, true},
		"404":           {&HTTPError{Status: 404, RetryAfter: time.Minute}, time.Minute, false},
		"501":           {&HTTPError{Status: 501}, 0, false},
		"599":           {&HTTPError{Status: 599}, 0, true},
		"one of two":    {endpointErrors{&HTTPError{Status: 404}, &HTTPError{Status: 503, RetryAfter: 2}}, 2, true},
		"neither":       {endpointErrors{&HTTPError{Status: 404}, &oci.DigestError{}}, 0, false},
		"no such range": {oci.ErrNoRange, 0, false},
	} {
		after, ok := mayPass(fmt.Errorf("ask: %w", c.err))
		if ok != c.want || after != c.after {
			t.Errorf("%s: %v, %v", name, after, ok)
		}
	}
}

// TestPauses checks how long is waited: longer each time, never more than is allowed, and from the start again once
// something came.
func TestPauses(t *testing.T) {
	passing := &HTTPError{Status: 503}
	var waits []time.Duration
	p := &patience{Retry: Retry{Tries: 6, First: 100, Longest: 300, Total: 1500}, tell: func(n Notice) { waits = append(waits, n.Wait) }}
	fail := func(err error) error { return p.wait(context.Background(), "x", err) }
	for range 5 {
		if err := fail(passing); err != nil {
			t.Fatal(err)
		}
	}
	for i, most := range []time.Duration{100, 200, 300, 300, 300} {
		if waits[i] < most/2 || waits[i] > most {
			t.Errorf("wait %d is %d, want %d to %d", i, waits[i], most/2, most)
		}
	}
	if err := fail(passing); !errors.Is(err, passing) {
		t.Errorf("the sixth: %v", err)
	}
	// A byte is no reason to begin to count all pauses anew, a MiB is.
	p.gain(1)
	before := p.waited
	if err := fail(passing); err != nil || p.waited <= before {
		t.Errorf("%v; waited %d", err, p.waited)
	}
	p.gain(enoughGained)
	if err := fail(passing); err != nil || p.waited > 100 {
		t.Errorf("%v; waited %d", err, p.waited)
	}
	if err := fail(&HTTPError{Status: 503, RetryAfter: 1500}); err == nil {
		t.Error("waited for longer than is allowed")
	}
	if err := fail(&HTTPError{Status: 403}); err == nil {
		t.Error("asked again what is refused")
	}
}
