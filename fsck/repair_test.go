package fsck_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/store"
)

// unrepairable are the damages that nothing here can put right: what is not the store's own, a name that leads nowhere
// known, an image that was never one or that belongs to other layers.
var unrepairable = []string{
	"a stranger among the objects", "a tag that is no link", "a file for a directory of objects", "an image that is none", "a config that refers to another's image",
}

func openPlace(repository string, manifest digest.Digest) (oci.Source, error) {
	ref, err := oci.ParseReference(repository)
	if err != nil {
		return nil, err
	}
	if manifest != "" {
		ref.Tag, ref.Digest = "", manifest
	}
	return layout.Open(ref, layout.Options{})
}

func (w *world) repair(o fsck.RepairOptions) *fsck.Report {
	w.t.Helper()
	r, err := fsck.Repair(context.Background(), w.s, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// tree lists the store's names, with what links say and the contents of files but for notes of times.
func (w *world) snapshot() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	w.must(filepath.WalkDir(w.s.Dir(), func(path string, e os.DirEntry, err error) error {
		name := strings.TrimPrefix(path, w.s.Dir()+"/")
		switch {
		case err != nil:
			return err
		case e.IsDir() || strings.HasPrefix(name, "flatroot/scrub.json") || strings.HasPrefix(name, "flatroot/origins/"):
			return nil
		case e.Type()&os.ModeSymlink != 0:
			all[name], err = os.Readlink(path)
			return err
		}
		all[name] = string(digestOf(w.read(path)))
		return nil
	}))
	return all
}

// stillWhole checks that every image has the digest that it had, all that it refers to, and its layers' tars.
func (w *world) stillWhole() {
	w.t.Helper()
	for _, i := range w.images {
		info, err := index.Find(w.s, i.name)
		if err != nil {
			w.t.Errorf("%s: %v", i.name, err)
			continue
		}
		if info.Image != i.report.Image || info.Config.String() != i.config || info.Manifest != i.report.Manifest {
			w.t.Errorf("%s: image %s, config %s, manifest %s", i.name, info.Image, info.Config, info.Manifest)
		}
	}
	if r := w.check(fsck.Options{VerifyTars: true}); r.Count(fsck.IsProblem) > 0 {
		w.t.Errorf("after the repair:\n%s", describe(r))
	}
}

func TestRepair(t *testing.T) {
	for _, d := range damages {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range seeds() {
				w := newWorld(t, seed)
				if len(w.images) < 2 {
					w.pull("second", [][]byte{w.randomLayer(nil), w.randomLayer(nil)}, "")
				}
				d.do(w)
				r := w.repair(fsck.RepairOptions{Open: openPlace})
				if slices.Contains(unrepairable, d.name) {
					if r.Count(fsck.IsProblem) == 0 {
						t.Fatalf("seed %d: nothing is wrong:\n%s", seed, describe(r))
					}
					continue
				}
				for _, p := range r.Problems {
					if p.Severity == fsck.IsProblem && !p.Repaired {
						t.Fatalf("seed %d: %s %s was not repaired: %v\n%s", seed, p.Code, p.Subject, p.NotRepaired, describe(r))
					}
				}
				w.stillWhole()
				before := w.snapshot()
				if again := w.repair(fsck.RepairOptions{Open: openPlace}); again.Count(fsck.IsProblem) > 0 {
					t.Fatalf("seed %d: the second repair found:\n%s", seed, describe(again))
				}
				if after := w.snapshot(); !maps.Equal(before, after) {
					t.Fatalf("seed %d: the second repair changed something:\n%s", seed, difference(before, after))
				}
				w.collectAndCheck(seed)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func difference(a, b map[string]string) string {
	var s strings.Builder
	for k, v := range a {
		if b[k] != v {
			fmt.Fprintf(&s, "- %s %s\n", k, v)
		}
	}
	for k, v := range b {
		if a[k] != v {
			fmt.Fprintf(&s, "+ %s %s\n", k, v)
		}
	}
	return s.String()
}

// collectAndCheck: garbage that a repair leaves goes, and nothing else. Damage may have been to the traces of it, so all is
// looked at.
func (w *world) collectAndCheck(seed uint64) {
	w.t.Helper()
	_, err := w.s.GC(context.Background(), store.GCOptions{
		Tracers: fsck.Tracers(), Full: true,
		Prune: func(gone func(string) bool, dry bool) (int, error) { return index.PruneNotes(w.s, gone, dry) },
	})
	w.must(err)
	w.stillWhole()
	r := w.check(fsck.Options{})
	for _, p := range r.Problems {
		if p.Code != fsck.ModeOdd {
			w.t.Errorf("seed %d: after gc there is %s %s: %v", seed, p.Code, p.Subject, p.Err)
		}
	}
	if r.Unreferenced > 0 {
		w.t.Errorf("seed %d: after gc %d objects are in no image", seed, r.Unreferenced)
	}
}

// TestRepairNowhere: what can't be had anywhere stays as it is, and that is said.
func TestRepairNowhere(t *testing.T) {
	w := newWorld(t, 1)
	d := pick(w, w.allFileObjects())
	w.flip(w.object(d))
	damaged := w.read(w.object(d))
	w.must(os.RemoveAll(w.layout))
	r := w.repair(fsck.RepairOptions{Open: openPlace})
	if len(r.Problems) != 1 || r.Problems[0].Repaired || r.Problems[0].NotRepaired == nil {
		t.Fatalf("got:\n%s", describe(r))
	}
	if msg := r.Problems[0].NotRepaired.Error(); !strings.Contains(msg, w.layout) {
		t.Errorf("the reason does not name the place: %s", msg)
	}
	if string(w.read(w.object(d))) != string(damaged) {
		t.Error("the damaged object was changed")
	}
}

// TestRepairFrom: a source that is given is asked, also for what came from nowhere that is known.
func TestRepairFrom(t *testing.T) {
	w := newWorld(t, 2)
	w.must(os.RemoveAll(w.path("flatroot/origins")))
	i := w.images[0]
	objects := w.fileObjects(i)
	for d := range objects {
		w.must(os.Remove(w.object(d)))
	}
	w.flip(w.object(i.report.Image))
	w.flip(w.object(w.entry(store.Streams, "oci-layer-"+i.layers[0].String())))
	w.must(os.Remove(w.object(w.document("oci-config-" + i.config))))
	src := w.open(i.name)
	defer src.Close()
	r := w.repair(fsck.RepairOptions{Sources: []oci.Source{src}})
	for _, p := range r.Problems {
		if p.Severity == fsck.IsProblem && !p.Repaired {
			t.Errorf("%s %s: %v", p.Code, p.Subject, p.NotRepaired)
		}
	}
	w.stillWhole()
}

// TestRepairTogether has damage that hides other damage, and damage that rests on it: an image can only be made of layers
// that were repaired, and of a layer whose stream can't be read it is not known what it refers to.
func TestRepairTogether(t *testing.T) {
	for seed := range seeds() {
		w := newWorld(t, seed)
		i := w.images[0]
		objects := w.allFileObjects()
		bad := []fsverity.Digest{i.report.Image, w.entry(store.Streams, "oci-layer-"+i.layers[len(i.layers)-1].String())}
		for range min(3, len(objects)) {
			bad = append(bad, pick(w, objects))
		}
		for _, d := range bad {
			b := w.read(w.object(d))
			copy(b, "damage") // so that a stream isn't even known as one
			w.overwrite(w.object(d), b)
		}
		r := w.repair(fsck.RepairOptions{Open: openPlace})
		for _, p := range r.Problems {
			if p.Severity == fsck.IsProblem && !p.Repaired {
				t.Errorf("seed %d: %s %s: %v", seed, p.Code, p.Subject, p.NotRepaired)
			}
		}
		w.stillWhole()
		before := w.snapshot()
		w.repair(fsck.RepairOptions{Open: openPlace})
		if after := w.snapshot(); !maps.Equal(before, after) {
			t.Errorf("seed %d: the second repair changed something:\n%s", seed, difference(before, after))
		}
		w.collectAndCheck(seed)
		if t.Failed() {
			t.FailNow()
		}
	}
}
