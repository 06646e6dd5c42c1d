package index

import (
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// A name has up to three refs: a tag, which leads to a manifest; an image ref, which goes before the image of the manifest's
// config; and an index ref, which leads to an image index. That counts if the index lists the tag's manifest, as the one for the
// machine that pulled it, or if it lists none for that machine and there is neither of the other refs. So a name stands for an
// image where nothing but its tag is known. They can't be changed all at once, so one comes first, and whoever is cut off in
// between must leave the name with what it stood for before or with what it was to get.

// standing is what a name's refs lead to: entries, "" where there is none.
type standing struct{ tag, image, index string }

// standingOf reads a name's refs.
func standingOf(s *store.Store, name string) (n standing, err error) {
	at, err := refsOf(name)
	if err != nil {
		return n, err
	}
	if n.tag, err = refOf(s, store.Streams, at.tag); err != nil {
		return n, err
	}
	if n.image, err = refOf(s, store.Images, at.image); err != nil {
		return n, err
	}
	n.index, err = refOf(s, store.Streams, at.index)
	return n, err
}

// nameSteps are the changes that make a name's refs lead there, in their order.
func nameSteps(s *store.Store, at refs, to standing) []func() error {
	setTag := func() error { return setOrRemove(s, store.Streams, at.tag, to.tag) }
	setImage := func() error { return setOrRemove(s, store.Images, at.image, to.image) }
	setIndex := func() error { return setOrRemove(s, store.Streams, at.index, to.index) }
	steps := []func() error{setImage, setTag} // an image ref stands for the new image at once
	if to.image == "" {
		steps = []func() error{setTag, setImage} // one that was there stands for the old image till it goes
	}
	if to.index == "" {
		return append(steps, setIndex)
	}
	return append([]func() error{setIndex}, steps...) // it does not count before the tag is the one that it lists
}

func setOrRemove(s *store.Store, k store.Kind, ref, entry string) error {
	if entry == "" {
		return s.RemoveRef(k, ref)
	}
	return s.SetRef(k, ref, entry)
}

// setRefs makes a name's refs lead there, and tells whether there was anything to do or to take away.
func setRefs(s *store.Store, name string, to standing) (done bool, err error) {
	at, err := refsOf(name)
	if err != nil {
		return false, err
	}
	for _, step := range nameSteps(s, at, to) {
		err := step()
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return done, err
		}
		done = done || err == nil
	}
	return done, nil
}

// manifestStanding is what a name's refs lead to that stands for the image of a manifest. An image of another rule than oci-1
// is named by itself besides: the manifest alone leads to the image of oci-1.
func manifestStanding(manifest digest.Digest, r Rules, image fsverity.Digest) standing {
	to := standing{tag: manifestEntry(manifest)}
	if r != OCI1 {
		to.image = image.String()
	}
	return to
}

// setName makes a name stand for something, unless it does already. The empty name does.
func setName(s *store.Store, name string, to standing) error {
	if name == "" {
		return nil
	}
	if have, err := standingOf(s, name); err != nil || have == to {
		return err
	}
	_, err := setRefs(s, name, to)
	return err
}
