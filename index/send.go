package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Blob is a layer's blob that is to be sent to a sink.
type Blob struct {
	Layer oci.Layer
	// Title is what it is called in errors and, as an annotation of the descriptor, to a Progress.
	Title string
	// From are images that may have it at the same place as the sink, which can take it over from them then.
	From []oci.Reference
	// Open opens it. Once it has been sent it is closed.
	Open func(ctx context.Context) (io.ReadSeekCloser, error)
	// Staged is the blob, if it is on its way into the sink already: then it need not be opened.
	Staged oci.StagedBlob
}

// SendOptions are SendBlobs'.
type SendOptions struct {
	Jobs     int // blobs at once; 0: DefaultJobs
	Progress Progress
}

// SendBlobs has a sink get blobs, as Push does: those that it has not, and can't take over. Several are sent at once; the error
// is that of the first of those that fail. Of the report layers, bytes and mounted are set.
func SendBlobs(ctx context.Context, to oci.Sink, blobs []Blob, o SendOptions) (*PushReport, error) {
	if o.Progress == nil {
		o.Progress = silent{}
	}
	s := &sender{to: to, progress: o.Progress, report: PushReport{Layers: LayerCounts{Total: len(blobs)}}}
	groups := grouped(len(blobs), func(n int) digest.Digest { return blobs[n].Layer.Descriptor.Digest })
	err := atOnce(ctx, groups, o.Jobs, func(ctx context.Context, n int) error {
		b := blobs[n]
		if err := s.bring(ctx, b); err != nil {
			return fmt.Errorf("send %s: %w", b.Title, err)
		}
		return nil
	})
	return &s.report, err
}

// MountBlob has a sink take a blob over from where it may be, and tells whether that could be done.
func MountBlob(ctx context.Context, to oci.Sink, b Blob) (bool, error) {
	m, ok := to.(oci.Mounter)
	if !ok {
		return false, nil
	}
	for _, from := range b.From {
		if ok, err := m.MountBlob(ctx, b.Layer.Descriptor, from); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// StoredBlob is the blob of an image's layer, by its number, as the image's manifest lists it. Opening it fails with ErrNotKept
// if it was not kept; a tar that is not compressed need not be.
func StoredBlob(s *store.Store, i *Info, n int) Blob {
	return storedBlob(s, i.Layers[n], manifestPlace(s, i.Manifest))
}

func storedBlob(s *store.Store, l LayerInfo, manifest *oci.Reference) Blob {
	b := Blob{Layer: oci.Layer{DiffID: l.DiffID, Descriptor: l.descriptor()}}
	if manifest != nil {
		b.From = append(b.From, *manifest)
	}
	if o, err := LayerOrigin(s, l.DiffID); err == nil && o.Blob == l.Blob {
		if from := parsedPlace(o); from != nil {
			b.From = append(b.From, *from)
		}
	}
	b.Open = func(ctx context.Context) (io.ReadSeekCloser, error) {
		switch {
		case l.isTar():
			return openTar(ctx, s, l.DiffID), nil
		case l.Kept.IsZero():
			return nil, ErrNotKept
		}
		return openKept(s, l.Kept, l.descriptor())
	}
	return b
}

// isTar tells of a layer whose blob is its tar: the store has all of it, kept or not.
func (l *LayerInfo) isTar() bool { return l.Blob == digest.Digest(l.DiffID) }

// HasBlob tells whether the store can give the blob of a layer, as the image's manifest lists it.
func (l *LayerInfo) HasBlob() bool { return l.isTar() || !l.Kept.IsZero() }

// sender sends blobs to a sink, and counts what came of it.
type sender struct {
	to       oci.Sink
	progress Progress

	mu     sync.Mutex
	report PushReport
}

// count counts something for the report.
func (s *sender) count(add func(r *PushReport)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.report)
}

// bring has the sink get a blob: it has it, takes it over, or is sent it.
func (s *sender) bring(ctx context.Context, b Blob) error {
	if has, err := s.reused(ctx, b.Layer.Descriptor); has || err != nil {
		return err
	}
	mounted, err := MountBlob(ctx, s.to, b)
	if err != nil {
		return err
	}
	if mounted {
		s.count(func(r *PushReport) { r.Layers.Reused, r.Mounted = r.Layers.Reused+1, r.Mounted+1 })
		return nil
	}
	if b.Staged != nil {
		err := b.Staged.Publish(ctx)
		if err == nil {
			s.count(func(r *PushReport) { r.sent(b.Layer.Descriptor.Size) })
		}
		return err
	}
	f, err := b.Open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.send(ctx, b, f), f.Close())
}

