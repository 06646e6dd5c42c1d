package fsck_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tests/testenv"
)

var errStep = errors.New("stopped by the test")

// steps is a context that ends when it is asked for the n-th time. A collection of garbage asks before each step, so that it
// can be stopped between any two.
type steps struct {
	context.Context
	left int
}

func (s *steps) Err() error {
	if s.left--; s.left < 0 {
		return errStep
	}
	return nil
}

// hidden makes a dead config that leads to streams without entries, one behind the other.
func (g *graphWorld) hidden() {
	inner := g.stream(stream.OCILayer, nil, []fsverity.Digest{g.text(), g.text()})
	for range 3 {
		refs := []stream.NamedRef{{Name: g.digestName(), ID: inner}}
		inner = g.stream(stream.OCIConfig, refs, []fsverity.Digest{g.text()})
	}
	g.link(store.Streams, "oci-config-"+g.digestName(), inner)
}

// rubbish is a store with much to remove.
func rubbish(t *testing.T, seed uint64) *graphWorld {
	g := newGraphWorld(t, seed)
	for range 2 {
		g.grow()
	}
	g.hidden()
	g.must(g.s.Settled())
	g.shrink()
	return g
}

// TestGCStopped stops a collection between any two steps: all that is needed is there, and the next one, which looks only
// at what has lost its names, removes the rest.
func TestGCStopped(t *testing.T) {
	seeds := uint64(2)
	if testenv.Nightly() {
		seeds = 40
	}
	for seed := range seeds {
		g, full, stops := rubbish(t, seed), seed%2 == 1, 0
		for ; g.copy(t).stopAt(fmt.Sprintf("seed %d, full %v, stopped at step %d", seed, full, stops), full, stops); stops++ {
		}
		if stops < 20 {
			t.Errorf("seed %d: %d steps only", seed, stops)
		}
	}
}

