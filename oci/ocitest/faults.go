package ocitest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Faults is a handler before a registry: it does to some requests what networks and servers do, and remembers what was asked
// and given. Its fields are for Change once it has been asked something.
type Faults struct {
	Registry http.Handler
	// Strike says what becomes of a request; nil: nothing does. It is called by one goroutine at a time, and may change the
	// other fields.
	Strike func(r *http.Request) Fault
	// NoRanges has the registry not know of parts of blobs.
	NoRanges bool

	mu  sync.Mutex
	log []*Request
}

// Fault is what becomes of a request. The zero Fault is that it is answered.
type Fault struct {
	Drop       bool   // the connection ends before there is an answer
	Status     int    // of the answer, which is not the registry's
	RetryAfter string // header of that answer
	// Cut ends the body after this many bytes of the blob, counted from its start; 0 does not.
	Cut int64
	// Stall has nothing follow there, instead.
	Stall bool
	// Spoil gives other bytes, as many.
	Spoil bool
}

// Request is what was asked and given.
type Request struct {
	Method, Path string
	Status       int
	First        int64 // of the bytes that were given, where they are in the blob
	Bytes        int64 // that were given
}

// String is for failures of tests.
func (r Request) String() string {
	return fmt.Sprintf("%s %s: %d, %d bytes from %d on", r.Method, r.Path, r.Status, r.Bytes, r.First)
}

// Requests are those so far but for those of authentication.
func (f *Faults) Requests() (log []Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.log {
		log = append(log, *r)
	}
	return log
}

// Blobs are the requests so far for the bytes of blobs, by the blobs' digests.
func (f *Faults) Blobs() map[string][]Request {
	blobs := map[string][]Request{}
	for _, r := range f.Requests() {
		if _, digest, is := strings.Cut(r.Path, "/blobs/"); is && r.Method == http.MethodGet {
			blobs[digest] = append(blobs[digest], r)
		}
	}
	return blobs
}

// Forget empties the list of requests.
func (f *Faults) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

// Change changes fields between two requests.
func (f *Faults) Change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// StrikeBy changes what becomes of requests.
func (f *Faults) StrikeBy(strike func(r *http.Request) Fault) { f.Change(func() { f.Strike = strike }) }

func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := &struck{ResponseWriter: w, Faults: f, done: r.Context().Done(), seen: &Request{Method: r.Method, Path: r.URL.Path}}
	var registry http.Handler
	s.fault, registry = f.arrive(r, s.seen)
	switch {
	case s.fault.Drop:
		panic(http.ErrAbortHandler)
	case s.fault.Status != 0:
		if s.fault.RetryAfter != "" {
			w.Header().Set("Retry-After", s.fault.RetryAfter)
		}
		s.WriteHeader(s.fault.Status)
	default:
		registry.ServeHTTP(s, r)
	}
}

// arrive takes note of a request and decides what becomes of it, and who answers it.
func (f *Faults) arrive(r *http.Request, seen *Request) (fault Fault, registry http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seen.Path != "/v2/" && seen.Path != "/token" {
		f.log = append(f.log, seen)
	}
	if f.Strike != nil {
		fault = f.Strike(r)
	}
	if f.NoRanges {
		r.Header.Del("Range")
	}
	return fault, f.Registry
}

// struck is an answer that may end early.
type struck struct {
	http.ResponseWriter
	*Faults
	fault Fault
	done  <-chan struct{}
	seen  *Request
}

// WriteHeader takes note of the part of a blob that is given.
func (s *struck) WriteHeader(status int) {
	s.mu.Lock()
	s.seen.Status = status
	if part, ok := strings.CutPrefix(s.Header().Get("Content-Range"), "bytes "); ok && status == http.StatusPartialContent {
		first, _, _ := strings.Cut(part, "-")
		s.seen.First, _ = strconv.ParseInt(first, 10, 64) // what is no number is none of a registry that is tested with this
	}
	s.mu.Unlock()
	s.ResponseWriter.WriteHeader(status)
}

func (s *struck) Write(p []byte) (int, error) {
	if s.seen.Status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	give := p[:s.left(len(p))]
	if s.fault.Spoil {
		give = spoilt(give)
	}
	n, err := s.ResponseWriter.Write(give)
	if err != nil || n == len(p) {
		return n, err
	}
	s.end()
	return n, http.ErrAbortHandler
}

func spoilt(p []byte) []byte {
	b := make([]byte, len(p))
	for i := range b {
		b[i] = ^p[i]
	}
	return b
}

// left is how many of n bytes are given; who gets them finds them in the list of requests.
func (s *struck) left(n int) int64 {
	left := int64(n)
	if s.fault.Cut > 0 {
		left = min(left, max(s.fault.Cut-s.seen.First-s.seen.Bytes, 0))
	}
	s.mu.Lock()
	s.seen.Bytes += left
	s.mu.Unlock()
	return left
}

// end sends what there is, and then no more.
func (s *struck) end() {
	if f, ok := s.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	if s.fault.Stall {
		<-s.done
	}
	panic(http.ErrAbortHandler)
}
