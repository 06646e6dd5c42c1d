package index

import (
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
)

// Tag gives an image or image index one more name. What the new name stood for before loses it.
func Tag(s *store.Store, name, add string) error {
	n, err := standingOf(s, name)
	if err != nil {
		return err
	}
	x, err := findIndex(s, name, n)
	switch {
	case err != nil:
		return err
	case x == nil:
		return TagFor(s, name, add, oci.Platform{})
	}
	return tag(s, add, n)
}

// TagFor gives the image for a platform a name of its own.
func TagFor(s *store.Store, name, add string, p oci.Platform) error {
	i, err := FindFor(s, name, p)
	if err != nil {
		return err
	}
	to := standing{image: i.Image.String()}
	if i.Manifest != "" {
		to = manifestStanding(i.Manifest, i.Rules, i.Image)
	}
	return tag(s, add, to)
}

func tag(s *store.Store, name string, to standing) error {
	if err := setName(s, name, to); err != nil {
		return err
	}
	return s.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Remove takes a name away. What only that image has stays until the next gc.
func Remove(s *store.Store, name string) error {
	done, err := setRefs(s, name, standing{})
	if err != nil {
		return err
	}
	if !done {
		return noImage(name)
	}
	return s.Sync()
}

// Usage says what images cost in a store. All numbers are bytes of objects' contents.
type Usage struct {
	Images []ImageUsage `json:"images"`
	Total  int64        `json:"total"`  // all images together, each object once
	Apart  int64        `json:"apart"`  // what they would cost if they shared nothing
	Others int64        `json:"others"` // objects that no named image has: the next gc takes them
}

// ImageUsage is one image's part.
type ImageUsage struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"` // all its objects
	Own   int64  `json:"own"`   // those that no other image has: what removing it would free
}

// owner tells which images have an object: none yet, one, or several.
type owner struct {
	image int
	size  int64
}

const severalImages = -1

// DiskUsage counts what images cost. One that has two names is counted under the first.
func DiskUsage(s *store.Store, objects func(image *Info, visit func(fsverity.Digest) error) error) (*Usage, error) {
	u := &Usage{}
	owners := map[fsverity.Digest]*owner{}
	for i, err := range Images(s) {
		if err != nil {
			return nil, err
		}
		number := len(u.Images)
		u.Images = append(u.Images, ImageUsage{Name: i.Name})
		seen := map[fsverity.Digest]bool{}
		err := visitNamed(s, i, objects, func(d fsverity.Digest) error {
			if seen[d] {
				return nil
			}
			seen[d] = true
			return u.count(s, owners, number, d)
		})
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	for _, o := range owners {
		u.Total += o.size
		if o.image != severalImages {
			u.Images[o.image].Own += o.size
		}
	}
	return u, u.countOthers(s, owners)
}

func (u *Usage) count(s *store.Store, owners map[fsverity.Digest]*owner, number int, d fsverity.Digest) error {
	o := owners[d]
	switch {
	case o == nil:
		size, err := objectSizeAny(s, d)
		if err != nil {
			return err
		}
		o = &owner{number, size}
		owners[d] = o
	case o.image != number:
		o.image = severalImages
	}
	u.Images[number].Bytes += o.size
	u.Apart += o.size
	return nil
}

func objectSizeAny(s *store.Store, d fsverity.Digest) (int64, error) {
	size, err := objectSize(s, d)
	if errors.Is(err, errIncomplete) {
		err = nil
	}
	return size, err
}

func (u *Usage) countOthers(s *store.Store, owners map[fsverity.Digest]*owner) error {
	for o, err := range s.Objects() {
		if err != nil {
			return err
		}
		if owners[o.Digest] == nil {
			u.Others += o.Size
		}
	}
	return nil
}

// visitNamed visits all objects of what a name stands for: an image, or all images of an image index and what that has besides.
func visitNamed(s *store.Store, i *Info, imageObjects func(*Info, func(fsverity.Digest) error) error, visit func(fsverity.Digest) error) error {
	all, err := Platforms(s, i)
	if err != nil {
		return err
	}
	for _, i := range all {
		if err := visitObjects(s, i, imageObjects, visit); err != nil {
			return err
		}
	}
	if i.Index == "" {
		return nil
	}
	x, err := readIndex(s, i.Index)
	if err != nil {
		return err
	}
	for _, id := range append(x.others(), x.stream) {
		if err := visitStream(s, id, visit); err != nil {
			return err
		}
	}
	return nil
}

// visitObjects visits all objects of an image: streams, documents, files, the image itself.
func visitObjects(s *store.Store, i *Info, imageObjects func(*Info, func(fsverity.Digest) error) error, visit func(fsverity.Digest) error) error {
	if err := visit(i.Image); err != nil {
		return err
	}
	if i.Manifest == "" {
		return imageObjects(i, visit)
	}
	for _, entry := range []string{manifestEntry(i.Manifest), configEntry(i.Config)} {
		id, err := s.Entry(store.Streams, entry)
		if err == nil {
			err = visitStream(s, id, visit)
		}
		if err != nil {
			return err
		}
	}
	for _, l := range i.Layers {
		for _, id := range []fsverity.Digest{l.Stream, l.Kept} {
			if id.IsZero() {
				continue
			}
			if err := visitStream(s, id, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func visitStream(s *store.Store, id fsverity.Digest, visit func(fsverity.Digest) error) error {
	f, err := s.OpenObject(id)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := openStream(f)
	if err != nil {
		return fmt.Errorf("stream %s: %w", id, err)
	}
	if err := visit(id); err != nil {
		return err
	}
	for n := range st.NumObjects() {
		if err := visit(st.Object(n)); err != nil {
			return err
		}
	}
	return nil
}
