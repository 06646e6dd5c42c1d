package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/flatroot/flatroot/oci"
)

// BodyError says that a body broke off.
type BodyError struct {
	URL       string // without its query
	Got, Want int64  // bytes; Want is -1 where it isn't known
	Err       error
}

func (e *BodyError) Error() string {
	if e.Want < 0 {
		return fmt.Sprintf("GET %s: broke off after %d bytes: %v", e.URL, e.Got, e.Err)
	}
	return fmt.Sprintf("GET %s: broke off after %d of %d bytes: %v", e.URL, e.Got, e.Want, e.Err)
}

func (e *BodyError) Unwrap() error { return e.Err }

// errStalled is why a request is ended that brings nothing for too long.
var errStalled = errors.New("no data arrived in time")

// clocked is a body that gives up when nothing arrives. The clock runs only
// during a Read: how fast the bytes are worked on is not the registry's
// business.
type clocked struct {
	io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

func (c *clocked) Read(p []byte) (int, error) {
	c.startClock()
	n, err := c.ReadCloser.Read(p)
	c.timer.Stop()
	if cause := context.Cause(c.ctx); err != nil && err != io.EOF && cause != nil {
		err = cause
	}
	return n, err
}

// startClock ends the request if this Read takes too long.
func (c *clocked) startClock() {
	if c.timer != nil {
		c.timer.Reset(c.stall)
		return
	}
	c.timer = time.AfterFunc(c.stall, func() { c.cancel(fmt.Errorf("%w (%v)", errStalled, c.stall)) })
}

// Close ends the request, too: the rest of a body is not read for the sake of
// the connection.
func (c *clocked) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(nil)
	return err
}

// response is a response whose body knows how long it has to be and who to ask
// about it.
type response struct {
	*http.Response
	cancel    context.CancelCauseFunc // of the request's context
	url       string                  // without its query, after redirects
	want, got int64                   // bytes of the body; want -1: whatever comes
}

// newResponse wraps a response with a body of any length.
func newResponse(resp *http.Response, cancel context.CancelCauseFunc) *response {
	return &response{Response: resp, cancel: cancel, url: redact(resp.Request.URL), want: -1}
}

func (r *response) Read(p []byte) (int, error) {
	n, err := r.Body.Read(p)
	r.got += int64(n)
	switch {
	case r.want >= 0 && r.got > r.want:
		// Not one byte more is handed on than the descriptor says.
		n -= int(r.got - r.want)
		r.got = r.want
		return n, &oci.SizeError{What: "answer of " + r.url, Want: r.want, Got: r.want + 1}
	case err == io.EOF && r.got < r.want:
		err = io.ErrUnexpectedEOF
	case err == nil || err == io.EOF:
		return n, err
	}
	return n, &BodyError{URL: r.url, Got: r.got, Want: r.want, Err: err}
}

// Close closes the body.
func (r *response) Close() error {
	err := r.Body.Close()
	r.cancel(nil)
	return err
}
