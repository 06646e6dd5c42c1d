package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// graphWorld is a store full of streams and images that refer to each other at random.
type graphWorld struct {
	*world
	objects []fsverity.Digest
	layers  []string // entries
	number  int
}

func newGraphWorld(t testing.TB, seed uint64) *graphWorld {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 2))}
	path := filepath.Join(fastDir(t), "store")
	w.must(store.Init(path, store.InitOptions{}))
	var err error
	w.s, err = store.Open(path, store.OpenOptions{})
	w.must(err)
	t.Cleanup(func() { w.s.Close() })
	return &graphWorld{world: w}
}

// text makes an object that is like no other.
func (g *graphWorld) text() fsverity.Digest {
	g.number++
	b := []byte(fmt.Sprintf("object %d of %d", g.number, g.rng.Uint64()))
	d := fsverity.Sum(g.s.Algorithm(), b)
	_, err := g.s.PutObject(d, b)
	g.must(err)
	return d
}

// someObjects takes old ones and makes new ones.
func (g *graphWorld) someObjects() []fsverity.Digest {
	var list []fsverity.Digest
	for range g.rng.IntN(6) {
		if len(g.objects) > 0 && g.rng.IntN(2) == 0 {
			if d := pick(g.world, g.objects); g.has(d) {
				list = append(list, d)
				continue
			}
		}
		d := g.text()
		g.objects = append(g.objects, d)
		list = append(list, d)
	}
	return list
}

func (g *graphWorld) has(d fsverity.Digest) bool {
	_, err := os.Lstat(g.object(d))
	return err == nil
}

func (g *graphWorld) stream(kind stream.ContentType, refs []stream.NamedRef, objects []fsverity.Digest) fsverity.Digest {
	sw := stream.NewWriter(g.s.Algorithm(), kind, stream.WriterOptions{})
	defer sw.Close()
	for _, r := range refs {
		g.must(sw.NamedRef(r.Name, r.ID))
	}
	for _, d := range objects {
		g.must(sw.Keep(d))
	}
	g.number++
	g.must(sw.Inline([]byte(fmt.Sprint(g.number))))
	var b bytes.Buffer
	_, err := sw.WriteTo(&b)
	g.must(err)
	id := fsverity.Sum(g.s.Algorithm(), b.Bytes())
	_, err = g.s.PutObject(id, b.Bytes())
	g.must(err)
	return id
}

// image makes an EROFS image of files that are these objects.
func (g *graphWorld) image(objects []fsverity.Digest) fsverity.Digest {
	t := tree.New(g.s.Algorithm(), tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
	for i, d := range objects {
		n, err := t.Add(tree.Root, []byte(fmt.Sprint("f", i)), tree.Attr{Mode: tree.Regular | 0o644, Nlink: 1, Size: 100})
		g.must(err)
		g.must(t.SetObject(n, d))
	}
	g.number++
	_, err := t.Add(tree.Root, []byte(fmt.Sprint("name", g.number)), tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2})
	g.must(err)
	var b bytes.Buffer
	_, err = erofs.Write(&b, t, erofs.WriteOptions{Format: erofs.Format1})
	g.must(err)
	d := fsverity.Sum(g.s.Algorithm(), b.Bytes())
	_, err = g.s.PutObject(d, b.Bytes())
	g.must(err)
	return d
}

// digestName is a diffID or the like, of no content.
func (g *graphWorld) digestName() string {
	g.number++
	return digestOf([]byte(fmt.Sprint("name", g.number))).String()
}

// grow adds layers, images, and tagged ones of both, with all the odd references that other tools leave.
func (g *graphWorld) grow() {
	for range 1 + g.rng.IntN(3) {
		id, name := g.stream(stream.OCILayer, nil, g.someObjects()), g.digestName()
		g.link(store.Streams, "oci-layer-"+name, id)
		g.layers = append(g.layers, name)
	}
	for range 1 + g.rng.IntN(2) {
		g.tagged()
	}
	if g.rng.IntN(2) == 0 {
		d := g.image(g.someObjects())
		g.link(store.Images, d.String(), d)
		if g.rng.IntN(3) > 0 {
			g.must(g.s.SetRef(store.Images, fmt.Sprintf("dir/image%d", g.number), d.String()))
		}
	}
}

