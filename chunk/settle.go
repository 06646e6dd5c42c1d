package chunk

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/flatroot/flatroot/tree"
)

const (
	// minBig is from what size on, in bytes, a file that no package has is a component. chunkah has the same.
	minBig = 1 << 20
	// maxBig bounds how many there are: beyond it only the largest. As many take at least 1 GiB.
	maxBig = 1024
	// maxBranches bounds the components of the rest: where there would be more, all are one.
	maxBranches = 64
)

// bigFile is one that no package has, as far as is known yet.
type bigFile struct {
	node tree.Node
	size uint64
	path string
}

// noteBig remembers a file that nobody has, when it is met by its first name.
func (c *claimer) noteBig(p place, e tree.Entry) {
	a := c.t.Attr(e.Node)
	if a.Mode&tree.TypeMask == tree.Regular && a.Size >= minBig {
		c.big = append(c.big, bigFile{e.Node, a.Size, strings.TrimSuffix(c.t.Path(p.dir), "/") + "/" + string(e.Name)})
	}
}

// isolateBig makes components of the big files that nobody has, now that all their names are known.
func (c *claimer) isolateBig() {
	big := slices.DeleteFunc(c.big, func(f bigFile) bool { return c.groups[c.best[f.node].group].rank != byPlace })
	if len(big) > maxBig {
		slices.SortFunc(big, func(a, b bigFile) int {
			return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.path, b.path))
		})
		big = big[:maxBig]
	}
	for _, f := range big {
		c.best[f.node] = claim{group: c.group(byFile, escapeName(f.path))}
	}
}

// settle decides what is left open until all claims are known, and names all groups that have something.
func (c *claimer) settle() error {
	c.leaveOut()
	for _, x := range c.conflicts {
		if c.groups[c.best[x.node].group].rank == byXattr {
			return fmt.Errorf("%s: under one of its names %s is %s, under another %s: a file with several names can have one only",
				c.t.Path(x.node), componentXattr, c.groups[x.a].key, c.groups[x.b].key)
		}
	}
	c.isolateBig()
	c.foldPlaces()
	used := c.used()
	c.nameKernels(used)
	for _, i := range used {
		if g := &c.groups[i]; g.name == "" {
			g.name = g.plainName()
		}
	}
	c.date()
	return nil
}

// leaveOut takes away what layers are not to have.
func (c *claimer) leaveOut() {
	if c.o.Has == nil {
		return
	}
	for n := range c.best {
		if !c.o.Has(tree.Node(n)) {
			c.best[n] = nobody
		}
	}
	c.big = slices.DeleteFunc(c.big, func(f bigFile) bool { return c.best[f.node] == nobody })
	c.conflicts = slices.DeleteFunc(c.conflicts, func(x conflict) bool { return c.best[x.node] == nobody })
}

func (g *group) plainName() string {
	switch g.rank {
	case byRule:
		return "map/" + g.key
	case byXattr:
		return "xattr/" + g.key
	case byInitramfs:
		return "initramfs"
	case byDatabase:
		return "pkgdb"
	case byFirmware:
		return "firmware"
	case byFile:
		return "file" + g.key
	case byPlace:
		return placeName(g.key)
	}
	return g.key
}

func placeName(key string) string {
	if key == "" {
		return "rest"
	}
	return "rest/" + escapeName(key)
}

// used are the groups that have something.
func (c *claimer) used() (list []int32) {
	has := make([]bool, len(c.groups))
	for _, best := range c.best {
		if best != nobody && !has[best.group] {
			has[best.group] = true
			list = append(list, best.group)
		}
	}
	return list
}

// nameKernels gives kernels names without their versions, so that those stay from build to build.
func (c *claimer) nameKernels(used []int32) {
	var kernels []*group
	for _, i := range used {
		if c.groups[i].rank == byKernel {
			kernels = append(kernels, &c.groups[i])
		}
	}
	slices.SortFunc(kernels, func(a, b *group) int { return compareVersions(a.key, b.key) })
	for i, g := range kernels {
		g.name = "kernel"
		if i > 0 {
			g.name += "/" + strconv.Itoa(i+1)
		}
	}
}

// foldPlaces bounds how many components the rest has.
func (c *claimer) foldPlaces() {
	branches, tops := map[string]int{}, map[string]bool{}
	for _, i := range c.used() {
		if g := &c.groups[i]; g.rank == byPlace {
			top, _, inner := strings.Cut(g.key, "/")
			tops[top] = true
			if inner {
				branches[top]++
			}
		}
	}
	to := make([]int32, len(c.groups))
	for i := range to {
		to[i] = int32(i)
		g := c.groups[i]
		top, _, _ := strings.Cut(g.key, "/")
		switch {
		case g.rank != byPlace:
		case len(tops) > maxBranches:
			to[i] = c.group(byPlace, "")
		case branches[top] > maxBranches:
			to[i] = c.group(byPlace, top)
		}
	}
	for n, best := range c.best {
		if best != nobody {
			c.best[n].group = to[best.group]
		}
	}
}