func (s *sender) reused(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	has, err := s.to.HasBlob(ctx, desc)
	if has {
		s.count(func(r *PushReport) { r.Layers.Reused++ })
	}
	return has, err
}

func (s *sender) send(ctx context.Context, b Blob, r io.ReadSeeker) error {
	return s.sending(b, r, func(r io.Reader) error {
		err := s.to.PutBlob(ctx, b.Layer.Descriptor, r)
		if err == nil {
			s.count(func(r *PushReport) { r.sent(b.Layer.Descriptor.Size) })
		}
		return err
	})
}

// sending has a layer's blob or tar read, and tells of it.
func (s *sender) sending(b Blob, r io.ReadSeeker, send func(io.Reader) error) error {
	l := b.Layer
	if b.Title != "" {
		l.Descriptor.Annotations = map[string]string{ocispec.AnnotationTitle: b.Title}
	}
	tell := s.progress.Start(Sending, l)
	err := send(&tellReader{ReadSeeker: r, tell: tell})
	if err == nil && tell != nil {
		tell(0)
	}
	return err
}

// grouped puts numbers together whose keys are the same, in order.
func grouped[K comparable](n int, key func(n int) K) (groups [][]int) {
	group := map[K]int{}
	for i := range n {
		of := key(i)
		at, ok := group[of]
		if !ok {
			at = len(groups)
			group[of], groups = at, append(groups, nil)
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// atOnce does numbered jobs, several at once; those of a group one after the other. Which error is returned depends on the jobs
// alone: that of the lowest of those that fail, so that those below one that has failed are brought to an end.
func atOnce(ctx context.Context, groups [][]int, limit int, do func(ctx context.Context, n int) error) error {
	jobs := 0
	for _, group := range groups {
		jobs += len(group)
	}
	failed := newFirstFailure(ctx, jobs)
	g := new(errgroup.Group)
	g.SetLimit(cmp.Or(limit, DefaultJobs))
	for _, group := range groups {
		g.Go(func() error {
			for _, n := range group {
				ctx := failed.contexts[n]
				if ctx.Err() != nil {
					return nil
				}
				if err := do(ctx, n); err != nil {
					failed.fail(n, err)
					return nil
				}
			}
			return nil
		})
	}
	_ = g.Wait() // it is told to failed what went wrong
	return failed.end(ctx)
}

// firstFailure keeps the failure of the lowest of several numbered jobs, and ends those above it.
type firstFailure struct {
	contexts []context.Context // of the jobs
	cancel   []context.CancelFunc

	mu  sync.Mutex
	at  int // of err
	err error
}

func newFirstFailure(ctx context.Context, jobs int) *firstFailure {
	f := &firstFailure{contexts: make([]context.Context, jobs), cancel: make([]context.CancelFunc, jobs), at: jobs}
	for n := range jobs {
		f.contexts[n], f.cancel[n] = context.WithCancel(ctx)
	}
	return f
}

// fail notes a failure. One that comes of a lower one that has ended its job is above that.
func (f *firstFailure) fail(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n >= f.at {
		return
	}
	for _, cancel := range f.cancel[n+1:] {
		cancel()
	}
	f.at, f.err = n, err
}

// end is the failure, or the end of all, once there are no jobs any more.
func (f *firstFailure) end(ctx context.Context) error {
	for _, cancel := range f.cancel {
		cancel()
	}
	return cmp.Or(f.err, context.Cause(ctx))
}