func (g *graphWorld) link(k store.Kind, name string, d fsverity.Digest) {
	_, err := g.s.Link(k, name, d)
	g.must(err)
}

// tagged makes a manifest with a config and perhaps a tag.
func (g *graphWorld) tagged() {
	var refs []stream.NamedRef
	seen := map[string]bool{}
	for range g.rng.IntN(4) {
		name := pick(g.world, g.layers)
		id, err := g.s.Entry(store.Streams, "oci-layer-"+name)
		if err == nil && !seen[name] && g.has(id) {
			seen[name] = true
			refs = append(refs, stream.NamedRef{Name: name, ID: id})
		}
	}
	switch g.rng.IntN(6) {
	case 0: // a stream that only its ID leads to
		refs = append(refs, stream.NamedRef{Name: g.digestName(), ID: g.stream(stream.OCILayer, nil, g.someObjects())})
	case 1: // a reference of an unknown kind, to a stream
		refs = append(refs, stream.NamedRef{Name: "new.kind", ID: g.stream(stream.ContentType(77), nil, g.someObjects())})
	case 2: // and to what is none
		refs = append(refs, stream.NamedRef{Name: "other.kind", ID: g.text()})
	}
	if g.rng.IntN(3) > 0 {
		d := g.image(nil)
		refs = append(refs, stream.NamedRef{Name: stream.ImageV1, ID: d})
		g.link(store.Images, d.String(), d)
	}
	config, configName := g.stream(stream.OCIConfig, refs, []fsverity.Digest{g.text()}), g.digestName()
	g.link(store.Streams, "oci-config-"+configName, config)
	manifest, name := g.stream(stream.OCIManifest, []stream.NamedRef{{Name: "config:" + configName, ID: config}}, []fsverity.Digest{g.text()}), g.digestName()
	g.link(store.Streams, "oci-manifest-"+name, manifest)
	if g.rng.IntN(4) > 0 {
		g.must(g.s.SetRef(store.Streams, fmt.Sprintf("oci/tag%d", g.number), "oci-manifest-"+name))
	}
	if g.rng.IntN(4) == 0 {
		// Another tool rewrites the config, and not the manifest.
		g.must(g.s.Relink(store.Streams, "oci-config-"+configName, g.stream(stream.OCIConfig, refs, nil)))
	}
}

// shrink takes names away.
func (g *graphWorld) shrink() {
	for _, k := range []store.Kind{store.Streams, store.Images} {
		for r, err := range g.s.Refs(k, "") {
			g.must(err)
			if g.rng.IntN(3) == 0 {
				g.must(g.s.RemoveRef(k, r.Name))
			}
		}
	}
}

// model is what is left of a store after a collection of garbage: section by section as the rules say it, from links and
// files alone.
type model struct {
	objects map[fsverity.Digest]bool
	entries map[string]bool
}

func (g *graphWorld) model() model {
	m := model{map[fsverity.Digest]bool{}, map[string]bool{}}
	byID := map[fsverity.Digest][]string{}
	entries := map[string]fsverity.Digest{}
	for _, k := range []string{"streams", "images"} {
		list, _ := os.ReadDir(g.path(k))
		for _, e := range list {
			if text, err := os.Readlink(g.path(k + "/" + e.Name())); err == nil {
				d := digestAtEnd(g.t, text)
				entries[k+"/"+e.Name()] = d
				byID[d] = append(byID[d], k+"/"+e.Name())
			}
		}
	}
	alive := func(k string, d fsverity.Digest) {
		m.objects[d] = true
		for _, e := range byID[d] {
			if strings.HasPrefix(e, k) {
				m.entries[e] = true
			}
		}
	}
	var walk func(d fsverity.Digest)
	seen := map[fsverity.Digest]bool{}
	walk = func(d fsverity.Digest) {
		if seen[d] {
			return
		}
		seen[d] = true
		alive("streams", d)
		b := g.read(g.object(d))
		st, err := stream.Open(bytes.NewReader(b), int64(len(b)))
		g.must(err)
		for _, o := range st.ObjectRefs() {
			m.objects[o] = true
		}
		refs, err := st.NamedRefs()
		g.must(err)
		for _, r := range refs {
			m.objects[r.ID] = true
			if r.Name == stream.ImageV1 {
				alive("images", r.ID)
			} else if bytes.HasPrefix(g.read(g.object(r.ID)), []byte("SplitStream")) {
				walk(r.ID)
			}
		}
	}
	for _, k := range []string{"streams", "images"} {
		g.must(filepath.WalkDir(g.path(k+"/refs"), func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) || err != nil || e.IsDir() {
				return nil
			}
			text, err := os.Readlink(path)
			g.must(err)
			d := entries[k+"/"+filepath.Base(text)]
			if k == "streams" {
				walk(d)
				return nil
			}
			alive("images", d)
			b := g.read(g.object(d))
			img, err := erofs.OpenBytes(b)
			g.must(err)
			for o, err := range img.Objects() {
				g.must(err)
				m.objects[o.Digest] = true
			}
			return nil
		}))
	}
	return m
}

