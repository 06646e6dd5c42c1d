package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

// manyLayers is a store with an image of so many layers, the last of which is the first once more.
func manyLayers(t *testing.T, n int) (*store.Store, *Info) {
	t.Helper()
	m := ocitest.Image{}
	for i := range n - 1 {
		m.Layers = append(m.Layers, ocitest.Tar(ocitest.File{Name: fmt.Sprint("file", i), Data: noise(uint64(i), 100_000)}))
	}
	m.Layers = append(m.Layers, m.Layers[0])
	s := fastStore(t, fsverity.SHA256)
	_, err := Import(context.Background(), s, newSource(t, m), ImportOptions{Image: writeImage, Name: "image"})
	must(t, err)
	i, err := Find(s, "image")
	must(t, err)
	return s, i
}

// gate is a sink that has blobs wait in it.
type gate struct {
	enter func(ctx context.Context, d ocispec.Descriptor) error // before a blob is read; may be nil

	mu       sync.Mutex
	has      map[digest.Digest]bool
	now, max int // in PutBlob
	manifest []byte
}

func (g *gate) HasBlob(_ context.Context, d ocispec.Descriptor) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.has[d.Digest], nil
}

func (g *gate) PutBlob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	g.mu.Lock()
	g.now++
	g.max = max(g.max, g.now)
	g.mu.Unlock()
	var err error
	if g.enter != nil {
		err = g.enter(ctx, d)
	}
	if err == nil {
		err = oci.CopyBlob(ctx, io.Discard, r, d)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now--; err == nil {
		g.has[d.Digest] = true
	}
	return err
}

func (g *gate) PutManifest(_ context.Context, raw []byte, _ ocispec.Descriptor) error {
	g.manifest = raw
	return nil
}

func (g *gate) Close() error { return nil }

// TestPushAtOnce pushes so many layers at once as it is told to, with one outcome. What two layers have in common is sent once.
func TestPushAtOnce(t *testing.T) {
	s, i := manyLayers(t, 7)
	var want *PushReport
	var manifest string
	for _, jobs := range []int{1, 3, 0} {
		at := jobs
		if at == 0 {
			at = DefaultJobs
		}
		g := &gate{has: map[digest.Digest]bool{}}
		full, once := make(chan struct{}), sync.Once{}
		g.enter = func(context.Context, ocispec.Descriptor) error {
			g.mu.Lock()
			if g.now == at {
				once.Do(func() { close(full) })
			}
			g.mu.Unlock()
			select {
			case <-full:
				return nil
			case <-time.After(30 * time.Second):
				return errors.New("nobody else has come")
			}
		}
		r, err := Push(context.Background(), s, i, g, PushOptions{Compression: gz, Jobs: jobs})
		must(t, err)
		if g.max != at || r.Layers != (LayerCounts{Total: 7, Reused: 1, Fetched: 6}) {
			t.Errorf("%d jobs: %d at once, %+v", jobs, g.max, r)
		}
		if want == nil {
			want, manifest = r, string(g.manifest)
		}
		if !reflect.DeepEqual(r, want) || string(g.manifest) != manifest {
			t.Errorf("%d jobs: %+v, with one %+v", jobs, r, want)
		}
	}
}

