package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

func imageObjects(f *os.File, visit func(fsverity.Digest, int64) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := erofs.Open(f, info.Size())
	if err != nil {
		return err
	}
	for o, err := range m.Objects() {
		if err == nil {
			err = visit(o.Digest, o.Size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pullAgain pulls an image that the store has.
func (h *hurt) pullAgain(image int, verify bool) (*Report, error) {
	return Import(context.Background(), h.s, h.sources[image], ImportOptions{
		Image: writeImage, Name: h.names[image], Rules: []Rules{OCI1, Faithful1, OCI1}[image],
		ImageObjects: imageObjects, Verify: verify,
	})
}

// mustHeal pulls an image that is damaged, and checks what was restored and that nothing is left to do.
func (h *hurt) mustHeal(image int, verify bool, want HealCounts) {
	h.Helper()
	r, err := h.pullAgain(image, verify)
	must(h, err)
	if r.Image != h.digests[image] || r.Healed != want {
		h.Errorf("image %s, want %s; restored %+v, want %+v", r.Image, h.digests[image], r.Healed, want)
	}
	h.checkAll()
	state := h.state()
	if strings.Contains(state, "flatroot/unclean/") {
		h.Error("the pull is not settled")
	}
	for _, verify := range []bool{false, true} {
		r, err := h.pullAgain(image, verify)
		must(h, err)
		if r.Healed.Any() || r.Bytes.Fetched != 0 || r.Layers.Fetched != 0 || r.Objects.New != 0 {
			h.Errorf("once more: %+v", r)
		}
	}
	h.checkState("once more", state)
	h.forgetDamaged()
}

// ailment is something of the first image that may be damaged.
type ailment struct {
	name    string
	object  func(h *hurt) fsverity.Digest
	heals   HealCounts
	unsized bool // its length can't be known from what a pull reads
}

func ailments() []ailment {
	content := func(layer, n int) func(h *hurt) fsverity.Digest {
		return func(h *hurt) fsverity.Digest { return layerObjects(h, h.s, h.images[0].Layers[layer].DiffID)[n] }
	}
	entry := func(name func(h *hurt) string) func(h *hurt) fsverity.Digest {
		return func(h *hurt) fsverity.Digest { return mustEntry(h, h.s, name(h)) }
	}
	config := func(h *hurt) string { return h.config(0) }
	manifest := func(h *hurt) string { return h.manifest(0) }
	object, str, image := HealCounts{Objects: 1}, HealCounts{Streams: 1}, HealCounts{Images: 1}
	return []ailment{
		{name: "small file", object: content(0, 0), heals: object},
		{name: "large file", object: content(0, 2), heals: object},
		{name: "sparse file", object: content(1, 1), heals: object},
		{name: "stored form of a sparse file", object: content(1, 0), heals: object, unsized: true},
		{name: "layer", object: entry(func(h *hurt) string { return h.layer(0, 0) }), heals: str},
		{name: "sparse layer", object: entry(func(h *hurt) string { return h.layer(0, 1) }), heals: str},
		{name: "config", object: entry(config), heals: str},
		{name: "manifest", object: entry(manifest), heals: str},
		{name: "config's JSON", object: func(h *hurt) fsverity.Digest {
			return fsverity.Sum(h.s.Algorithm(), h.images[0].Config)
		}, heals: object},
		{name: "manifest's JSON", object: func(h *hurt) fsverity.Digest {
			return fsverity.Sum(h.s.Algorithm(), h.images[0].Manifest)
		}, heals: object},
		{name: "image", object: func(h *hurt) fsverity.Digest { return h.digests[0] }, heals: image},
	}
}

// TestPullHeals damages one thing of an image in one way. Damage that doesn't show is found if it is noted, or if everything
// is read.
func TestPullHeals(t *testing.T) {
	for _, a := range ailments() {
		for n, damage := range damages {
			both := []bool{false, true}
			if !strings.Contains(a.name, "layer") {
				both = []bool{n%2 == 0} // it makes a difference to layers alone
			}
			for _, foreign := range both {
				alg := []fsverity.Algorithm{fsverity.SHA256, fsverity.SHA512}[n%2]
				test := func(how string, note, verify bool) {
					t.Run(fmt.Sprintf("%s, %s, foreign %t, %s", a.name, damage.name, foreign, how), func(t *testing.T) {
						t.Parallel()
						h := newHurt(t, alg, foreign)
						d := a.object(h)
						damage.do(t, objectPath(h.s, d))
						if note {
							must(t, h.s.MarkBad(d, "object-damaged"))
						}
						h.mustHeal(0, verify, a.heals)
					})
				}
				switch {
				case damage.name == "garbage", damage.name == "short" && a.unsized:
					test("noted", true, false)
					test("read", false, true)
				default:
					test("plain", false, false)
				}
			}
		}
	}
}

// TestPullHealsEntries takes entries away, or makes them something else.
func TestPullHealsEntries(t *testing.T) {
	for name, path := range map[string]func(h *hurt) string{
		"layer":    func(h *hurt) string { return "streams/" + h.layer(0, 0) },
		"config":   func(h *hurt) string { return "streams/" + h.config(0) },
		"manifest": func(h *hurt) string { return "streams/" + h.manifest(0) },
		"image":    func(h *hurt) string { return "images/" + h.digests[0].String() },
	} {
		for how, do := range map[string]func(path string) error{
			"missing": os.Remove,
			"file":    func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o644)) },
			"astray":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink("../objects/nowhere", path)) },
			"dangling": func(path string) error {
				return errors.Join(os.Remove(path), os.Symlink("../objects/"+fsverity.Sum(fsverity.SHA256, []byte("x")).ObjectPath(), path))
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				h := newHurt(t, fsverity.SHA256, true)
				must(t, do(filepath.Join(h.s.Dir(), path(h))))
				_, err := h.pullAgain(0, false)
				must(t, err)
				h.checkAll()
			})
		}
	}
}