func digestAtEnd(t testing.TB, text string) fsverity.Digest {
	t.Helper()
	d, err := fsverity.ParseObjectPath([]byte(text[len(text)-65:]))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// have is what is there.
func (g *graphWorld) have() model {
	m := model{map[fsverity.Digest]bool{}, map[string]bool{}}
	paths, _ := filepath.Glob(g.path("objects/*/*"))
	for _, p := range paths {
		m.objects[digestAtEnd(g.t, p)] = true
	}
	for _, k := range []string{"streams", "images"} {
		list, _ := os.ReadDir(g.path(k))
		for _, e := range list {
			if !e.IsDir() {
				m.entries[k+"/"+e.Name()] = true
			}
		}
	}
	return m
}

func (g *graphWorld) gc(o store.GCOptions) (store.GCReport, error) {
	o.Tracers = fsck.Tracers()
	return g.s.GC(context.Background(), o)
}

// collect compares what a collection leaves with the model, and what a dry run says with what it does.
func (g *graphWorld) collect(what string, o store.GCOptions) {
	g.t.Helper()
	want, before := g.model(), g.have()
	// What refs lead to may be missing some things; it is not made up.
	maps.DeleteFunc(want.objects, func(d fsverity.Digest, _ bool) bool { return !before.objects[d] })
	dry := o
	dry.DryRun = true
	said, err := g.gc(dry)
	g.must(err)
	if after := g.have(); !reflect.DeepEqual(after, before) {
		g.t.Fatalf("%s: a dry run removed something", what)
	}
	did, err := g.gc(o)
	g.must(err)
	said.DryRun = false
	if !reflect.DeepEqual(said, did) {
		g.t.Fatalf("%s: said %+v, did %+v", what, said, did)
	}
	got := g.have()
	for d := range want.objects {
		if !got.objects[d] {
			g.t.Fatalf("%s: object %s is needed and gone", what, d)
		}
	}
	for d := range got.objects {
		if !want.objects[d] {
			g.t.Fatalf("%s: object %s is left over", what, d)
		}
	}
	if !reflect.DeepEqual(got.entries, want.entries) {
		g.t.Fatalf("%s: entries %v, want %v", what, slices.Sorted(maps.Keys(got.entries)), slices.Sorted(maps.Keys(want.entries)))
	}
	if n := len(before.objects) - len(got.objects); did.Removed.Objects != int64(n) {
		g.t.Fatalf("%s: %d objects went, it says %d", what, n, did.Removed.Objects)
	}
	for _, where := range []string{"dead/streams", "dead/images"} {
		if left, _ := os.ReadDir(g.path("flatroot/" + where)); len(left) > 0 {
			g.t.Fatalf("%s: traces are left: %v", what, left)
		}
	}
}

// TestGCModel: what is removed is what the rules say, on random stores, whichever way it is found.
func TestGCModel(t *testing.T) {
	n := uint64(20)
	if thorough() {
		n = 100
	}
	if testenv.Nightly() {
		n = 10000
	}
	const atOnce = 100 // stores stay open, and where they are, until a test ends
	for first := uint64(0); first < n; first += atOnce {
		t.Run(fmt.Sprint("from-", first), func(t *testing.T) {
			for seed := first; seed < min(first+atOnce, n); seed++ {
				gcRounds(t, seed)
			}
		})
	}
}

// gcRounds collects garbage three times in a store that grows and shrinks.
func gcRounds(t *testing.T, seed uint64) {
	g := newGraphWorld(t, seed)
	for round := range 3 {
		g.grow()
		settled := g.rng.IntN(3) > 0
		if settled {
			g.must(g.s.Settled())
			g.shrink()
		} else {
			g.text() // an orphan, as a killed pull leaves
			g.reopen()
		}
		o := store.GCOptions{Full: g.rng.IntN(4) == 0}
		g.collect(fmt.Sprintf("seed %d, round %d, settled %v, full %v", seed, round, settled, o.Full), o)
	}
}

// reopen does what the end of a process does.
func (g *graphWorld) reopen() {
	g.must(g.s.Close())
	s, err := store.Open(g.s.Dir(), store.OpenOptions{})
	g.must(err)
	g.s = s
}

// TestGCUnsure: whatever can't be read, nothing is removed.
func TestGCUnsure(t *testing.T) {
	for name, spoil := range map[string]func(g *graphWorld, tag string){
		"a tag that is no link":    func(g *graphWorld, tag string) { g.replace("streams/refs/oci/"+tag, nil) },
		"a tag that leads nowhere": func(g *graphWorld, tag string) { g.symlink("../../nothing", "streams/refs/oci/"+tag) },
		"a ref to no image":        func(g *graphWorld, tag string) { g.symlink("../nothing", "images/refs/x") },
		"an entry that is no link": func(g *graphWorld, tag string) { g.replace("streams/oci-layer-"+g.layers[0], nil) },
		"an entry to no object":    func(g *graphWorld, tag string) { g.symlink("../objects/x", "streams/some") },
		"a manifest that is damaged": func(g *graphWorld, tag string) {
			entry, err := g.s.Ref(store.Streams, "oci/"+tag)
			g.must(err)
			g.replace("objects/"+g.entry(store.Streams, entry).ObjectPath(), []byte("nonsense"))
		},
		"a manifest that is missing": func(g *graphWorld, tag string) {
			entry, err := g.s.Ref(store.Streams, "oci/"+tag)
			g.must(err)
			g.must(os.Remove(g.object(g.entry(store.Streams, entry))))
		},
		"a trace that is no link": func(g *graphWorld, tag string) {
			g.must(os.MkdirAll(g.path("flatroot/dead/streams"), 0o755))
			g.replace("flatroot/dead/streams/x", nil)
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			g := newGraphWorld(t, 1)
			for range 4 {
				g.grow()
			}
			g.must(g.s.Settled())
			var tag string
			for r, err := range g.s.Refs(store.Streams, "oci") {
				g.must(err)
				if tag != "" {
					g.must(g.s.RemoveRef(store.Streams, r.Name)) // there is something to remove
				} else {
					tag = strings.TrimPrefix(r.Name, "oci/")
				}
			}
			spoil(g, tag)
			before := g.have()
			for _, full := range []bool{false, true} {
				_, err := g.gc(store.GCOptions{Full: full})
				if err == nil || !reflect.DeepEqual(g.have(), before) {
					t.Errorf("full %v: %v", full, err)
				}
			}
		})
	}
}

