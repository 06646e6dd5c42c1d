package index

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

// namedThing is something that a name can stand for: the refs that it takes, and what is found by them.
type namedThing struct {
	refs  standing
	there bool // the name stands for something
	image fsverity.Digest
	index digest.Digest
}

// looksLike tells whether the name stands for the same, by whatever refs.
func (n namedThing) looksLike(m namedThing) bool {
	n.refs = m.refs
	return n == m
}

// found is what the name stands for.
func found(t *testing.T, s *store.Store, name string) namedThing {
	t.Helper()
	n := namedThing{}
	i, err := findAny(s, name)
	if err == nil {
		n.image, n.there = i.Image, true
	} else if !errors.Is(err, ErrNoImage) {
		t.Fatal(err)
	}
	x, err := FindImageIndex(s, name)
	if err != nil {
		t.Fatal(err)
	}
	if x != nil {
		n.index = x.Digest
	}
	if n.refs, err = standingOf(s, name); err != nil {
		t.Fatal(err)
	}
	return n
}

// namedThings are an image of each kind that a name can stand for, and a second one of each, image indexes with and without
// an image for this machine, one of which lists an image that is there by itself too, and nothing.
func namedThings(t *testing.T, s *store.Store) (all []namedThing) {
	t.Helper()
	ctx := context.Background()
	put := func(err error) {
		must(t, err)
		all = append(all, found(t, s, "name"))
		must(t, Remove(s, "name"))
	}
	for _, words := range []string{hurtText, "dir usr 0700 mtime=7\nfile usr/other size=100 fill=other"} {
		src := hurtSource(t, words)
		for _, r := range []Rules{OCI1, Faithful1} {
			_, err := Import(ctx, s, src, ImportOptions{Image: writeImage, Name: "name", Rules: r})
			put(err)
		}
		tree, err := ReadTree(ctx, hurtSource(t, words+"\ndir usr/dump"), s.Algorithm(), ImportOptions{})
		must(t, err)
		_, err = AddImage(s, tree, ImportOptions{Image: writeImage, Name: "name"})
		put(err)
	}
	o := newOnline(t)
	x := sampleIndex(t)
	other := sampleIndex(t)
	other.Images[0].Layers = text(t, goodText)
	foreign := ocitest.Index{Images: x.Images[1:]}
	for n, x := range []ocitest.Index{x, other, foreign, {Images: foreign.Images[1:]}} {
		name := fmt.Sprint("index", n)
		o.pushIndex(t, x, name)
		_, err := ImportAll(ctx, s, o.source(t, name), ImportOptions{Image: writeImage, Name: "name"})
		put(err)
	}
	_, err := Import(ctx, s, o.source(t, "index0"), ImportOptions{Image: writeImage, Name: "name"})
	put(err)
	return append(all, namedThing{})
}

// TestNameCutOff changes a name from each thing to each other one, from none and to none, and stops after each of its refs: the
// name then stands for the old one or for the new one. There are two exceptions: of two indexes the name may stand for the first
// one's image alone, and where an index lists the image to come, for the index with that image.
func TestNameCutOff(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	all := namedThings(t, s)
	at, err := refsOf("name")
	must(t, err)
	for n, from := range all {
		for m, to := range all {
			for cut := range len(nameSteps(s, at, to.refs)) + 1 {
				_, err := setRefs(s, "name", from.refs)
				must(t, err)
				for _, step := range nameSteps(s, at, to.refs)[:cut] {
					must(t, ignoreMissing(step()))
				}
				got := found(t, s, "name")
				alone := from.index != "" && to.index != "" && got.looksLike(namedThing{there: true, image: from.image})
				listed := to.index == "" && got.looksLike(namedThing{there: true, image: to.image, index: from.index})
				if !got.looksLike(from) && !got.looksLike(to) && !alone && !listed {
					t.Errorf("from %d to %d, cut off after %d: %+v", n, m, cut, got)
				}
				_, err = setRefs(s, "name", to.refs)
				must(t, err)
				if got := found(t, s, "name"); got != to {
					t.Errorf("from %d to %d, in the end: %+v", n, m, got)
				}
			}
		}
	}
}