// TestPushFails has layers fail in another order than they have: the error is that of the lowest, those above it are ended, and
// those below it are not.
func TestPushFails(t *testing.T) {
	s, i := manyLayers(t, 7)
	number := map[digest.Digest]int{} // of each layer's blob
	all := &gate{has: map[digest.Digest]bool{}}
	_, err := Push(context.Background(), s, i, all, PushOptions{Compression: plain})
	must(t, err)
	for n, l := range slices.Backward(i.Layers) {
		number[digest.Digest(l.DiffID)] = n
	}
	failed := map[int]chan struct{}{2: make(chan struct{}), 1: make(chan struct{})}
	g := &gate{has: map[digest.Digest]bool{}}
	g.enter = func(ctx context.Context, d ocispec.Descriptor) error {
		switch n, layer := number[d.Digest]; {
		case !layer: // the config
			return nil
		case n == 2:
			defer close(failed[2])
			return errors.New("full")
		case n == 1:
			<-failed[2]
			defer close(failed[1])
			return errors.New("broken")
		case n == 0:
			<-failed[1]
			time.Sleep(50 * time.Millisecond)
			return ctx.Err()
		default:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(30 * time.Second):
				return errors.New("it was not ended")
			}
		}
	}
	_, err = Push(context.Background(), s, i, g, PushOptions{Compression: plain, Jobs: 4})
	checkError(t, err, []string{"push layer 2 (", "broken"})
	if g.manifest != nil || !g.has[digest.Digest(i.Layers[0].DiffID)] {
		t.Errorf("there are %v, manifest %q", g.has, g.manifest)
	}

	ctx, cancel := context.WithCancel(context.Background())
	g = &gate{has: map[digest.Digest]bool{}, enter: func(context.Context, ocispec.Descriptor) error {
		cancel()
		return nil
	}}
	if _, err := Push(ctx, s, i, g, PushOptions{Jobs: 1}); !errors.Is(err, context.Canceled) || g.manifest != nil {
		t.Errorf("%v, manifest %q", err, g.manifest)
	}
}

// works is a Progress that adds up what is done to layers.
type works struct {
	silent
	mu   sync.Mutex
	said map[string]int64 // WORK LAYER, by bytes; negative: and not the end
}

func (w *works) Start(k Work, l oci.Layer) func(int64) {
	name, total := fmt.Sprint(k, " ", l.DiffID), l.Descriptor.Size
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said[name] -= total
	return func(n int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.said[name] += n; n == 0 {
			w.said[name+" end"]++
		}
	}
}

// TestPushProgress tells all bytes of what is compressed and of what is sent.
func TestPushProgress(t *testing.T) {
	s, i := manyLayers(t, 4)
	for _, c := range []struct {
		compression string
		want        []string
	}{{gz, []string{string(Compressing), string(Sending)}}, {plain, []string{string(Sending)}}} {
		w := &works{said: map[string]int64{}}
		_, err := Push(context.Background(), s, i, &gate{has: map[digest.Digest]bool{}}, PushOptions{Compression: c.compression, Progress: w})
		must(t, err)
		for _, l := range i.Layers[:3] {
			for _, k := range c.want {
				if name := k + " " + l.DiffID.String(); w.said[name] != 0 || w.said[name+" end"] == 0 {
					t.Errorf("%s: %v", c.compression, w.said)
				}
			}
		}
		for name := range w.said {
			if k, _, _ := strings.Cut(name, " "); !slices.Contains(c.want, k) {
				t.Errorf("%s: %s", c.compression, name)
			}
		}
	}
}

// stack is a sink that keeps layers unpacked.
type stack struct {
	gate
	put []oci.DiffID
}

func (s *stack) PutLayer(_ context.Context, tar, _ ocispec.Descriptor, r io.Reader) (bool, error) {
	s.mu.Lock()
	s.now++
	s.max = max(s.max, s.now)
	s.put = append(s.put, oci.DiffID(tar.Digest))
	s.mu.Unlock()
	_, err := io.Copy(io.Discard, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	return true, err
}

// TestPushInOrder gives layers to who keeps them unpacked one after the other, one that is there twice as well.
func TestPushInOrder(t *testing.T) {
	s, i := manyLayers(t, 5)
	to := &stack{gate: gate{has: map[digest.Digest]bool{}}}
	_, err := Push(context.Background(), s, i, to, PushOptions{})
	must(t, err)
	var want []oci.DiffID
	for _, l := range i.Layers {
		want = append(want, l.DiffID)
	}
	if !slices.Equal(to.put, want) || to.max != 1 {
		t.Errorf("%d at once: %v, want %v", to.max, to.put, want)
	}
}