func (g *graphWorld) replace(path string, b []byte) {
	_ = os.Remove(g.path(path))
	g.overwrite(g.path(path), b)
}

func (g *graphWorld) symlink(text, path string) {
	_ = os.Remove(g.path(path))
	g.must(os.MkdirAll(filepath.Dir(g.path(path)), 0o755))
	g.must(os.Symlink(text, g.path(path)))
}

// TestGCDeadUnreadable: what has lost its names and can't be read stays, with all that it may have, until all is looked at.
func TestGCDeadUnreadable(t *testing.T) {
	g := newGraphWorld(t, 3)
	objects := []fsverity.Digest{g.text(), g.text()}
	id := g.stream(stream.OCILayer, nil, objects)
	g.link(store.Streams, "oci-layer-"+g.digestName(), id)
	g.must(g.s.Settled())
	g.overwrite(g.object(id), []byte("nonsense"))
	r, err := g.gc(store.GCOptions{})
	g.must(err)
	if len(r.Unreadable) != 1 || r.Removed != (store.GCCounts{}) || !g.has(objects[0]) || !g.has(id) {
		t.Errorf("%+v", r)
	}
	r, err = g.gc(store.GCOptions{Full: true})
	g.must(err)
	if len(r.Unreadable) != 0 || r.Removed.Objects != 3 || len(g.have().objects) != 0 || len(g.have().entries) != 0 {
		t.Errorf("full: %+v", r)
	}
}

