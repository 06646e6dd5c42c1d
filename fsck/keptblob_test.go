package fsck_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
)

// keptWorld is a world with an image more, whose blobs are kept, and its lowest blob: entry, object and content.
type keptWorld struct {
	*world
	entry   string
	object  fsverity.Digest
	content string
}

func newKeptWorld(t *testing.T, seed uint64) *keptWorld {
	t.Helper()
	k := &keptWorld{world: newWorld(t, seed)}
	k.keep = true
	k.pull("kept", [][]byte{k.randomLayer(nil), k.randomLayer(nil)}, index.OCI1)
	k.keep = false
	i, err := index.Find(k.s, "kept")
	k.must(err)
	for _, l := range i.Layers {
		if l.Kept.IsZero() {
			t.Fatalf("blob %s was not kept", l.Blob)
		}
	}
	k.entry = index.BlobEntry(i.Layers[0].Blob)
	// What the stream refers to is the blob.
	for o, err := range k.s.Objects() {
		k.must(err)
		if b := k.read(k.path(o.Path)); digest.FromBytes(b) == i.Layers[0].Blob {
			k.object, k.content = o.Digest, string(b)
		}
	}
	if k.object.IsZero() {
		t.Fatal("no object is the blob")
	}
	return k
}

// keptDamages are what may happen to a blob that is kept.
var keptDamages = []struct {
	name string
	code fsck.Code
	do   func(k *keptWorld)
}{
	{"a bit of it", fsck.ObjectDamaged, func(k *keptWorld) { k.flip(k.world.object(k.object)) }},
	{"it is cut short", fsck.ObjectDamaged, func(k *keptWorld) { k.must(os.Truncate(k.world.object(k.object), int64(len(k.content)/2))) }},
	{"it is gone", fsck.ObjectMissing, func(k *keptWorld) { k.must(os.Remove(k.world.object(k.object))) }},
	{"a bit of its stream", fsck.ObjectDamaged, func(k *keptWorld) { k.flip(k.world.object(k.world.entry(store.Streams, k.entry))) }},
	{"its stream is gone", fsck.EntryDangling, func(k *keptWorld) { k.must(os.Remove(k.world.object(k.world.entry(store.Streams, k.entry)))) }},
	{"its entry is gone", fsck.EntryMissing, func(k *keptWorld) { k.must(os.Remove(k.path("streams/" + k.entry))) }},
	{"its entry leads to the layer", fsck.LayerDiffers, func(k *keptWorld) {
		k.must(k.s.Relink(store.Streams, k.entry, k.world.entry(store.Streams, "oci-layer-"+k.images[0].layers[0].String())))
	}},
	{"its stream holds something else", fsck.LayerDiffers, func(k *keptWorld) {
		other := k.putStream(0x626f6c625f69636f, nil, []byte(strings.Repeat("something else ", 10)))
		k.must(k.s.Relink(store.Streams, k.entry, other))
	}},
}

func TestKeptBlobs(t *testing.T) {
	for _, d := range keptDamages {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			for seed := range fewSeeds() {
				k := newKeptWorld(t, seed)
				if r := k.check(fsck.Options{VerifyTars: true}); len(r.Problems) > 0 {
					t.Fatalf("before:\n%s", describe(r))
				}
				d.do(k)
				r := k.check(fsck.Options{})
				found := false
				for _, p := range r.Problems {
					found = found || p.Code == d.code
					for _, h := range p.Images {
						if h.Name != "kept" || len(h.Paths) > 0 {
							t.Errorf("it hits %+v:\n%s", h, describe(r))
						}
					}
				}
				if !found {
					t.Errorf("no %s:\n%s", d.code, describe(r))
				}
				r = k.repair(fsck.RepairOptions{Open: openPlace})
				for _, p := range r.Problems {
					if p.Severity == fsck.IsProblem && !p.Repaired {
						t.Errorf("%s %s was not repaired: %v", p.Code, p.Subject, p.NotRepaired)
					}
				}
				if string(k.read(k.world.object(k.object))) != k.content {
					t.Error("the blob is another one")
				}
				k.stillWhole()
				k.collectAndCheck(seed)
				if i, err := index.Find(k.s, "kept"); err != nil || i.Layers[0].Kept != k.world.entry(store.Streams, k.entry) {
					t.Errorf("the manifest names another stream: %v", err)
				}
			}
		})
	}
}

// TestKeptBlobNowhere: it is said what can't be had, and what that comes to.
func TestKeptBlobNowhere(t *testing.T) {
	k := newKeptWorld(t, 1)
	k.flip(k.world.object(k.object))
	k.must(os.RemoveAll(k.layout))
	r := k.repair(fsck.RepairOptions{Open: openPlace})
	if len(r.Problems) != 1 || r.Problems[0].Repaired || r.Problems[0].NotRepaired == nil {
		t.Fatalf("got:\n%s", describe(r))
	}
	for _, want := range []string{"nobody has the blob", "compresses the layer anew", k.layout} {
		if msg := r.Problems[0].NotRepaired.Error(); !strings.Contains(msg, want) {
			t.Errorf("no %q in %s", want, msg)
		}
	}
}

// TestKeptBlobsGC: a blob lives as long as a manifest that it was kept for.
func TestKeptBlobsGC(t *testing.T) {
	for _, full := range []bool{false, true} {
		k := newKeptWorld(t, 2)
		gc := func() {
			t.Helper()
			_, err := k.s.GC(context.Background(), store.GCOptions{Tracers: fsck.Tracers(), Full: full})
			k.must(err)
			if r := k.check(fsck.Options{}); r.Count(fsck.IsProblem) > 0 {
				t.Errorf("full %v:\n%s", full, describe(r))
			}
		}
		has := func() bool {
			t.Helper()
			_, err := k.s.Entry(store.Streams, k.entry)
			there, oerr := k.s.HasObject(k.object)
			k.must(oerr)
			if (err == nil) != there {
				t.Errorf("full %v: its entry: %v, its object: %v", full, err, there)
			}
			return there
		}
		k.must(index.Tag(k.s, "kept", "too"))
		k.must(index.Remove(k.s, "kept"))
		if gc(); !has() {
			t.Errorf("full %v: it went with one of two names", full)
		}
		k.must(index.Remove(k.s, "too"))
		if gc(); has() {
			t.Errorf("full %v: it outlived its image", full)
		}
	}
}
