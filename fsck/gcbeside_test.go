package fsck_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tests/testenv"
)

// puller pulls images under a name of its own, and removes some of them again. What it has pulled is whole at any time.
type puller struct {
	w     *world
	name  string
	rng   *rand.Rand
	named bool
}

func (p *puller) round() error {
	s, err := store.Open(p.w.s.Dir(), store.OpenOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	if p.named {
		if err := whole(s, p.name); err != nil {
			return err
		}
		if p.rng.IntN(2) == 0 {
			p.named = false
			return index.Remove(s, p.name)
		}
	}
	src, err := openPlace("oci:"+p.w.layout+":"+p.w.images[p.rng.IntN(len(p.w.images))].name, "")
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = index.Import(context.Background(), s, src, index.ImportOptions{Image: imageWriter, Name: p.name})
	if err != nil {
		return err
	}
	p.named = true
	return whole(s, p.name)
}

func whole(s *store.Store, name string) error {
	r, err := fsck.Check(context.Background(), s, fsck.Options{Names: []string{name}, Jobs: 1})
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("%s is not whole: %v", name, r.Problems[0])
	}
	return err
}

// TestGCBesidePulls collects garbage all the time while others pull the same layers and remove them again, each with the
// store opened anew.
func TestGCBesidePulls(t *testing.T) {
	rounds := 25
	if testenv.Nightly() {
		rounds = 1000
	}
	w := newWorld(t, 11)
	for i := range w.images { // only the layout's are wanted
		w.must(index.Remove(w.s, w.images[i].name))
	}
	dir := w.s.Dir()
	w.must(w.s.Close())
	done := make(chan struct{})
	var pullers, collectors sync.WaitGroup
	removed := int64(0)
	collectors.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			got, err := collectOnce(dir, store.GCOptions{Full: n%4 == 3, DryRun: n%5 == 4})
			if err != nil {
				t.Error(err)
				return
			}
			removed += got.Removed.Objects
		}
	})
	all := make([]*puller, 3)
	for i := range all {
		p := &puller{w: w, name: fmt.Sprint("puller", i), rng: rand.New(rand.NewPCG(uint64(i), 3))}
		all[i] = p
		pullers.Go(func() {
			for n := range rounds {
				time.Sleep(time.Duration(p.rng.IntN(20)) * time.Millisecond) // gc gets in where nobody works
				if err := p.round(); err != nil {
					t.Errorf("%s, round %d: %v", p.name, n, err)
					return
				}
			}
		})
	}
	pullers.Wait()
	close(done)
	collectors.Wait()
	if removed == 0 {
		t.Error("no collection has removed anything")
	}
	lastLook(t, dir, all)
}

func collectOnce(dir string, o store.GCOptions) (store.GCReport, error) {
	s, err := store.Open(dir, store.OpenOptions{ReadOnly: o.DryRun})
	if err != nil {
		return store.GCReport{}, err
	}
	defer s.Close()
	o.Tracers = fsck.Tracers()
	o.Prune = func(gone func(string) bool, dry bool) (int, error) { return index.PruneNotes(s, gone, dry) }
	return s.GC(context.Background(), o)
}

// lastLook finds all that was pulled, and after a collection nothing that only a look at all objects finds.
func lastLook(t *testing.T, dir string, all []*puller) {
	t.Helper()
	for _, o := range []store.GCOptions{{}, {Full: true}} {
		r, err := collectOnce(dir, o)
		if err != nil || o.Full && r.Removed != (store.GCCounts{}) {
			t.Errorf("full %v: %+v, %v", o.Full, r, err)
		}
	}
	s, err := store.Open(dir, store.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, p := range all {
		if p.named {
			if err := whole(s, p.name); err != nil {
				t.Error(err)
			}
		}
	}
}