// TestPullHealsAtOnce damages everything of all images.
func TestPullHealsAtOnce(t *testing.T) {
	for _, verify := range []bool{false, true} {
		for _, damage := range damages {
			t.Run(fmt.Sprintf("%s, verify %t", damage.name, verify), func(t *testing.T) {
				t.Parallel()
				h := newHurt(t, fsverity.SHA256, true)
				for o, err := range h.s.Objects() {
					must(t, err)
					if o.Size == 0 {
						continue
					}
					damage.do(t, objectPath(h.s, o.Digest))
					if !verify {
						must(t, h.s.MarkBad(o.Digest, "object-damaged"))
					}
				}
				for n := range h.images {
					r, err := h.pullAgain(n, verify)
					must(t, err)
					if r.Image != h.digests[n] {
						t.Errorf("image %d is %s now", n, r.Image)
					}
				}
				h.checkAll()
				h.forgetDamaged()
			})
		}
	}
}

// TestPullFetchesLittle restores a file from the smaller of two layers that have it, and asks for no document.
func TestPullFetchesLittle(t *testing.T) {
	h := &hurt{TB: t, s: fastStore(t, fsverity.SHA256)}
	h.pull("image", OCI1, ocitest.Image{Layers: text(t, hurtText, "file other size=100 fill=first")})
	d := layerObjects(t, h.s, h.images[0].Layers[1].DiffID)[0]
	must(t, os.Remove(objectPath(h.s, d)))
	src := &countingSource{Source: h.sources[0]}
	r, err := Import(context.Background(), h.s, src, ImportOptions{Image: writeImage, Name: "image", ImageObjects: imageObjects})
	must(t, err)
	l := h.images[0].Layers
	if src.opened.Load() != 1 || r.Bytes.Fetched > l[1].Descriptor.Size || r.Bytes.Reused != l[0].Descriptor.Size || r.Healed != (HealCounts{Objects: 1}) {
		t.Errorf("%d blobs opened, %+v", src.opened.Load(), r)
	}
	h.checkAll()
}

