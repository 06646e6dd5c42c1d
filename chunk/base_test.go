package chunk_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// name is a place in a tree.
type name struct {
	dir  tree.Node
	name []byte
	node tree.Node
}

// names lists all places of a tree.
func (w *world) names() (list []name) {
	var walk func(dir tree.Node)
	walk = func(dir tree.Node) {
		for e := range w.tree.Entries(dir) {
			list = append(list, name{dir, e.Name, e.Node})
			if w.tree.IsDir(e.Node) {
				walk(e.Node)
			}
		}
	}
	walk(tree.Root)
	return list
}

// change does one random thing to a tree.
func (w *world) change(r *rand.Rand) {
	names := w.names()
	if len(names) == 0 {
		return
	}
	at := names[r.IntN(len(names))]
	a := w.tree.Attr(at.node)
	switch r.IntN(8) {
	case 0, 1:
		w.tree.Remove(at.dir, at.name)
	case 2:
		a.MtimeSec++
		check(w.t, w.tree.SetAttr(at.node, a))
	case 3:
		a.Mode ^= 1
		check(w.t, w.tree.SetAttr(at.node, a))
	case 4: // another type
		w.tree.Remove(at.dir, at.name)
		typ := []uint32{tree.Directory, tree.FIFO, tree.Regular}[r.IntN(3)]
		n, err := w.tree.Add(at.dir, at.name, tree.Attr{Mode: typ | 0o700})
		check(w.t, err)
		if typ == tree.Directory {
			_, err = w.tree.Add(n, []byte("new"), tree.Attr{Mode: tree.FIFO})
			check(w.t, err)
		}
	case 5: // names part
		if !w.tree.IsDir(at.node) {
			w.tree.Remove(at.dir, at.name)
			w.copy(at)
		}
	case 6: // names meet
		if to := names[r.IntN(len(names))]; !w.tree.IsDir(to.node) && !w.tree.IsDir(at.node) && to.node != at.node {
			w.tree.Remove(at.dir, at.name)
			check(w.t, w.tree.Link(at.dir, at.name, to.node))
		}
	case 7: // all goes, perhaps but one
		if w.tree.IsDir(at.node) {
			w.tree.RemoveChildren(at.node)
			if r.IntN(2) == 0 {
				_, err := w.tree.Add(at.node, []byte("instead"), tree.Attr{Mode: tree.FIFO})
				check(w.t, err)
			}
		}
	}
	w.tree.Canonicalize()
}

// copy puts an equal node where one was.
func (w *world) copy(at name) {
	n, err := w.tree.Add(at.dir, at.name, w.tree.Attr(at.node))
	check(w.t, err)
	w.tree.CopyXattrs(n, at.node)
	switch w.tree.Mode(n) & tree.TypeMask {
	case tree.Regular:
		check(w.t, w.tree.SetObject(n, w.tree.Digest(at.node)), w.tree.SetContent(n, w.tree.Content(at.node)))
		if d := w.tree.Digest(at.node); !d.IsZero() {
			check(w.t, w.tree.SetObject(n, d))
		}
	case tree.Symlink:
		check(w.t, w.tree.SetTarget(n, w.tree.Target(at.node)))
	}
}

// above are the layers that lie above a base, and whether the lowest has to stay there.
func (w *world) above(a *chunk.Above, r *rand.Rand) (changes []byte, layers [][]byte) {
	w.t.Helper()
	if a.Changes() {
		var b bytes.Buffer
		check(w.t, a.WriteChanges(context.Background(), &b))
		changes = b.Bytes()
	}
	n := 1 + r.IntN(3)
	of := make([]int, w.tree.Len())
	for i := range of {
		of[i] = r.IntN(n)
	}
	for i := range n {
		layers = append(layers, w.layer(func(n tree.Node) bool { return a.Has(n) && of[n] == i }))
	}
	return changes, layers
}

// TestAboveBase changes random trees and puts what AboveBase says above what they were.
func TestAboveBase(t *testing.T) {
	seeds := 60
	if testenv.Nightly() {
		seeds = 3000
	}
	whiteouts := 0
	for seed := range uint64(seeds) {
		base := randomWorld(t, rand.New(rand.NewPCG(seed, 9)), notUTF8)
		w := randomWorld(t, rand.New(rand.NewPCG(seed, 9)), notUTF8)
		r := rand.New(rand.NewPCG(seed, 10))
		for range r.IntN(12) {
			w.change(r)
		}
		a, err := chunk.AboveBase(base.tree, w.tree)
		check(t, err)
		stack := deal(base, r, 2)
		changes, layers := w.above(a, r)
		if changes != nil {
			stack = append(stack, changes)
			whiteouts += bytes.Count(changes, []byte(".wh."))
		}
		r.Shuffle(len(layers), func(i, j int) { layers[i], layers[j] = layers[j], layers[i] })
		wantSame(t, fmt.Sprintf("seed %d", seed), flatten(t, append(stack, layers...)...), w.dump())
	}
	if whiteouts < seeds/2 {
		t.Errorf("only %d whiteouts", whiteouts)
	}
}

