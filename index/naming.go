package index

import (
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// A name has up to two refs: a tag, which leads to a manifest, and an image ref, which goes before the image of the manifest's
// config. Both can't be changed at once, so one comes first, and whoever is cut off between the two must leave the name with
// the image that it had before or with the one that it was to get.

// nameSteps are the changes that make a name's refs these, in their order; "" takes one away.
func nameSteps(s *store.Store, at refs, tag, image string) []func() error {
	setTag := func() error { return setOrRemove(s, store.Streams, at.tag, tag) }
	setImage := func() error { return setOrRemove(s, store.Images, at.image, image) }
	if image == "" {
		return []func() error{setTag, setImage} // an image ref that was there stands for the old image till it goes
	}
	return []func() error{setImage, setTag} // it stands for the new image at once
}

func setOrRemove(s *store.Store, k store.Kind, ref, entry string) error {
	if entry == "" {
		return s.RemoveRef(k, ref)
	}
	return s.SetRef(k, ref, entry)
}

// setRefs makes a name's refs these, and tells whether there was anything to do or to take away.
func setRefs(s *store.Store, name, tag, image string) (done bool, err error) {
	at, err := refsOf(name)
	if err != nil {
		return false, err
	}
	for _, step := range nameSteps(s, at, tag, image) {
		err := step()
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return done, err
		}
		done = done || err == nil
	}
	return done, nil
}

// nameManifest points a tag at a manifest's entry. An image of another rule than oci-1 is named by itself besides: the
// manifest alone leads to the image of oci-1.
func nameManifest(s *store.Store, name string, manifest digest.Digest, r Rules, image fsverity.Digest) error {
	if name == "" {
		return nil
	}
	hex := ""
	if r != OCI1 {
		hex = image.String()
	}
	_, err := setRefs(s, name, manifestEntry(manifest), hex)
	return err
}

// nameImage points a name at an image that has no manifest.
func nameImage(s *store.Store, name string, image fsverity.Digest) error {
	_, err := setRefs(s, name, "", image.String())
	return err
}