// TestPullFromBadSource has a source that can't restore what is damaged: it stays as it is, and the error says what to do.
func TestPullFromBadSource(t *testing.T) {
	for _, what := range []int{0, 1} {
		h := newHurt(t, fsverity.SHA256, true)
		d := layerObjects(t, h.s, h.images[0].Layers[0].DiffID)[0]
		if what == 1 {
			d = mustEntry(t, h.s, h.layer(0, 0))
		}
		must(t, os.WriteFile(objectPath(h.s, d), []byte("rubbish"), 0o644))
		blob := &h.sources[0].built.Blobs[0]
		good := blob.Data
		for name, bad := range map[string]struct {
			data []byte
			err  string
		}{
			"cut":      {good[:20], "the blob ends after"},
			"nonsense": {bytes.Repeat([]byte("x"), len(good)), "tar entry 1"},
		} {
			state := h.links()
			blob.Data = bad.data
			_, err := h.pullAgain(0, false)
			for _, part := range []string{bad.err, "layer 1 (" + blob.Descriptor.Digest.String() + ") of test:first: restore", "flatroot fsck --repair --from"} {
				if !errorIs(err, part) {
					t.Errorf("%s: %v has no %q", name, err, part)
				}
			}
			if b, err := os.ReadFile(objectPath(h.s, d)); err != nil || string(b) != "rubbish" {
				t.Errorf("%s: it is %q now, %v", name, b, err)
			}
			compareStates(t, name, state, h.links())
		}
		blob.Data = good
		h.mustHeal(0, false, []HealCounts{{Objects: 1}, {Streams: 1}}[what])
	}
}

// TestPullsAtOnce has two pulls restore, at the same time, a layer that two images share and whose stream becomes another,
// and two that add to one config.
func TestPullsAtOnce(t *testing.T) {
	for round := range 10 {
		h := newHurt(t, fsverity.SHA256, true)
		must(t, os.Remove(objectPath(h.s, mustEntry(t, h.s, h.layer(0, 0)))))
		var wg sync.WaitGroup
		for n := range h.images {
			wg.Go(func() {
				s, err := store.Open(h.s.Dir(), store.OpenOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				src := *h.sources[n]
				for _, r := range []Rules{OCI1, Faithful1} {
					if round%2 == 0 { // the other rule first: both change the config
						r = map[Rules]Rules{OCI1: Faithful1, Faithful1: OCI1}[r]
					}
					o := ImportOptions{Image: writeImage, Name: fmt.Sprint(h.names[n], r), Rules: r, ImageObjects: imageObjects}
					if _, err := Import(context.Background(), s, &src, o); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		h.checkAll()
		for n := range h.images {
			_, refs, err := entryRefs(h.s, h.config(n))
			must(t, err)
			for _, r := range []Rules{OCI1, Faithful1} {
				if _, ok := refNamed(refs, imageKey(r)); !ok {
					t.Errorf("config %d has lost its image of %s: %v", n, r, refs)
				}
			}
		}
		names, err := Names(h.s)
		must(t, err)
		for _, name := range names {
			i, err := Find(h.s, name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			live := h.foreignLive()
			must(t, visitObjects(h.s, i, h.imageObjects, func(d fsverity.Digest) error {
				if !live[d] {
					t.Errorf("%s: another tool's gc would lose %s", name, d)
				}
				return nil
			}))
		}
	}
}

// TestBuildHeals builds an image again of which the store has lost parts.
func TestBuildHeals(t *testing.T) {
	for _, damage := range damages {
		s := fastStore(t, fsverity.SHA256)
		tar := buildTar(t, hurtText)
		build := func() *Report {
			r, err := Build(context.Background(), s, bytes.NewReader(tar), "tar", ImportOptions{Image: writeImage, Name: "built"})
			must(t, err)
			return r
		}
		first := build()
		i, err := Find(s, "built")
		must(t, err)
		var objects []fsverity.Digest
		must(t, visitObjects(s, i, func(*Info, func(fsverity.Digest) error) error { return nil }, func(d fsverity.Digest) error {
			objects = append(objects, d)
			return nil
		}))
		slices.SortFunc(objects, func(a, b fsverity.Digest) int { return strings.Compare(a.String(), b.String()) })
		for _, d := range slices.Compact(objects) {
			damage.do(t, objectPath(s, d))
			if damage.name == "garbage" {
				must(t, s.MarkBad(d, "object-damaged"))
			}
			if r := build(); r.Image != first.Image {
				t.Errorf("image %s, want %s", r.Image, first.Image)
			}
			checkObjects(t, s, objects...)
		}
		must(t, WriteTar(context.Background(), s, i.Layers[0].DiffID, &bytes.Buffer{}))
	}
}
