package index

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/flatroot/flatroot/oci"
)

// How it is decided what is fetched of a layer, and whether that is better than all of it. Figures are in bytes of a blob.
const (
	// requestBytes is what one more request costs: what comes in the time of a round trip of 10 ms at 50 Mbit/s. It is also the
	// largest gap between two parts that is fetched along with them.
	requestBytes = 64 << 10
	// gapShare: gaps are fetched along as long as they come to no more than one of so many bytes that are needed.
	gapShare = 10
	// savingShare: parts are fetched if that saves at least one of so many bytes, requests counted.
	savingShare = 8
	// minBlob is the smallest blob whose tables are looked at.
	minBlob = 16 * requestBytes
	// requestsAtOnce bounds the requests for parts that an import has open.
	requestsAtOnce = 8
)

// mergeSpans gives what is to be requested so that all that is needed comes: in order, apart, and with the smallest gaps
// fetched along. extra is what was or will be needed besides, in bytes.
func mergeSpans(need []span, extra int64) []span {
	var apart []span
	for _, s := range slices.SortedFunc(slices.Values(need), func(a, b span) int { return cmp.Compare(a.offset, b.offset) }) {
		apart = joinSpan(apart, s, 0)
	}
	var gaps []int64
	for i := 1; i < len(apart); i++ {
		gaps = append(gaps, apart[i].offset-apart[i-1].end)
	}
	room := (totalLength(apart) + extra) / gapShare
	gap := int64(requestBytes)
	for _, g := range slices.Sorted(slices.Values(gaps)) {
		if room -= g; room < 0 {
			gap = min(gap, g-1)
			break
		}
	}
	var merged []span
	for _, s := range apart {
		merged = joinSpan(merged, s, gap)
	}
	return merged
}

// joinSpan appends a span that begins no earlier than the last one, to that if it is no farther away than gap.
func joinSpan(list []span, s span, gap int64) []span {
	if last := len(list) - 1; last >= 0 && s.offset-list[last].end <= gap {
		list[last].end = max(list[last].end, s.end)
		return list
	}
	return append(list, s)
}

func totalLength(list []span) (n int64) {
	for _, s := range list {
		n += s.length()
	}
	return n
}

// saves tells whether to fetch these parts of a blob is better than to fetch all of it.
func saves(parts []span, blob int64) bool {
	return totalLength(parts)+int64(len(parts))*requestBytes <= blob-blob/savingShare
}

// blobParts is a blob of which parts are fetched, into a file with holes where they are at their places.
type blobParts struct {
	src      oci.RangeSource
	desc     ocispec.Descriptor
	requests *semaphore.Weighted
	file     *os.File
	fetched  atomic.Int64
	tell     func(n int64) // for progress; may be nil
}

// fetch gets one part.
func (b *blobParts) fetch(ctx context.Context, s span) error {
	if err := b.requests.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer b.requests.Release(1)
	r, err := b.src.OpenRange(ctx, b.desc, s.offset, s.length())
	if err != nil {
		return &partError{s, err}
	}
	defer r.Close()
	n, err := io.Copy(&partWriter{io.NewOffsetWriter(b.file, s.offset), b}, io.LimitReader(r, s.length()))
	if err == nil && n < s.length() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &partError{s, err}
	}
	return nil
}

// partError says that a part can't be had.
type partError struct {
	span
	err error
}

func (e *partError) Error() string {
	return fmt.Sprintf("bytes %d to %d of the blob: %v", e.offset, e.end, e.err)
}
func (e *partError) Unwrap() error { return e.err }

// elsewhere tells whether to fetch the parts once more after an error: what came was wrong, and somebody else may have it
// right. An error about another digest than those of the tables and the contents is about what these say, not about what came.
func (b *blobParts) elsewhere(err error, diffID oci.DiffID) bool {
	src, ok := b.src.(oci.MirroredSource)
	part, size, claim := (*partError)(nil), (*oci.SizeError)(nil), (*oci.DigestError)(nil)
	switch {
	case !ok || !ofBytes(err), errors.As(err, &part) && !errors.As(err, &size):
		return false
	case errors.As(err, &claim) && claim.Want == digest.Digest(diffID):
		return false
	}
	return src.Distrust(b.desc, err)
}

// partWriter counts.
type partWriter struct {
	w io.Writer
	b *blobParts
}

func (w *partWriter) Write(p []byte) (int, error) {
	w.b.fetched.Add(int64(len(p)))
	if w.b.tell != nil && len(p) > 0 {
		w.b.tell(int64(len(p)))
	}
	return w.w.Write(p)
}

// fetchAll gets parts that are needed at once.
func (b *blobParts) fetchAll(ctx context.Context, parts []span) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range parts {
		g.Go(func() error { return b.fetch(ctx, s) })
	}
	return g.Wait()
}

// check compares a part that was fetched with its digest.
func (b *blobParts) check(what string, s span, want digest.Digest) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(b.file, s.offset, s.length())); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, h); got != want {
		return &oci.DigestError{What: what, Want: want, Got: got}
	}
	return nil
}

// readTables fetches both tables and reads the TOC.
func (b *blobParts) readTables(ctx context.Context, at *chunkedTables, l tocLimits) (*toc, error) {
	if err := b.fetchAll(ctx, mergeSpans([]span{at.toc.span(), at.tarSplit.span()}, 0)); err != nil {
		return nil, err
	}
	if err := b.check("table of contents", at.toc.span(), at.tocSum); err != nil {
		return nil, err
	}
	f, err := newFrames(b.file)
	if err != nil {
		return nil, err
	}
	defer f.close()
	r, err := f.open(at.toc.span(), at.toc.size)
	if err != nil {
		return nil, err
	}
	t, err := parseTOC(r, l)
	if err != nil {
		return nil, err
	}
	return t, b.check("tar-split data", at.tarSplit.span(), t.tarSplitSum)
}

func (p tablePlace) span() span { return span{p.offset, p.offset + p.length} }

// missing is where the contents are that the store lacks.
func (t *toc) missing(have []storedContent) (need []span) {
	for i, c := range t.contents {
		if have[i].missing() {
			need = append(need, c.span)
		}
	}
	return need
}

// arrivals are parts that are being fetched while who needs them waits, in their order.
type arrivals struct {
	parts []span
	there []chan struct{} // closed once the part with this number is there
	group *errgroup.Group
	ctx   context.Context // ends with the error of the first that can't be had
}

func (b *blobParts) start(ctx context.Context, parts []span) *arrivals {
	a := &arrivals{parts: parts, there: make([]chan struct{}, len(parts))}
	for i := range a.there {
		a.there[i] = make(chan struct{})
	}
	a.group, a.ctx = errgroup.WithContext(ctx)
	next := make(chan int)
	a.group.Go(func() error {
		defer close(next)
		for i := range parts {
			select {
			case next <- i:
			case <-a.ctx.Done():
				return context.Cause(a.ctx)
			}
		}
		return nil
	})
	for range min(requestsAtOnce, len(parts)) {
		a.group.Go(func() error {
			for i := range next {
				if err := b.fetch(a.ctx, parts[i]); err != nil {
					return err
				}
				close(a.there[i])
			}
			return nil
		})
	}
	return a
}

var errNoPart = errors.New("it is in no part that was asked for")

// wait returns once a span, which lies in one part, is there.
func (a *arrivals) wait(s span) error {
	i, exact := slices.BinarySearchFunc(a.parts, s.offset, func(p span, offset int64) int { return cmp.Compare(p.offset, offset) })
	if !exact {
		i--
	}
	if i < 0 || a.parts[i].end < s.end {
		return errNoPart
	}
	select {
	case <-a.there[i]:
		return nil
	default:
	}
	select {
	case <-a.there[i]:
		return nil
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	}
}
