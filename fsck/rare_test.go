package fsck_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// TestSinceNoted: what is noted as bad is read, however short the time since.
func TestSinceNoted(t *testing.T) {
	w := newWorld(t, 1)
	w.check(fsck.Options{})
	d := w.images[0].report.Image
	w.flip(w.object(d))
	w.must(w.s.MarkBad(d, "object-damaged"))
	w.reopen()
	if r := w.check(fsck.Options{Since: time.Hour}); r.Count(fsck.IsProblem) != 1 {
		t.Errorf("got:\n%s", describe(r))
	}
	if bad, err := w.s.Bad(); err != nil || bad[d] == "" {
		t.Errorf("notes %v, %v", bad, err)
	}
}

// atObjects is called when the reading of objects begins.
type atObjects func()

func (f atObjects) Step(what string) {
	if what == "check objects" {
		f()
	}
}
func (atObjects) Objects(int)   {}
func (atObjects) Checked(int64) {}

// TestSinceLongCheck has a check that takes so long that what was fresh when it began is not any more.
func TestSinceLongCheck(t *testing.T) {
	w := newWorld(t, 1)
	start := time.Now()
	w.check(fsck.Options{Now: func() time.Time { return start }})
	w.flip(w.object(w.images[0].report.Image))
	now := start.Add(59 * time.Second)
	w.check(fsck.Options{Since: time.Minute, Now: func() time.Time { return now }, Progress: atObjects(func() { now = now.Add(2 * time.Second) })})
	if r := w.check(fsck.Options{Since: time.Minute, Now: func() time.Time { return start.Add(90 * time.Second) }}); r.Count(fsck.IsProblem) != 1 {
		t.Errorf("half a minute later nothing was read:\n%s", describe(r))
	}
}

// TestOnlyImageKnows: what only an image tells of, since its layers' streams are damaged, counts as used.
func TestOnlyImageKnows(t *testing.T) {
	w := newWorld(t, 3)
	d := pick(w, w.allFileObjects())
	w.flip(w.object(d))
	for _, i := range w.images {
		for _, l := range i.layers {
			b := w.read(w.object(w.entry(store.Streams, "oci-layer-"+l.String())))
			b[0] ^= 1
			w.overwrite(w.object(w.entry(store.Streams, "oci-layer-"+l.String())), b)
		}
	}
	r := w.check(fsck.Options{})
	for _, p := range r.Problems {
		if p.Code == fsck.UnusedDamaged {
			t.Errorf("%s is in an image", p.Subject)
		}
	}
}

// TestCalledOff: a check that reads slowly ends at once, also in the middle of an object.
func TestCalledOff(t *testing.T) {
	w := newWorld(t, 1)
	b := make([]byte, 3<<20)
	o, err := w.s.NewObject()
	w.must(err)
	_, err = o.Write(b)
	w.must(err)
	_, _, err = o.Commit()
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(300*time.Millisecond, cancel)
	start := time.Now()
	if _, err := fsck.Check(ctx, w.s, fsck.Options{Rate: 1 << 18}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestRepairFromForImage: an image that has no layers in the store is mended from the layers of a source that has its files.
func TestRepairFromForImage(t *testing.T) {
	w := newWorld(t, 2)
	i := w.images[0]
	w.must(w.s.SetRef(store.Images, "alone", i.report.Image.String()))
	for _, i := range w.images {
		w.must(index.Remove(w.s, i.name))
	}
	w.gc(store.GCOptions{Full: true})
	d := pick(w, w.allFileObjectsOf(i))
	w.flip(w.object(d))
	r := w.repair(fsck.RepairOptions{})
	if len(r.Problems) != 1 || r.Problems[0].Repaired || r.Problems[0].NotRepaired == nil || !strings.Contains(r.Problems[0].NotRepaired.Error(), "--from") {
		t.Fatalf("got:\n%s", describe(r))
	}
	src := w.open(i.name)
	defer src.Close()
	r = w.repair(fsck.RepairOptions{Sources: []oci.Source{src}})
	if len(r.Problems) != 1 || !r.Problems[0].Repaired {
		t.Errorf("got:\n%s%v", describe(r), r.Problems[0].NotRepaired)
	}
	if r := w.check(fsck.Options{}); len(r.Problems) > 0 {
		t.Errorf("then:\n%s", describe(r))
	}
}

// TestNamedOnly: a check of some images says nothing of others, and a repair leaves those alone.
func TestNamedOnly(t *testing.T) {
	w := newWorld(t, 1)
	w.pull("more", [][]byte{w.randomLayer(nil)}, "")
	other := w.images[len(w.images)-1]
	w.must(os.Remove(w.path("streams/oci-manifest-" + other.report.Manifest.String())))
	if r := w.check(fsck.Options{Names: []string{w.images[0].name}}); len(r.Problems) > 0 {
		t.Errorf("got:\n%s", describe(r))
	}
	w.repair(fsck.RepairOptions{Options: fsck.Options{Names: []string{w.images[0].name}}, Open: openPlace})
	if r := w.check(fsck.Options{}); r.Count(fsck.IsProblem) == 0 {
		t.Error("the other image was repaired, too")
	}
}

// TestRepairIsLinear loses many files that can't be had: that takes no more than some checks do.
func TestRepairIsLinear(t *testing.T) {
	const files = 10_000
	w := newWorld(t, 1)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for i := range files {
		w.must(tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("f", i), Mode: 0o644, Size: 100, Format: tar.FormatPAX}))
		w.must(second(tw.Write(fmt.Appendf(nil, "%100d", i))))
	}
	w.must(tw.Close())
	w.pull("many", [][]byte{b.Bytes()}, "")
	for d := range w.fileObjects(w.images[len(w.images)-1]) {
		w.must(os.Remove(w.object(d)))
	}
	start := time.Now()
	w.check(fsck.Options{})
	check := time.Since(start)
	start = time.Now()
	if r := w.repair(fsck.RepairOptions{}); r.Count(fsck.IsProblem) != files {
		t.Errorf("%d problems of %d files", r.Count(fsck.IsProblem), files)
	}
	if repair := time.Since(start); repair > 20*check+time.Second {
		t.Errorf("the repair took %v, a check %v", repair, check)
	}
}