// TestGCMounts: records of mounts keep images alive while these may be mounted.
func TestGCMounts(t *testing.T) {
	g := newGraphWorld(t, 4)
	ref := func(boot string) fsverity.Digest {
		d := g.image([]fsverity.Digest{g.text()})
		g.link(store.Images, d.String(), d)
		g.must(g.s.SetRef(store.Images, "flatroot/live/"+boot+"/"+d.String(), d.String()))
		return d
	}
	now, over, old := ref("now"), ref("now"), ref("before")
	g.must(g.s.Settled())
	mounted := map[fsverity.Digest]bool{now: true}
	complete := false
	o := store.GCOptions{BootID: "now", Mounted: func() (map[fsverity.Digest]bool, bool, error) { return mounted, complete, nil }}
	g.collectMounts(o, map[fsverity.Digest]bool{now: true, over: true, old: false})
	complete = true
	g.collectMounts(o, map[fsverity.Digest]bool{now: true, over: false, old: false})
	o.BootID = "next"
	mounted = nil
	g.collectMounts(o, map[fsverity.Digest]bool{now: false})
	if _, err := os.Lstat(g.path("images/refs/flatroot")); !os.IsNotExist(err) {
		t.Errorf("the directories of the records are left: %v", err)
	}
}

// TestGCMountedUnrecorded: an image that is mounted stays even if nothing in the store
// says so, as when that couldn't be written.
func TestGCMountedUnrecorded(t *testing.T) {
	g := newGraphWorld(t, 6)
	file := g.text()
	mounted, other := g.image([]fsverity.Digest{file}), g.image([]fsverity.Digest{g.text()})
	g.link(store.Images, mounted.String(), mounted)
	g.link(store.Images, other.String(), other)
	g.must(g.s.Settled())
	list := map[fsverity.Digest]bool{mounted: true, g.text(): true}
	for _, boot := range []string{"now", ""} {
		o := store.GCOptions{BootID: boot, Mounted: func() (map[fsverity.Digest]bool, bool, error) { return list, true, nil }}
		g.collectMounts(o, map[fsverity.Digest]bool{mounted: true, file: true, other: false})
	}
	list = nil
	g.collectMounts(store.GCOptions{BootID: "now", Mounted: func() (map[fsverity.Digest]bool, bool, error) { return list, false, nil }},
		map[fsverity.Digest]bool{mounted: false, file: false})
}

func (g *graphWorld) collectMounts(o store.GCOptions, want map[fsverity.Digest]bool) {
	g.t.Helper()
	dry := o
	dry.DryRun = true
	said, err := g.gc(dry)
	g.must(err)
	did, err := g.gc(o)
	g.must(err)
	if said.DryRun = false; !reflect.DeepEqual(said, did) {
		g.t.Errorf("said %+v, did %+v", said, did)
	}
	for d, kept := range want {
		if g.has(d) != kept {
			g.t.Errorf("image %s: there is %v, want %v", d, !kept, kept)
		}
	}
}

// TestGCCancel: a collection that is called off removes nothing.
func TestGCCancel(t *testing.T) {
	g := newGraphWorld(t, 5)
	g.grow()
	g.reopen()
	before := g.have()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.s.GC(ctx, store.GCOptions{Tracers: fsck.Tracers()}); !errors.Is(err, context.Canceled) || !reflect.DeepEqual(g.have(), before) {
		t.Errorf("%v", err)
	}
}
