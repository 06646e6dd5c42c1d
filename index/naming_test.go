package index

import (
	"context"
	"errors"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// namedImages are an image of each kind that a name can stand for, and a second one of each.
func namedImages(t *testing.T, s *store.Store) (all []*Info) {
	t.Helper()
	put := func(name string, err error) {
		var i *Info
		if err == nil {
			i, err = Find(s, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	ctx := context.Background()
	for _, words := range []string{hurtText, "dir usr 0700 mtime=7\nfile usr/other size=100 fill=other"} {
		src := hurtSource(t, words)
		for _, r := range []Rules{OCI1, Faithful1} {
			_, err := Import(ctx, s, src, ImportOptions{Image: writeImage, Name: string(r), Rules: r})
			put(string(r), err)
		}
		tree, err := ReadTree(ctx, hurtSource(t, words+"\ndir usr/dump"), s.Algorithm(), ImportOptions{})
		if err == nil {
			_, err = AddImage(s, tree, ImportOptions{Image: writeImage, Name: "dump"})
		}
		put("dump", err)
	}
	return all
}

// refsTo are the refs that a name has for an image; nil: no image.
func refsTo(i *Info) standing {
	switch {
	case i == nil:
		return standing{}
	case i.Manifest == "":
		return standing{image: i.Image.String()}
	}
	return manifestStanding(i.Manifest, i.Rules, i.Image)
}

// TestNameCutOff changes a name from each image to each other one, from none and to none, and stops after the first of its
// two refs: the name then stands for the old image or for the new one.
func TestNameCutOff(t *testing.T) {
	s := fastStore(t, fsverity.SHA256)
	all := append(namedImages(t, s), nil)
	at, err := refsOf("name")
	if err != nil {
		t.Fatal(err)
	}
	for n, from := range all {
		for m, to := range all {
			if _, err := setRefs(s, "name", refsTo(from)); err != nil {
				t.Fatal(err)
			}
			wantNamed(t, s, from, from)
			if err := nameSteps(s, at, refsTo(to))[0](); ignoreMissing(err) != nil {
				t.Fatal(err)
			}
			if !wantNamed(t, s, from, to) {
				t.Errorf("from image %d to %d", n, m)
			}
			if _, err := setRefs(s, "name", refsTo(to)); err != nil {
				t.Fatal(err)
			}
			if !wantNamed(t, s, to, to) {
				t.Errorf("from image %d to %d, in the end", n, m)
			}
		}
	}
}

// wantNamed wants the name to stand for one of two images.
func wantNamed(t *testing.T, s *store.Store, a, b *Info) bool {
	t.Helper()
	got, err := Find(s, "name")
	if err != nil && !errors.Is(err, ErrNoImage) {
		t.Errorf("find: %v", err)
		return false
	}
	for _, want := range []*Info{a, b} {
		if want == nil && got == nil || want != nil && got != nil && want.Image == got.Image {
			return true
		}
	}
	t.Errorf("got %+v", got)
	return false
}
