package registry

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/flatroot/flatroot/oci"
)

// Bounds, in bytes, of how much of a refusal is read, and how much repeated.
const (
	maxErrorBody    = 16 << 10
	maxErrorMessage = 400
)

// HTTPError is a registry's refusal.
type HTTPError struct {
	Method, URL string        // URL without its query
	Status      int           // HTTP's
	Message     string        // the registry's own, made printable
	RetryAfter  time.Duration // what the registry asks to wait; 0 if it doesn't say
	host        string
}

func (e *HTTPError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	if h := e.hint(); h != "" {
		s += " (" + h + ")"
	}
	return s
}

// Is tells of what is not there that it is oci.ErrNoImage.
func (e *HTTPError) Is(err error) bool {
	return err == oci.ErrNoImage && e.Status == http.StatusNotFound && strings.Contains(e.URL, "/manifests/")
}

// hint says what to do.
func (e *HTTPError) hint() string {
	login := fmt.Sprintf("log in with podman login %s or docker login %s", e.host, e.host)
	switch {
	case e.Status == http.StatusUnauthorized:
		return login + "; if you have, the credentials are wrong or have expired"
	case e.Status == http.StatusForbidden:
		return "these credentials don't allow it, or none were found: " + login
	case e.Status == http.StatusNotFound && (e.Method == http.MethodPatch || strings.Contains(e.URL, "/blobs/uploads/") && e.Method != http.MethodPost):
		return "the registry has forgotten what was sent"
	case e.Status == http.StatusNotFound && (e.Method == http.MethodPost || e.Method == http.MethodPut):
		return "there is no such repository, and the registry makes none for what is pushed: make it first, or " + login
	case e.Status == http.StatusNotFound:
		return "there is no such image, or it is private: check the name, or " + login
	case e.Status == http.StatusTooManyRequests && e.RetryAfter > 0:
		return fmt.Sprintf("the registry limits requests: try again in %v", e.RetryAfter)
	case e.Status == http.StatusTooManyRequests:
		return "the registry limits requests: try again later, or, for a higher limit, " + login
	case e.Status >= http.StatusInternalServerError:
		return "the registry is in trouble: try again later"
	}
	return ""
}

// statusError makes an error of a response, and reads a bounded part of it.
func (s *repository) statusError(resp *response) error {
	// What can't be read is no reason to hide the status.
	raw, _ := io.ReadAll(io.LimitReader(resp, maxErrorBody))
	return &HTTPError{
		Method: resp.Request.Method, URL: resp.url, Status: resp.StatusCode,
		Message:    message(resp.Header.Get("Content-Type"), raw),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
		host:       s.ref.Host,
	}
}

// message finds the registry's own words in the body of a refusal: the
// specification's JSON, the less strict forms of it that token servers send,
// or plain text.
func message(contentType string, raw []byte) string {
	var e struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Message string `json:"message"`
		Details string `json:"details"`
	}
	if json.Unmarshal(raw, &e) == nil {
		texts := []string{e.Message, e.Details}
		for _, one := range e.Errors {
			texts = append(texts, strings.Trim(one.Code+": "+one.Message, ": "))
		}
		return printable(strings.Join(texts, " "))
	}
	if text := string(raw); strings.Contains(contentType, "html") || strings.HasPrefix(strings.TrimSpace(text), "<") {
		return "the answer is a web page, not a registry's: " + oci.Printable(text, 80)
	}
	return printable(string(raw))
}

func printable(s string) string { return oci.Printable(s, maxErrorMessage) }

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(time.Until(at), 0).Round(time.Second)
	}
	return 0
}

// explain makes an error of ours of what the libraries return when there is
// no response: it takes out the address with its query, and turns a refused
// challenge or token into an *HTTPError. cause is why the request was ended;
// nil: it was not.
func (s *repository) explain(err, cause error) error {
	certificate := errors.As(err, new(*tls.CertificateVerificationError))
	if te := new(transport.Error); errors.As(err, &te) && !certificate {
		return s.authError(te)
	}
	ue := new(url.Error)
	if !errors.As(err, &ue) {
		return err
	}
	at := ue.URL
	if u, perr := s.parse(at); perr == nil {
		at = redact(u)
	}
	at = oci.Printable(at, maxErrorMessage)
	mismatch := errors.Is(err, http.ErrSchemeMismatch)
	if pe := new(plainError); mismatch && errors.As(err, &pe) {
		return fmt.Errorf("%s %s: %w", strings.ToUpper(ue.Op), pe.url, pe.error)
	}
	if mismatch && !s.opts.Insecure {
		return fmt.Errorf("%s: the server speaks plain HTTP; allow it by insecure = true for this registry in registries.conf: %w", at, ue.Err)
	}
	if cause == nil {
		cause = ue.Err
	}
	return fmt.Errorf("%s %s: %w", strings.ToUpper(ue.Op), at, cause)
}

// parse reads an address, which may be that of a redirect and leave out the host.
func (s *repository) parse(at string) (*url.URL, error) {
	base, err := url.Parse(s.url("", ""))
	if err != nil {
		return nil, err
	}
	return base.Parse(at)
}

// authError makes an error of what a registry or token server said to an
// attempt to authenticate.
func (s *repository) authError(te *transport.Error) error {
	e := &HTTPError{
		Method: http.MethodGet, URL: s.ref.Host, Status: te.StatusCode, host: s.ref.Host,
		RetryAfter: time.Duration(s.base.after.Load()),
	}
	if te.Request != nil {
		e.Method, e.URL = te.Request.Method, redact(te.Request.URL)
	}
	var texts []string
	for _, d := range te.Errors {
		texts = append(texts, strings.Trim(string(d.Code)+": "+d.Message, ": "))
	}
	if len(texts) == 0 {
		// The body is at the end of the text only.
		_, body, _ := strings.Cut(te.Error(), http.StatusText(te.StatusCode)+": ")
		e.Message = message("", []byte(body))
		return e
	}
	e.Message = printable(strings.Join(texts, " "))
	return e
}

// redact returns an address without query, fragment and user, which may be
// secrets: signed addresses have them in the query.
func redact(u *url.URL) string {
	r := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return oci.Printable(r.String(), maxErrorMessage)
}
