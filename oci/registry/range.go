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

// OpenRange asks for a part of a blob. Whether a registry gives parts is
// found by asking: most that do don't say so in Accept-Ranges. The range is a
// closed one, since some refuse those without an end.
func (s *Source) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	r, err := s.openRange(ctx, desc, offset, length)
	if err != nil {
		return nil, fmt.Errorf("%s: blob %s: %w", s.ref, oci.Printable(desc.Digest.String(), 100), err)
	}
	return r, nil
}

func (s *Source) openRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(oci.CheckDescriptor(desc), oci.CheckRange(desc, offset, length)); err != nil {
		return nil, err
	}
	h := http.Header{}
	h.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	resp, err := s.send(ctx, http.MethodGet, s.url("blobs", desc.Digest.String()), h,
		http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, err
	}
	if err := checkPart(resp, desc.Size, offset, length); err != nil {
		return nil, errors.Join(err, resp.Close())
	}
	resp.want = length
	return resp, nil
}

// checkPart compares what an answer says it has with what was asked for.
func checkPart(r *response, size, offset, length int64) error {
	if r.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: GET %s with a range: %s", oci.ErrNoRange, r.url, r.Status)
	}
	var first, last int64
	total := ""
	got := r.Header.Get("Content-Range")
	n, err := fmt.Sscanf(got, "bytes %d-%d/%s", &first, &last, &total)
	if n != 3 || err != nil || first != offset || last != offset+length-1 || total != fmt.Sprint(size) && total != "*" {
		return fmt.Errorf("%w: GET %s: asked for bytes %d-%d of %d, got %s",
			oci.ErrNoRange, r.url, offset, offset+length-1, size, oci.Printable(got, 100))
	}
	if r.ContentLength >= 0 && r.ContentLength != length {
		return &oci.SizeError{What: "answer of " + r.url, Want: length, Got: r.ContentLength}
	}
	return nil
}
