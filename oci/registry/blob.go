package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
)

// blob reads a blob, or a part of one, and goes on where it was when it breaks off: what it gives is what one answer would
// have been. Whether all answers were of one and the same blob shows in the digest at the end.
type blob struct {
	s        *Source
	ctx      context.Context
	desc     ocispec.Descriptor
	patience *patience
	at, end  int64 // of the blob: the next byte to be given, and where it ends
	// part: if the registry can't give parts, that is an error. Else all of the blob is asked for, and what was given
	// before is skipped.
	part    bool
	noParts bool // the registry has been asked for a part, to no avail

	from *repository // of body
	body *response   // nil: to be asked for
	skip int64       // bytes of body that were given before
	err  error       // for good
}

// open asks for what is left.
func (b *blob) open() error {
	out := b.s.distrusted(b.desc.Digest)
	return b.s.askBut(b.ctx, "blob "+b.desc.Digest.String(), b.patience, out, func(e *repository) error {
		resp, err := b.request(e)
		if errors.Is(err, oci.ErrNoRange) && !b.part {
			b.noParts = true
			resp, err = b.request(e)
		}
		if err == nil {
			b.from, b.body = e, resp
			b.s.gave(b.desc.Digest, e)
		}
		return err
	})
}

// request asks one endpoint: for the part that is left, or for all if nothing was given yet or there are no parts.
func (b *blob) request(e *repository) (*response, error) {
	h, want := http.Header{}, []int{http.StatusOK}
	inParts := b.part || b.at > 0 && !b.noParts
	if inParts {
		// A closed range, since some registries refuse those without an end.
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", b.at, b.end-1))
		want = append(want, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := e.send(b.ctx, http.MethodGet, e.url("blobs", b.desc.Digest.String()), h, want...)
	if err != nil {
		return nil, err
	}
	b.skip = 0
	switch whole := resp.StatusCode == http.StatusOK; {
	case whole && !b.part: // nobody has to give parts
		b.skip, resp.want = b.at, b.desc.Size
		if n := resp.ContentLength; n >= 0 && n != b.desc.Size {
			err = &oci.SizeError{What: "answer of " + resp.url, Want: b.desc.Size, Got: n}
		}
	default:
		resp.want = b.end - b.at
		err = checkPart(resp, b.desc.Size, b.at, b.end-b.at)
	}
	if err != nil {
		return nil, errors.Join(err, resp.Close())
	}
	return resp, nil
}

// Read gives the next bytes, from another answer if the last one broke off.
func (b *blob) Read(p []byte) (n int, err error) {
	if b.err == nil {
		n, b.err = b.give(p)
	}
	return n, b.err
}

func (b *blob) give(p []byte) (int, error) {
	for b.at < b.end || b.body != nil {
		if b.body == nil {
			if err := b.open(); err != nil {
				return 0, err
			}
		}
		n, err := b.read(p)
		b.at += int64(n)
		if n > 0 {
			b.patience.gain(n)
		}
		broken := (*BodyError)(nil)
		if !errors.As(err, &broken) {
			return n, err
		}
		if err := b.goOn(broken); err != nil || n > 0 {
			return n, err
		}
	}
	return 0, io.EOF
}

// read reads from the body that there is.
func (b *blob) read(p []byte) (int, error) {
	n, err := io.CopyN(io.Discard, b.body, b.skip)
	b.skip -= n
	if err != nil {
		return 0, err
	}
	return b.body.Read(p)
}

// goOn leaves a body that broke off, and waits, or returns the reason why there is no use in that.
func (b *blob) goOn(broken *BodyError) error {
	broken.Got, broken.Want = b.at, b.end
	err := errors.Join(error(broken), b.Close())
	if b.at == b.end {
		return nil
	}
	b.s.askOthersFirst(b.from)
	return b.patience.wait(b.ctx, "blob "+b.desc.Digest.String(), err)
}

// Close ends the request, if there is one.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}

// OpenBlob begins to fetch a blob. What it returns fails at its end with a
// *BodyError or *oci.SizeError unless there were desc.Size bytes.
func (s *Source) OpenBlob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return s.OpenBlobFrom(ctx, desc, 0)
}

// OpenBlobFrom begins to fetch what follows the first bytes of a blob. A
// registry that has no parts of blobs is asked for all of it.
func (s *Source) OpenBlobFrom(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	err := oci.CheckDescriptor(desc)
	if err == nil && (offset < 0 || offset > desc.Size) {
		err = fmt.Errorf("from byte %d of %d: no such part", offset, desc.Size)
	}
	return s.openBlob(&blob{s: s, ctx: ctx, desc: desc, at: offset, end: desc.Size}, err)
}

// OpenRange asks for a part of a blob. Whether a registry gives parts is
// found by asking: most that do don't say so in Accept-Ranges.
func (s *Source) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	err := errors.Join(oci.CheckDescriptor(desc), oci.CheckRange(desc, offset, length))
	return s.openBlob(&blob{s: s, ctx: ctx, desc: desc, at: offset, end: offset + length, part: true}, err)
}

// openBlob asks for the first answer, unless the caller has found an error.
func (s *Source) openBlob(b *blob, err error) (io.ReadCloser, error) {
	b.patience = s.patience()
	if err == nil && !b.part {
		s.forgetGivers(b.desc.Digest)
	}
	if err == nil && (b.at < b.end || b.at == 0) {
		err = b.open()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: blob %s: %w", s.ref, oci.Printable(b.desc.Digest.String(), 100), err)
	}
	return b, nil
}

// checkPart compares what an answer says it has with what was asked for.
func checkPart(r *response, size, offset, length int64) error {
	var first, last, total int64
	text := r.Header.Get("Content-Range")
	if r.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		if n, _ := fmt.Sscanf(text, "bytes */%d", &total); n == 1 && total != size {
			return otherSize(r, size, total)
		}
	}
	if r.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: GET %s with a range: %s", oci.ErrNoRange, r.url, r.Status)
	}
	n, _ := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total)
	switch {
	case n == 3 && total != size:
		return otherSize(r, size, total)
	case n < 2 || first != offset || last != offset+length-1:
		return fmt.Errorf("%w: GET %s: asked for bytes %d-%d of %d, got %s",
			oci.ErrNoRange, r.url, offset, offset+length-1, size, oci.Printable(text, 100))
	case r.ContentLength >= 0 && r.ContentLength != length:
		return &oci.SizeError{What: "answer of " + r.url, Want: length, Got: r.ContentLength}
	}
	return nil
}

// otherSize is about a registry that has another blob than the one asked for.
func otherSize(r *response, want, got int64) error {
	return &oci.SizeError{What: "blob of " + r.url, Want: want, Got: got}
}
