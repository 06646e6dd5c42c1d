package registry_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// fake is a registry that takes images, and does to requests what a test wants.
// As Docker's does it keeps what has come of a chunk when a connection breaks.
type fake struct {
	mu        sync.Mutex
	blobs     map[string][]byte // by REPOSITORY@DIGEST
	manifests map[string][]byte // by REPOSITORY:ID
	types     map[string]string
	uploads   map[string][]byte
	next      int
	log       []string // METHOD KIND of each request
	received  int64    // bytes of bodies

	absolute bool  // Locations with a host
	min, max int64 // bytes of a chunk, and of a body; 0: any
	// fault may answer a request itself, and says so. It is called with how many
	// of this kind have come before.
	fault func(w http.ResponseWriter, r *http.Request, kind string, before int) bool
	// cut is after which part of a body, in percent, the connection breaks, by
	// how many bodies have come before; 0: it doesn't.
	cut    func(before int) int
	bodies int
	// mounts tells whether a blob is taken over.
	mounts bool
}

func newFake() *fake {
	return &fake{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, uploads: map[string][]byte{}}
}

// kindOf is the kind of a request: its method and what it is about.
func kindOf(r *http.Request) string {
	for _, what := range []string{"/blobs/uploads/", "/blobs/", "/manifests/"} {
		if strings.Contains(r.URL.Path, what) {
			return r.Method + " " + strings.Trim(what, "/")
		}
	}
	return r.Method + " ping"
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOf(r)
	f.mu.Lock()
	before := 0
	for _, k := range f.log {
		if k == kind {
			before++
		}
	}
	f.log = append(f.log, kind)
	f.mu.Unlock()
	if f.fault != nil && f.fault(w, r, kind, before) {
		return
	}
	repo, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/"):
		f.manifest(w, r)
	case strings.HasPrefix(rest, "uploads/"):
		f.upload(w, r, repo, strings.TrimPrefix(rest, "uploads/"))
	default:
		f.mu.Lock()
		b, ok := f.blobs[repo+"@"+rest]
		f.mu.Unlock()
		if !ok {
			refuse(w, 404, "BLOB_UNKNOWN", "no such blob")
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Header().Set("Docker-Content-Digest", rest)
		_, _ = w.Write(b)
	}
}

func (f *fake) manifest(w http.ResponseWriter, r *http.Request) {
	repo, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	raw, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manifests[repo+":"+id], f.types[repo+":"+id] = raw, r.Header.Get("Content-Type")
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
	w.WriteHeader(http.StatusCreated)
}

// place writes where an upload goes on. What is in its query has to come back.
func (f *fake) place(w http.ResponseWriter, r *http.Request, repo, id string) {
	at := "/v2/" + repo + "/blobs/uploads/" + id + "?_state=" + id + "%3D"
	if f.absolute {
		at = "http://" + r.Host + at
	}
	w.Header().Set("Location", at)
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(f.uploads[id])-1, 0)))
}

func (f *fake) upload(w http.ResponseWriter, r *http.Request, repo, id string) {
	q := r.URL.Query()
	if r.Method == http.MethodPost {
		if from := q.Get("from"); f.mounts && from != "" {
			f.mu.Lock()
			defer f.mu.Unlock()
			if b, ok := f.blobs[from+"@"+q.Get("mount")]; ok {
				f.blobs[repo+"@"+q.Get("mount")] = b
				w.Header().Set("Docker-Content-Digest", q.Get("mount"))
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		f.mu.Lock()
		f.next++
		id = fmt.Sprint("upload-", f.next)
		f.uploads[id] = nil
		f.mu.Unlock()
		if f.min > 0 {
			w.Header().Set("OCI-Chunk-Min-Length", fmt.Sprint(f.min))
		}
		f.place(w, r, repo, id)
		w.WriteHeader(http.StatusAccepted)
		return
	}
	f.mu.Lock()
	have, ok := f.uploads[id]
	f.mu.Unlock()
	switch {
	case !ok || q.Get("_state") != id+"=":
		refuse(w, 404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
		return
	case r.Method == http.MethodGet:
		f.place(w, r, repo, id)
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodDelete:
		f.mu.Lock()
		delete(f.uploads, id)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return
	case f.max > 0 && r.ContentLength > f.max:
		refuse(w, 413, "SIZE_INVALID", "too large")
		return
	case r.Method == http.MethodPatch && r.Header.Get("Content-Range") != fmt.Sprintf("%d-%d", len(have), int64(len(have))+r.ContentLength-1):
		f.place(w, r, repo, id)
		refuse(w, 416, "BLOB_UPLOAD_INVALID", "the range is "+r.Header.Get("Content-Range"))
		return
	}
	f.receive(r, id)
	if r.Method == http.MethodPatch {
		f.place(w, r, repo, id)
		w.WriteHeader(http.StatusAccepted)
		return
	}
	f.finish(w, repo, id, q.Get("digest"))
}

// receive reads a body as it comes, or a part of it.
func (f *fake) receive(r *http.Request, id string) {
	cut := int64(-1)
	if r.ContentLength > 0 {
		f.mu.Lock()
		before := f.bodies
		f.bodies++
		f.mu.Unlock()
		if f.cut != nil && f.cut(before) > 0 {
			cut = r.ContentLength * int64(f.cut(before)) / 100
		}
	}
	b := make([]byte, 8<<10)
	for {
		if cut >= 0 {
			b = b[:min(int64(cap(b)), cut)]
		}
		n, err := r.Body.Read(b)
		f.mu.Lock()
		if have, ok := f.uploads[id]; ok { // a request that was broken off may end after the one that gives the upload up
			f.uploads[id] = append(have, b[:n]...)
		}
		f.received += int64(n)
		f.mu.Unlock()
		if cut >= 0 {
			if cut -= int64(n); cut <= 0 {
				panic(http.ErrAbortHandler)
			}
		}
		if err != nil {
			return
		}
	}
}

func (f *fake) finish(w http.ResponseWriter, repo, id, want string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.uploads[id]
	if !ok {
		refuse(w, 404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
		return
	}
	if got := digest.NewDigestFromBytes(digest.SHA256, sum(b)).String(); got != want {
		refuse(w, 400, "DIGEST_INVALID", "it is "+got)
		return
	}
	delete(f.uploads, id)
	f.blobs[repo+"@"+want] = b
	w.Header().Set("Docker-Content-Digest", want)
	w.WriteHeader(http.StatusCreated)
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// count is how many requests of a kind have come.
func (f *fake) count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, k := range f.log {
		if k == kind {
			n++
		}
	}
	return n
}

// has fails unless a blob is there, and no upload is left open.
func (f *fake) has(t *testing.T, repo string, b []byte) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got, ok := f.blobs[repo+"@"+digest.FromBytes(b).String()]; !ok || string(got) != string(b) {
		t.Errorf("the registry has %d bytes of the blob (%v), want %d; it was asked %q", len(got), ok, len(b), f.log)
	}
}

// empty fails if a blob or a tag is there.
func (f *fake) empty(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.blobs) > 0 || len(f.manifests) > 0 {
		t.Errorf("the registry has %d blobs and %d manifests, want none", len(f.blobs), len(f.manifests))
	}
}
