package fsck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/stream"
)

// eachReference visits all that an open stream refers to, eachObject only the objects.
func (c *checker) eachReference(visit func(fsverity.Digest)) func(*os.File, int64) error {
	return func(f *os.File, size int64) error {
		st, err := stream.Open(f, size)
		if err != nil {
			return err
		}
		visitObjects(st, visit)
		for _, id := range st.StreamRefs() {
			visit(id)
		}
		return nil
	}
}

func (c *checker) eachObject(visit func(fsverity.Digest)) func(*os.File, int64) error {
	return func(f *os.File, size int64) error {
		st, err := stream.Open(f, size)
		if err == nil {
			visitObjects(st, visit)
		}
		return err
	}
}

func visitObjects(st *stream.Stream, visit func(fsverity.Digest)) {
	for i := range st.NumObjects() {
		visit(st.Object(i))
	}
}

// checkImage reads and hashes an image, and has it made anew if its layers are known. Of one whose layers aren't, all
// objects are looked for.
func (c *checker) checkImage(i *imageNode) {
	subject := "objects/" + i.id.ObjectPath()
	if i.entry {
		subject = string(store.Images) + "/" + i.id.String()
	} else if !c.has(i.id) {
		c.missing(i.id, ObjectMissing)
		return
	}
	walk := c.Quick || !c.coveredByLayers(i)
	var invalid error
	ok := c.checkPart(i.id, func(f *os.File, size int64) error {
		invalid = c.readImage(i, f, size, walk)
		return nil
	})
	if !ok {
		i.bad = true
		return
	}
	if invalid != nil {
		i.bad = true
		c.add(&Problem{Code: ImageInvalid, Subject: subject, Err: invalid, object: i.id})
		return
	}
	if !c.Quick {
		c.remake(i, subject)
	}
}

// coveredByLayers tells whether layers that are known refer to all that an image does: then those were looked at.
func (c *checker) coveredByLayers(i *imageNode) bool {
	return slices.ContainsFunc(i.configs, func(u imageUse) bool {
		_, ruled := index.ImageRules(u.key)
		_, known := c.layersOf(u.config)
		return ruled && known
	})
}

func (c *checker) readImage(i *imageNode, f *os.File, size int64, walk bool) error {
	img, err := erofs.Open(f, size)
	if err != nil || !walk {
		return err
	}
	code := ObjectElsewhere
	if i.live || len(i.configs) > 0 {
		code = ObjectMissing
	}
	for o, err := range img.Objects() {
		if err != nil {
			return err
		}
		if !c.objects.use(o.Digest) && !c.isBad(o.Digest) {
			c.missing(o.Digest, code)
		}
		c.objects.expect(o)
	}
	return nil
}

// remake compares an image with what its layers come to today, by each rule under which a config refers to it.
func (c *checker) remake(i *imageNode, subject string) {
	done := map[string]bool{} // parts; configs of the same layers come to the same
	for _, use := range i.configs {
		rules, ok := index.ImageRules(use.key)
		if !ok {
			continue
		}
		layers, ok := c.layersOf(use.config)
		part := "images/" + i.id.String() + "/" + inputOf(rules, layers)
		c.records.keep(part)
		if !ok || done[part] {
			continue
		}
		done[part] = true
		c.later(&c.graph.remakes, part, func(ctx context.Context) (bool, error) {
			got, err := c.flatten(ctx, layers, rules)
			switch {
			case ctx.Err() != nil:
				return false, ctx.Err()
			case err == nil && got == i.id:
				return true, nil
			case err == nil:
				err = fmt.Errorf("its layers come to %s by the rules %s", got, rules)
			}
			c.add(&Problem{Code: ImageDiffers, Subject: subject, Err: reason(err), object: i.id, derived: true})
			return false, nil
		})
	}
}

// inputOf tells apart what images are made of.
func inputOf(r index.Rules, layers []index.StoredLayer) string {
	return digest.FromString(fmt.Sprint(r, layers)).Encoded()[:32]
}

// flatten computes the digest of the image that layers come to.
func (c *checker) flatten(ctx context.Context, layers []index.StoredLayer, r index.Rules) (d fsverity.Digest, err error) {
	t, err := index.StoredTree(ctx, c.s, layers, r)
	if err != nil {
		return d, err
	}
	h := fsverity.NewHasher(c.s.Algorithm())
	if _, err := erofs.Write(h, t, erofs.WriteOptions{Format: erofs.Format1}); err != nil {
		return d, errors.Join(errors.New("write image"), err)
	}
	return h.Sum(), nil
}