// copy is another store of the same content.
func (g *graphWorld) copy(t *testing.T) *graphWorld {
	to := filepath.Join(fastDir(t), "store")
	if out, err := exec.Command("cp", "-a", g.s.Dir(), to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, err := store.Open(to, store.OpenOptions{})
	g.must(err)
	return &graphWorld{world: &world{t: t, s: s}}
}

// stopAt stops a collection at a step, and tells whether it got there.
func (g *graphWorld) stopAt(what string, full bool, step int) bool {
	defer g.s.Close()
	want := g.model()
	_, err := g.s.GC(&steps{context.Background(), step}, store.GCOptions{Tracers: fsck.Tracers(), Full: full})
	if err != nil && !errors.Is(err, errStep) {
		g.t.Fatalf("%s: %v", what, err)
	}
	for d := range want.objects {
		if !g.has(d) {
			g.t.Fatalf("%s: object %s is needed and gone", what, d)
		}
	}
	g.collect(what, store.GCOptions{})
	return err != nil
}

// TestGCAside: an entry that can't be read is not found by its name any more, so that nobody relies on what else it had; put
// again, its object is replaced, and a later collection removes it.
func TestGCAside(t *testing.T) {
	g := newGraphWorld(t, 6)
	shared := g.text()
	var b [2]fsverity.Digest
	for i := range b {
		b[i] = g.stream(stream.OCILayer, nil, []fsverity.Digest{shared})
		g.link(store.Streams, "oci-layer-"+g.digestName(), b[i])
	}
	g.must(g.s.Settled())
	good := g.read(g.object(b[0]))
	g.overwrite(g.object(b[0]), make([]byte, len(good)))
	r, err := g.gc(store.GCOptions{})
	g.must(err)
	if len(r.Unreadable) != 1 || r.Removed.Streams != 1 || r.Removed.Objects != 2 {
		t.Errorf("%+v", r)
	}
	if have := g.have(); len(have.entries) != 0 || !have.objects[b[0]] {
		t.Errorf("it has %+v", have)
	}
	if isNew, err := g.s.PutObject(b[0], good); err != nil || !isNew {
		t.Errorf("put again: new %v, %v", isNew, err)
	}
	g.must(g.s.Settled())
	r, err = g.gc(store.GCOptions{})
	g.must(err)
	if have := g.have(); len(r.Unreadable) != 0 || len(have.objects) != 0 {
		t.Errorf("then %+v, left %+v", r, have)
	}
}

// TestGCStrange: what is in objects/ and no object stays, and is told.
func TestGCStrange(t *testing.T) {
	g := newGraphWorld(t, 7)
	d := g.text()
	g.must(g.s.Settled())
	lost := strings.Repeat("0", 62)
	for _, name := range []string{"objects/ab/note", "objects/note"} {
		g.must(os.MkdirAll(filepath.Dir(g.path(name)), 0o755))
		g.overwrite(g.path(name), nil)
	}
	g.must(os.MkdirAll(g.path("objects/ab/"+lost), 0o755))
	g.must(os.MkdirAll(g.path("images/refs/flatroot/live/old"), 0o755))
	r, err := g.gc(store.GCOptions{Full: true})
	g.must(err)
	want := []string{"objects/ab/" + lost, "objects/ab/note", "objects/note"}
	if slices.Sort(r.Strange); !slices.Equal(r.Strange, want) || !r.Full || r.Removed.Objects != 1 || g.has(d) {
		t.Errorf("%+v", r)
	}
	for _, name := range want {
		if _, err := os.Lstat(g.path(name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(g.path("images/refs/flatroot")); !os.IsNotExist(err) {
		t.Errorf("empty directories of refs: %v", err)
	}
}

// TestGCUnknownKind: a stream that only a reference of an unknown kind leads to is followed. If it can't be read, nothing is
// removed, since it may be one.
func TestGCUnknownKind(t *testing.T) {
	for name, spoil := range map[string]func(g *graphWorld, d fsverity.Digest){
		"whole":   func(*graphWorld, fsverity.Digest) {},
		"damaged": func(g *graphWorld, d fsverity.Digest) { g.overwrite(g.object(d), make([]byte, 100)) },
		"a directory": func(g *graphWorld, d fsverity.Digest) {
			g.must(os.Remove(g.object(d)))
			g.must(os.Mkdir(g.object(d), 0o755))
		},
		"a dead link":  func(g *graphWorld, d fsverity.Digest) { g.symlink("nothing", "objects/"+d.ObjectPath()) },
		"not readable": nil,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			g := newGraphWorld(t, 8)
			shared := g.text()
			unknown := g.stream(stream.ContentType(77), nil, []fsverity.Digest{shared})
			config := g.stream(stream.OCIConfig, []stream.NamedRef{{Name: "new.kind", ID: unknown}}, nil)
			g.link(store.Streams, "live", config)
			g.must(g.s.SetRef(store.Streams, "live", "live"))
			g.link(store.Streams, "dead", g.stream(stream.OCILayer, nil, []fsverity.Digest{shared}))
			g.must(g.s.Settled())
			tracers := fsck.Tracers()
			if spoil != nil {
				spoil(g, unknown)
			} else {
				tracers[store.Streams] = func(f io.ReaderAt, size int64, visit func(store.Edge, fsverity.Digest) error) error {
					if f.(*os.File).Name() == g.object(unknown) {
						f = failingReader{}
					}
					return fsck.Tracers()[store.Streams](f, size, visit)
				}
			}
			_, err := g.s.GC(context.Background(), store.GCOptions{Tracers: tracers})
			if (err == nil) != (name == "whole") || !g.has(shared) {
				t.Errorf("%v; the object is there: %v", err, g.has(shared))
			}
			if name == "not readable" && !errors.Is(err, syscall.EIO) {
				t.Errorf("%v", err)
			}
		})
	}
}

// failingReader is a disk that is worn out.
type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }
