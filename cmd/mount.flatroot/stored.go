package main

import (
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// openStored takes the image from a store, by digest or name. The store stays
// open, and its lock keeps a collection of garbage away until the mount is there.
func (w *wanted) openStored(c *command, waiting func(who string)) error {
	if err := w.openStore(storeDir(c.options.Store), waiting); err != nil {
		return err
	}
	s := w.store
	if err := w.addObjects(c.options.Basedirs); err != nil {
		return err
	}
	d, err := specDigest(s, c.spec)
	if err != nil {
		return err
	}
	if err := w.expect(d); err != nil {
		return err
	}
	image, err := s.OpenObject(d)
	if err != nil {
		return err
	}
	w.setImage(image)
	w.objects = append(w.objects, s.ObjectsDir()) // not nil: it has the image
	return nil
}

func (w *wanted) openStore(dir string, waiting func(who string)) (err error) {
	w.store, err = store.OpenToMount(dir, store.OpenOptions{Waiting: waiting})
	if err == nil {
		w.closers = append(w.closers, w.store)
	}
	return err
}

// specDigest is the digest of the image that SPEC stands for. Only what is
// registered as an image is mounted: other objects are files that came from
// somewhere, and one of them may be an image that nobody here has checked.
func specDigest(s *store.Store, spec string) (fsverity.Digest, error) {
	d, err := namedDigest(s, spec)
	if err != nil {
		return fsverity.Digest{}, err
	}
	entry, err := s.Entry(store.Images, d.String())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fsverity.Digest{}, fmt.Errorf("store %s has no image %s: %w", s.Dir(), d, err)
	case err != nil:
		return fsverity.Digest{}, err
	case entry != d:
		return fsverity.Digest{}, fmt.Errorf("store %s is damaged: images/%s leads to object %s", s.Dir(), d, entry)
	}
	return d, nil
}

func namedDigest(s *store.Store, spec string) (fsverity.Digest, error) {
	if n := len(spec); n == 64 || n == 128 {
		if d, err := fsverity.ParseDigest(spec); err == nil {
			return d, nil
		}
	}
	enc, err := store.EncodeTag(spec)
	if err != nil {
		return fsverity.Digest{}, usagef("%q is neither a path nor a digest, and no possible name: %v", spec, err)
	}
	// A name may have both. Then the tag's image is that of the rule oci-1, and the ref the one that was asked for.
	d, err := digestOfRef(s, enc)
	if errors.Is(err, store.ErrNotFound) {
		d, err = digestOfTag(s, enc)
	}
	if errors.Is(err, store.ErrNotFound) {
		return d, noImage(s, spec, enc)
	}
	if err != nil {
		return d, fmt.Errorf("image %s: %w", spec, err)
	}
	return d, nil
}

// noImage says that a name has neither tag nor image, and what to do if it stands
// for an image index.
func noImage(s *store.Store, spec, enc string) error {
	if _, err := s.Ref(store.Streams, "flatroot/indexes/"+enc); err == nil {
		return fmt.Errorf("%s is an image index, and has no image for the machine that pulled it: "+
			"take the digest of one of its images, or give one a name (flatroot tag --platform)", spec)
	}
	return fmt.Errorf("no image named %s in store %s", spec, s.Dir())
}

// imageKeys are the names under which a config stream may refer to its image: of
// format version 1, and as other tools write version 2.
var imageKeys = [...]string{stream.ImageV1, stream.ImageV2}

// digestOfTag follows streams/refs/oci/ENC: manifest, config, image. ErrNotFound
// says that there is no such tag, and nothing else.
func digestOfTag(s *store.Store, enc string) (fsverity.Digest, error) {
	entry, err := s.Ref(store.Streams, "oci/"+enc)
	if err != nil {
		return fsverity.Digest{}, err
	}
	manifest, err := s.Entry(store.Streams, entry)
	if err != nil {
		return fsverity.Digest{}, damaged(err)
	}
	open := func(id fsverity.Digest) (stream.Object, error) { return s.OpenObject(id) }
	for _, key := range imageKeys {
		d, err := stream.FindImage(open, manifest, key)
		if !errors.Is(err, stream.ErrNoRef) {
			return d, damaged(err)
		}
	}
	return fsverity.Digest{}, fmt.Errorf("it has no EROFS image: pull it again with flatroot")
}

// damaged hides that something below an existing name is not found.
func damaged(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store is damaged (flatroot fsck tells more): %v", err)
}

// digestOfRef reads images/refs/ENC, which names images that came without layers
// or by another rule than oci-1. ErrNotFound says that there is none.
func digestOfRef(s *store.Store, enc string) (fsverity.Digest, error) {
	entry, err := s.Ref(store.Images, enc)
	if err != nil {
		return fsverity.Digest{}, err
	}
	return fsverity.ParseDigest(entry)
}
