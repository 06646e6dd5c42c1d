package chunk

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/tree"
)

// ClaimOptions are Claim's.
type ClaimOptions struct {
	Databases []pkgdb.Database // in any order
	Mapping   *Mapping         // nil: none
	// Split divides large components in programs and libraries, and all else, so that a rebuild that touches only the former
	// leaves the latter alone.
	Split bool
	// Content is for Split, which looks at the first bytes of what may be a program. Nil: nothing is divided.
	Content Content
	// Has tells of what is no directory whether layers are to have it; nil: they have all.
	Has func(tree.Node) bool
}

// Claims say which component has what.
type Claims struct {
	Components []Component // by name
	// Owners has for each node the index of its component; -1: a directory that is there for others only, which every layer
	// has that has something in it, or a node that is not in the tree any more.
	Owners []int32
	// Unused are the rules of the mapping that no file has come to, in their order.
	Unused []UnusedRule
}

// UnusedRule is a rule of a mapping that matches nothing, or nothing that no earlier rule matches.
type UnusedRule struct {
	Line      int    // where it begins, from 1 on
	Component string // as it stands in names
}

// maxComponents bounds what a tree is divided into. The largest systems have some 5,000 source packages.
const maxComponents = 1 << 16

// Claim divides all files of a tree, and its empty directories, among components. Of those that might have a file it is
// the first of these:
//
//   - of a rule of the mapping: map/NAME
//   - of the extended attribute user.component, its own or that of a directory above: xattr/NAME
//   - a kernel with its modules: kernel, and kernel/2 and so on if there are several
//   - initramfs
//   - pkgdb: what changes with any package, databases and caches of the dynamic linker for example
//   - of all packages of one source: KIND/SOURCE; what Python compiled of it: KIND/SOURCE+bytecode
//   - firmware that no package has
//   - a file of at least 1 MiB that no package has, alone: file/PATH
//   - the rest by directory: rest/usr/lib, rest/etc, rest
//
// A file with several names, or several packages, has one component: the first in that order, and then by name. Neither
// the order of databases and packages nor which name of a file is its home makes a difference. With a given tree and
// options the result is always the same.
//
// The tree's mtimes must be those that the layers are to have, since digests tell of them. Digests tell of a file's
// content by the digest that the tree has, so that those of trees with different algorithms can't be compared.
func Claim(t *tree.Tree, o ClaimOptions) (*Claims, error) {
	claims, err := newClaimer(t, o).run()
	if err != nil {
		return nil, fmt.Errorf("divide the tree into components: %w", err)
	}
	return claims, nil
}

// rank is what a claim is by. The lowest wins.
type rank uint8

const (
	byRule rank = iota
	byXattr
	byKernel
	byInitramfs
	byDatabase
	byPackage
	byFirmware
	byFile
	byPlace
)

// group is a component that is being made.
type group struct {
	groupKey
	name      string        // once it is settled; empty: nothing is in it
	interval  time.Duration // as somebody said; 0: nobody did
	exclusive bool
	changes   changes
}

type groupKey struct {
	rank rank
	key  string // the name without what the rank says, or a kernel's version, or a place
}

// claim is one on a file. The lower order wins, of claims of one rank.
type claim struct {
	group int32
	order int32 // number of the rule
}

var nobody = claim{group: -1}

type claimer struct {
	t        *tree.Tree
	o        ClaimOptions
	paths    *resolver
	rules    matcher
	ruled    []claim // by number of the rule
	ruleUsed []bool  // the same
	groups   []group
	known    map[groupKey]int32
	best     []claim // by node
	owned    []ownership
	special  map[tree.Node]area
	kernels  map[string]bool // versions that have modules

	xattrs    map[int]annotation // by XattrSet
	conflicts []conflict
	big       []bigFile
}

func newClaimer(t *tree.Tree, o ClaimOptions) *claimer {
	c := &claimer{
		t: t, o: o, paths: newResolver(t), known: map[groupKey]int32{}, best: make([]claim, t.Len()),
		special: map[tree.Node]area{}, kernels: map[string]bool{}, xattrs: map[int]annotation{},
	}
	for i := range c.best {
		c.best[i] = nobody
	}
	return c
}

func (c *claimer) run() (*Claims, error) {
	for _, step := range []func() error{c.packages, c.places, c.settle, c.split} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c.claims()
}

// group is the one of a rank and key, which is made if there is none.
func (c *claimer) group(r rank, key string) int32 {
	k := groupKey{r, key}
	i, ok := c.known[k]
	if !ok {
		i = int32(len(c.groups))
		c.groups = append(c.groups, group{groupKey: k})
		c.known[k] = i
	}
	return i
}

func (c *claimer) claim(n tree.Node, with claim) {
	if old := c.best[n]; old == nobody || c.compare(with, old) < 0 {
		c.best[n] = with
	}
}

func (c *claimer) compare(a, b claim) int {
	if a.group == b.group {
		return cmp.Compare(a.order, b.order)
	}
	x, y := &c.groups[a.group], &c.groups[b.group]
	return cmp.Or(cmp.Compare(x.rank, y.rank), cmp.Compare(a.order, b.order), strings.Compare(x.key, y.key))
}

// leaf tells whether a node has a component: all but directories that have something in them.
func (c *claimer) leaf(n tree.Node) bool {
	for range c.t.Entries(n) {
		return false
	}
	return true
}

// claims makes the components of the groups that have something.
func (c *claimer) claims() (*Claims, error) {
	var used []int32
	for i := range c.groups {
		if c.groups[i].name != "" {
			used = append(used, int32(i))
		}
	}
	if len(used) > maxComponents {
		return nil, fmt.Errorf("there are %d, more than %d: have a mapping put some together", len(used), maxComponents)
	}
	slices.SortFunc(used, func(a, b int32) int { return strings.Compare(c.groups[a].name, c.groups[b].name) })
	out := &Claims{Components: make([]Component, len(used)), Owners: make([]int32, len(c.best))}
	index := make([]int32, len(c.groups))
	for i, g := range used {
		index[g] = int32(i)
		out.Components[i] = c.groups[g].component()
	}
	for n, best := range c.best {
		out.Owners[n] = -1
		if best != nobody {
			out.Owners[n] = index[best.group]
		}
	}
	out.Unused = c.unused()
	out.Measure(c.t)
	return out, nil
}

func (c *claimer) unused() (rules []UnusedRule) {
	for i, used := range c.ruleUsed {
		if r := &c.o.Mapping.rules[i]; !used {
			rules = append(rules, UnusedRule{r.line, r.component})
		}
	}
	return rules
}

// component is all but size and digest. If somebody said how often it changes, packages are not asked.
func (g *group) component() Component {
	var changes []time.Time
	if g.interval == 0 {
		changes = g.changes.list()
	}
	return Component{Name: g.name, Changes: changes, Interval: g.usual(len(changes) > 0), Exclusive: g.exclusive}
}

func (g *group) usual(known bool) time.Duration {
	switch {
	case g.interval != 0:
		return g.interval
	case g.rank == byInitramfs || g.rank == byDatabase:
		return always
	case g.rank == byFile:
		return unownedBig
	case g.rank == byPlace:
		return unowned
	case known:
		return 0
	case g.rank == byRule || g.rank == byXattr:
		return grouped
	}
	return packaged
}
