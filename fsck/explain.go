package fsck

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/flatroot/flatroot/erofs"
	"github.com/opencontainers/go-digest"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

// confirm drops what was wrong only for a moment, and what comes of something else that is told of.
func (c *checker) confirm() error {
	c.problems = slices.DeleteFunc(c.problems, func(p *Problem) bool {
		if !c.passed(p) {
			return false
		}
		delete(c.bad, p.object)
		return true
	})
	hit := c.streamsHit()
	c.problems = slices.DeleteFunc(c.problems, func(p *Problem) bool { return p.derived && c.follows(p, hit) })
	return nil
}

// passed looks at an object once more: a pull may have brought it or mended it meanwhile.
func (c *checker) passed(p *Problem) bool {
	switch p.Code {
	case ObjectMissing, ObjectElsewhere:
		has, err := c.s.HasObject(p.object)
		return err == nil && has
	case ObjectDamaged, UnusedDamaged:
		check, err := c.examine(p.object, true)
		return err == nil && damage(check) == nil || errors.Is(err, store.ErrNotFound) && p.Code == UnusedDamaged
	}
	return false
}

// streamsHit are the bad objects that each stream refers to.
func (c *checker) streamsHit() map[*streamNode]map[fsverity.Digest]bool {
	hit := map[*streamNode]map[fsverity.Digest]bool{}
	if len(c.bad) == 0 {
		return hit
	}
	for _, n := range c.graph.order {
		found := map[fsverity.Digest]bool{}
		if c.bad[n.id] != nil {
			found[n.id] = true
		}
		_, _ = c.s.CheckObject(n.id, store.CheckOptions{Use: c.eachObject(func(d fsverity.Digest) {
			if c.bad[d] != nil {
				found[d] = true
			}
		})})
		if len(found) > 0 {
			hit[n] = found
		}
	}
	return hit
}

// follows tells whether a wrong layer or image is one because of an object that is bad.
func (c *checker) follows(p *Problem, hit map[*streamNode]map[fsverity.Digest]bool) bool {
	if n := c.graph.streams[p.object]; n != nil {
		return hit[n] != nil
	}
	i := c.graph.images[p.object]
	return i != nil && slices.ContainsFunc(i.configs, func(u imageUse) bool {
		cl := &closure{map[*streamNode]bool{}, map[*imageNode]bool{}}
		cl.addStream(c.graph, u.config)
		for n := range cl.streams {
			if hit[n] != nil {
				return true
			}
		}
		return false
	})
}

// explain finds the images that problems hit, and the paths in them.
func (c *checker) explain(ctx context.Context) error {
	about := map[fsverity.Digest][]*Problem{}
	for _, p := range c.problems {
		if !p.object.IsZero() {
			about[p.object] = append(about[p.object], p)
		}
	}
	if len(about) == 0 {
		return nil
	}
	c.Progress.Step("find out what is hit")
	hit := c.streamsHit()
	paths := map[*imageNode]map[fsverity.Digest][]string{}
	for _, n := range c.graph.allNames() {
		cl := c.graph.closure(n)
		if n.image != nil && len(n.documents) == 0 {
			c.graph.addConfigs(cl, n.image)
		}
		hits := map[fsverity.Digest][]string{}
		for s := range cl.streams {
			note(hits, s.id)
			for d := range hit[s] {
				note(hits, d)
			}
		}
		for i := range cl.images {
			note(hits, i.id)
			if paths[i] == nil {
				if err := ctx.Err(); err != nil {
					return err
				}
				paths[i] = c.pathsIn(ctx, i, about)
			}
			for d, ps := range paths[i] {
				hits[d] = merged(hits[d], ps)
			}
		}
		for d, ps := range hits {
			for _, p := range about[d] {
				p.Images = append(p.Images, Hit{Name: n.name, Paths: ps})
			}
		}
	}
	return nil
}

func note(hits map[fsverity.Digest][]string, d fsverity.Digest) {
	if hits[d] == nil {
		hits[d] = []string{}
	}
}