// upper lists the paths that have to be above a base.
func (w *world) upper(a *chunk.Above) (paths []string) {
	for _, n := range w.names() {
		if p := w.tree.Path(n.node); a.Has(n.node) && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

// entriesOf lists the names in a tar.
func entriesOf(t *testing.T, b []byte) (names []string) {
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		check(t, err)
		names = append(names, h.Name)
	}
}

func TestAboveBaseLeast(t *testing.T) {
	for _, c := range []struct {
		what    string
		edit    func(w *world)
		upper   []string
		changes []string
	}{
		{"nothing", func(*world) {}, nil, nil},
		{"an edited file with two names", func(w *world) { w.fill(w.node("usr/bin/tool"), []byte("x")) }, []string{"/usr/bin/tool"}, nil},
		{"a name more", func(w *world) { w.link("etc/alias", "usr/bin/tool") }, []string{"/etc/alias"}, nil},
		{"a name less", func(w *world) { w.remove("usr/share/doc/alias") }, nil,
			[]string{"./", "usr/", "usr/share/", "usr/share/doc/", "usr/share/doc/.wh.alias"}},
		{"a directory's mode", func(w *world) {
			a := w.tree.Attr(w.node("usr/share"))
			a.Mode |= 0o20
			check(t, w.tree.SetAttr(w.node("usr/share"), a))
		}, nil, []string{"./", "usr/", "usr/share/"}},
		{"an empty directory", func(w *world) { w.dir("etc/empty") }, []string{"/etc/empty"}, nil},
		{"a directory emptied", func(w *world) { w.remove("usr/share/doc/alias"); w.remove("usr/share/doc/tool") }, nil,
			[]string{"./", "usr/", "usr/share/", "usr/share/doc/", "usr/share/doc/.wh..wh..opq"}},
		{"a directory gone", func(w *world) { w.remove("usr/share") }, nil, []string{"./", "usr/", "usr/.wh.share"}},
		{"a file where a directory was", func(w *world) { w.remove("usr/share"); w.file("usr/share", "x") }, []string{"/usr/share"}, nil},
		{"a directory where a file was", func(w *world) { w.remove("etc/conf"); w.dir("etc/conf"); w.file("etc/conf/a", "x") },
			[]string{"/etc/conf", "/etc/conf/a"}, nil},
	} {
		base, w := smallWorld(t), smallWorld(t)
		c.edit(w)
		w.tree.Canonicalize()
		a, err := chunk.AboveBase(base.tree, w.tree)
		check(t, err)
		var changes []string
		if a.Changes() {
			var b bytes.Buffer
			check(t, a.WriteChanges(context.Background(), &b))
			changes = entriesOf(t, b.Bytes())
		}
		if got := w.upper(a); !slices.Equal(got, c.upper) || !slices.Equal(changes, c.changes) {
			t.Errorf("%s: above are %q, changes %q; want %q, %q", c.what, got, changes, c.upper, c.changes)
		}
	}
}

// TestAboveBaseTimes: a base keeps its times, so that a build that only touches needs no more than without it.
func TestAboveBaseTimes(t *testing.T) {
	for _, c := range []struct {
		policy chunk.MtimePolicy
		upper  []string
	}{
		{chunk.MtimeKeep, []string{"/etc/conf"}},
		{chunk.MtimeClamp, []string{"/etc/conf"}},
		{chunk.MtimeStable, nil},
	} {
		base, w := smallWorld(t), smallWorld(t)
		for _, path := range []string{"etc/conf", "usr", "usr/share"} {
			w.touch(path, 1_710_000_000)
		}
		check(t, chunk.NormaliseMtimes(w.tree, chunk.MtimeOptions{Policy: c.policy, Epoch: time.Unix(1_500_000_000, 0), Base: base.tree}))
		a, err := chunk.AboveBase(base.tree, w.tree)
		check(t, err)
		if got := w.upper(a); !slices.Equal(got, c.upper) || a.Changes() != (c.policy == chunk.MtimeKeep) {
			t.Errorf("%s: above are %q, changes %v; want %q", c.policy, got, a.Changes(), c.upper)
		}
	}
}

func TestAboveBaseBad(t *testing.T) {
	long := strings.Repeat("n", tree.NameMax-3)
	for _, c := range []struct{ name, want string }{
		{"etc/" + long, "base: /etc/" + long + " has gone, but its name is too long for a whiteout"},
		{"etc/.wh.x", "base: /etc/.wh.x: a name that begins with .wh."},
	} {
		base, w := smallWorld(t), smallWorld(t)
		base.file(c.name, "x")
		if _, err := chunk.AboveBase(base.tree, w.tree); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
