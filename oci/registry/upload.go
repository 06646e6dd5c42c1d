package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/flatroot/flatroot/oci"
)

const (
	// maxChunk is how much of a blob goes into one request, in bytes. Registries
	// forget up to a chunk when a connection breaks, and those in front of which
	// something limits requests allow 100 MB or so; a chunk that is too large for
	// one is cut in half. Nothing of a chunk is kept in memory.
	maxChunk = 32 << 20
	// minChunk is the size in bytes that is not cut in half any more.
	minChunk = 64 << 10
	// progress is how many bytes a registry has to have taken, though a request
	// failed, so that the failures before don't count any more.
	progress = 1 << 20
	// maxUploads is how many uploads of one blob a registry may lose.
	maxUploads = 6
	// cancelTime bounds how long is tried to tell a registry that an upload is given up.
	cancelTime = 5 * time.Second
)

// opened is an upload that a registry has begun.
type opened struct {
	at  *url.URL // where its next request goes
	min int64    // bytes that chunks, but for the last, must have; 0: the registry doesn't say
}

// upload is the sending of one blob.
//
//	POST → PATCH, of one chunk each → PUT
//
// When one fails, the registry is asked (GET) how far it has come. If it knows
// of no upload any more, a new one is begun.
type upload struct {
	s       *Sink
	client  *http.Client
	c       *content
	*opened       // nil: none was begun
	chunk   int64 // bytes of the next chunks
	whole   bool  // all goes into the PUT
	offset  int64 // bytes that the registry has
	best    int64 // the most that offset has ever been
	begun   int   // how many uploads
	lost    bool  // it has to be asked for that
	asked   bool  // offset is its answer, and nothing was sent since
	put     bool  // the PUT was sent: the blob may be there though no answer came
	done    bool
	tries   patience
}

func (u *upload) run(ctx context.Context) error {
	for !u.done {
		err := u.step(ctx)
		if err == nil {
			continue
		}
		if err := u.recover(ctx, err); err != nil {
			u.giveUp(ctx)
			return err
		}
	}
	return nil
}

// step makes the next request.
func (u *upload) step(ctx context.Context) error {
	size := u.c.desc.Size
	switch {
	case u.opened == nil:
		return u.begin(ctx)
	case u.lost:
		return u.ask(ctx)
	case u.offset < size && !u.whole:
		return u.patch(ctx, min(size-u.offset, max(u.chunk, u.min)))
	}
	return u.finish(ctx)
}

// recover decides how to go on after a failure.
func (u *upload) recover(ctx context.Context, failure error) error {
	if err := u.c.failure(); err != nil {
		return err
	}
	he := new(HTTPError)
	after, passing := mayPass(failure)
	switch {
	case ctx.Err() != nil:
		return failure
	case passing:
		u.lost = true
	case !errors.As(failure, &he), u.opened == nil:
		return failure
	case he.Status == http.StatusRequestEntityTooLarge:
		if u.whole || u.chunk <= max(minChunk, u.min) {
			return failure
		}
		u.chunk /= 2
		u.lost = true
		return nil // what has failed is not the registry
	case he.Status == http.StatusMethodNotAllowed || he.Status == http.StatusNotImplemented:
		if u.whole {
			return failure
		}
		u.whole = true // it knows no chunks
		u.forget()
		return nil
	case he.Status == http.StatusRequestedRangeNotSatisfiable && !u.asked:
		u.lost = true
	case u.lost && (he.Status == http.StatusNotFound || he.Status == http.StatusGone):
		// What has failed before is counted, and so are the uploads. Docker's registry, for one, can't go on with one that
		// was cut off in a chunk.
		u.forget()
		return nil
	case he.Status == http.StatusNotFound, he.Status == http.StatusGone, he.Status == http.StatusRequestedRangeNotSatisfiable,
		he.Status == http.StatusBadRequest && he.hasCode("BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID"):
		u.forget()
	default:
		return failure
	}
	if u.lost && u.whole {
		u.forget() // a part of a blob can't be gone on with in one request
	}
	return u.tries.rest(ctx, "blob "+u.c.desc.Digest.String(), failure, after)
}

// forget begins anew.
func (u *upload) forget() { u.opened, u.offset, u.lost, u.asked = nil, 0, false, false }

// begin begins an upload, unless an earlier one has brought the blob there.
func (u *upload) begin(ctx context.Context) error {
	if u.begun++; u.begun > maxUploads {
		return fmt.Errorf("%w: the registry has lost %d uploads of it", errLocation, maxUploads)
	}
	if u.put {
		has, err := u.s.hasBlob(ctx, u.c.desc)
		if has || err != nil {
			u.done = has
			return err
		}
		u.put = false
	}
	resp, err := u.exchange(ctx, request{method: http.MethodPost, url: u.s.url("blobs", "uploads/")}, http.StatusAccepted)
	if err != nil {
		return err
	}
	begun, err := u.s.openedBy(resp)
	if err == nil {
		u.opened, u.lost = begun, false
	}
	return errors.Join(err, resp.Close())
}

// openedBy reads where an upload goes on, and how.
func (s *Sink) openedBy(resp *response) (*opened, error) {
	at, err := s.location(resp)
	if err != nil {
		return nil, err
	}
	if at == nil {
		return nil, fmt.Errorf("%w: %s began an upload and did not say where", errLocation, resp.url)
	}
	o := &opened{at: at}
	if n, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 {
		o.min = n
	}
	return o, nil
}

func (u *upload) exchange(ctx context.Context, q request, want ...int) (*response, error) {
	return u.s.exchange(ctx, u.client, q, want...)
}