func merged(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// allNames are the images that have names, and those that have none but an entry, such as mounted ones, by their digests.
func (g *graph) allNames() []namedImage {
	names := slices.Clone(g.names)
	named := map[*imageNode]bool{}
	for _, n := range names {
		for i := range g.closure(n).images {
			named[i] = true
		}
	}
	for _, i := range g.sortedImages() {
		if i.entry && !named[i] {
			names = append(names, namedImage{name: i.id.String(), image: i})
		}
	}
	return names
}

// addConfigs adds what an image was made of, as far as it is known.
func (g *graph) addConfigs(cl *closure, i *imageNode) {
	for _, u := range i.configs {
		cl.addStream(g, u.config)
	}
}

// pathsIn gives the paths in an image of the objects that problems are about. Damage to the image itself is at its root.
func (c *checker) pathsIn(ctx context.Context, i *imageNode, about map[fsverity.Digest][]*Problem) map[fsverity.Digest][]string {
	found := map[fsverity.Digest][]string{}
	if i.bad || c.bad[i.id] != nil {
		found[i.id] = []string{"/"}
	}
	t, err := c.treeOf(ctx, i)
	if err != nil {
		return found // its own problem says so
	}
	visitFiles(t, tree.Root, "", func(path string, d fsverity.Digest) {
		if about[d] != nil {
			found[d] = append(found[d], path)
		}
	})
	return found
}

// treeOf reads an image, or makes it anew if it can't be read.
func (c *checker) treeOf(ctx context.Context, i *imageNode) (t *tree.Tree, err error) {
	if !i.bad && c.bad[i.id] == nil {
		_, err = c.s.CheckObject(i.id, store.CheckOptions{Use: func(f *os.File, size int64) error {
			img, err := erofs.Open(f, size)
			if err == nil {
				t, err = erofs.ReadTree(img, erofs.ReadOptions{Algorithm: c.s.Algorithm()})
			}
			return err
		}})
		return t, err
	}
	err = errors.New("its layers are not known")
	for _, u := range i.configs {
		rules, ok := index.ImageRules(u.key)
		layers, known := c.layersOf(u.config)
		if ok && known {
			return index.StoredTree(ctx, c.s, layers, rules)
		}
	}
	return nil, err
}

// visitFiles visits all names of files that have objects.
func visitFiles(t *tree.Tree, dir tree.Node, path string, visit func(string, fsverity.Digest)) {
	for name, n := range t.Children(dir) {
		p := path + "/" + name
		if t.IsDir(n) {
			visitFiles(t, n, p, visit)
		} else if d := t.Digest(n); !d.IsZero() {
			visit(p, d)
		}
	}
}

// judge tells of each problem whether a way to repair it is known, without trying it.
func (c *checker) judge() {
	hit := c.streamsHit()
	for _, p := range c.problems {
		switch p.Code {
		case NoteBad, EntryMissing, ImageUnnamed, ObjectUnsealed:
			p.Repairable = true
		case ObjectDamaged, ObjectMissing, ObjectStrange, EntryDangling, StreamInvalid, LayerDiffers, DocumentDiffers,
			DocumentIncomplete, ImageInvalid:
			p.Repairable = c.mendable(p, hit)
		}
	}
}

// mendable tells whether what a problem is about can be had again: an image from its layers; a layer, and what it has,
// from where it came; a document from where one of its layers came.
func (c *checker) mendable(p *Problem, hit map[*streamNode]map[fsverity.Digest]bool) bool {
	if p.entry != "" {
		return c.anyOrigin()
	}
	if i := c.graph.images[p.object]; i != nil {
		return slices.ContainsFunc(i.configs, func(u imageUse) bool {
			_, known := c.layersOf(u.config)
			return known
		})
	}
	if n := c.graph.streams[p.object]; n != nil && c.comesFrom(n) {
		return true
	}
	for n, ds := range hit {
		if ds[p.object] && c.comesFrom(n) {
			return true
		}
	}
	return false
}

// comesFrom tells whether it is noted where a layer came from, or a document, or a layer of it.
func (c *checker) comesFrom(n *streamNode) bool {
	if d, ok := n.original(layerPrefix); ok {
		_, err := index.LayerOrigin(c.s, oci.DiffID(d))
		return err == nil
	}
	for _, prefix := range []string{manifestPrefix, indexPrefix} {
		if d, ok := n.original(prefix); ok {
			if _, err := index.ManifestOrigin(c.s, digest.Digest(d)); err == nil {
				return true
			}
		}
	}
	cl := &closure{map[*streamNode]bool{}, map[*imageNode]bool{}}
	cl.addStream(c.graph, n)
	for other := range cl.streams {
		if d, ok := other.original(layerPrefix); ok {
			if _, err := index.LayerOrigin(c.s, oci.DiffID(d)); err == nil {
				return true
			}
		}
	}
	return len(cl.streams) == 1 && c.anyOrigin() // it can't be read: any place may have it
}

func (c *checker) anyOrigin() bool {
	for _, err := range c.s.Notes(index.DirOrigins) {
		return err == nil
	}
	return false
}