// ask asks how far the upload has come.
func (u *upload) ask(ctx context.Context) error {
	resp, err := u.exchange(ctx, request{method: http.MethodGet, url: u.at.String()}, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
	if err != nil {
		return err
	}
	has, err := received(resp.Header.Get("Range"))
	switch {
	case err != nil, has > u.c.sent(), has > u.c.desc.Size:
		// It can't be: it is another upload, or none that can be gone on with.
		u.forget()
	default:
		u.lost, u.asked = false, true
		u.reached(has, progress)
		err = u.follow(resp)
	}
	return errors.Join(err, resp.Close())
}

// reached notes how far the upload has come. Failures before count no more once
// it is farther, by some bytes, than it ever was: one that is thrown back again
// and again comes to an end.
func (u *upload) reached(offset, by int64) {
	u.offset = offset
	if offset >= u.best+by || offset == u.c.desc.Size && offset > u.best {
		u.best, u.tries = offset, u.s.patience()
	}
}

// received reads the Range of an upload, which is inclusive: 0-99 says that 100
// bytes are there. 0-0 is what registries say of none.
func received(r string) (int64, error) {
	first, last, ok := strings.Cut(strings.TrimLeft(r, "bytes= "), "-")
	n, err := strconv.ParseInt(last, 10, 63)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, fmt.Errorf("%w: it gives no range of an upload, but %s", errNotAsFar, oci.Printable(r, 100))
	}
	if n == 0 {
		return 0, nil
	}
	return n + 1, nil
}

// follow takes the place of the next request from an answer that has one.
func (u *upload) follow(resp *response) error {
	at, err := u.s.location(resp)
	if err == nil && at != nil {
		u.at = at
	}
	return err
}

// patch sends a chunk.
func (u *upload) patch(ctx context.Context, n int64) error {
	from := u.offset
	u.asked = false
	resp, err := u.exchange(ctx, request{
		method: http.MethodPatch, url: u.at.String(), size: n, body: u.body(from, n),
		header: http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Content-Range": {fmt.Sprintf("%d-%d", from, from+n-1)},
		},
	}, http.StatusAccepted, http.StatusNoContent, http.StatusCreated, http.StatusOK)
	if err != nil {
		return err
	}
	err = u.follow(resp)
	// It may have taken less, and says so.
	if has, rerr := received(resp.Header.Get("Range")); rerr == nil && has < from+n {
		u.reached(has, progress)
		err = errors.Join(err, fmt.Errorf("%s has taken %d of %d bytes of a chunk: %w", resp.url, max(has-from, 0), n, errNotAsFar))
	} else {
		u.reached(from+n, 1)
	}
	return errors.Join(err, resp.Close())
}

func (u *upload) body(from, n int64) func(func(error)) io.ReadCloser {
	return func(stalled func(error)) io.ReadCloser { return u.c.open(from, n, u.s.opts.Timeouts.Stall, stalled) }
}

// finish tells the registry the digest, once what was sent has it, and sends
// the blob itself if it goes in one request.
func (u *upload) finish(ctx context.Context) error {
	at := *u.at
	q := at.Query()
	q.Set("digest", u.c.desc.Digest.String())
	at.RawQuery = q.Encode()
	r := request{method: http.MethodPut, url: at.String(), header: http.Header{"Content-Type": {"application/octet-stream"}}}
	if u.whole {
		r.size, r.body = u.c.desc.Size, u.body(0, u.c.desc.Size)
	} else if err := u.verified(); err != nil {
		return err
	}
	u.put = true
	resp, err := u.exchange(ctx, r, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return err
	}
	if u.whole {
		err = u.verified()
	}
	err = errors.Join(err, confirm(resp, u.c.desc.Digest), resp.Close())
	u.done = err == nil
	return err
}

// verified holds what was sent against the descriptor. That it is something
// else is an error for good.
func (u *upload) verified() error {
	err := u.c.verify()
	if err != nil {
		u.c.mu.Lock()
		u.c.err = err
		u.c.mu.Unlock()
	}
	return err
}

// giveUp tells the registry, if it can be told, that an upload will not be gone
// on with.
func (u *upload) giveUp(ctx context.Context) {
	if u.opened == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer cancel()
	r := request{method: http.MethodDelete, url: u.at.String()}
	if resp, err := u.exchange(ctx, r, http.StatusNoContent, http.StatusOK, http.StatusAccepted); err == nil {
		_ = resp.Close() // it is no matter any more
	}
}

// errNotAsFar is why an upload has to be asked after.
var errNotAsFar = errors.New("the upload is not as far as it should be")

// errLocation is why an upload does not go where a registry says.
var errLocation = errors.New("an upload can't go on")

// location reads where to go on; nil: the answer doesn't say. What has no host
// is on the one that has answered. HTTPS is not left.
func (s *Sink) location(resp *response) (*url.URL, error) {
	text := resp.Header.Get("Location")
	if text == "" {
		return nil, nil
	}
	asked := resp.Request.URL
	at, err := asked.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s names a place that is none", errLocation, resp.url)
	}
	at.User, at.Fragment = nil, ""
	switch {
	case at.Scheme != "http" && at.Scheme != "https" || at.Host == "":
		return nil, fmt.Errorf("%w: %s leads to %s", errLocation, resp.url, redact(at))
	case asked.Scheme == "https" && at.Scheme == "http" && at.Host == asked.Host:
		at.Scheme = "https" // what is in front of the registry has taken TLS off, and it doesn't know
	case asked.Scheme == "https" && at.Scheme == "http" && !s.opts.Insecure:
		return nil, fmt.Errorf("%w: %s leads from HTTPS to %s", errLocation, resp.url, redact(at))
	}
	return at, nil
}

// hasCode tells whether the registry gave one of these reasons.
func (e *HTTPError) hasCode(codes ...string) bool {
	for _, c := range codes {
		if strings.Contains(e.Message, c) {
			return true
		}
	}
	return false
}
