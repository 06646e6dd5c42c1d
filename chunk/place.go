package chunk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flatroot/flatroot/tree"
)

// area is a place in the tree that means something for what is in it.
type area uint8

const (
	plain    area = iota
	modules       // /usr/lib/modules: has a directory for each kernel
	version       // such a directory
	driver        // below it
	boot          // /boot
	firmware      // /usr/lib/firmware and below
)

// areas are where the areas begin. A tree may have them without /usr, or lead from one to the other by symlinks.
var areas = []struct {
	path string
	area area
}{
	{"/boot", boot}, {"/lib/firmware", firmware}, {"/lib/modules", modules},
	{"/usr/lib/firmware", firmware}, {"/usr/lib/modules", modules},
}

// kernelFiles are how names in /boot begin that are followed by the version of a kernel.
var kernelFiles = []string{"vmlinuz-", "vmlinux-", "System.map-", "config-", "symvers-"}

// caches change with about every package that is installed or removed. Most are written when it is done, and some say when.
var caches = []string{
	"/etc/ld.so.cache", "/var/cache/ldconfig/aux-cache",
	"/var/cache/apt/pkgcache.bin", "/var/cache/apt/srcpkgcache.bin",
	"/var/cache/debconf/config.dat", "/var/cache/debconf/config.dat-old",
	"/var/cache/debconf/templates.dat", "/var/cache/debconf/templates.dat-old",
	"/var/lib/apt/extended_states", "/var/lib/dnf/history.sqlite", "/usr/lib/sysimage/libdnf5/packages.toml",
	"/var/log/alternatives.log", "/var/log/apt/eipp.log.xz", "/var/log/apt/history.log", "/var/log/apt/term.log",
	"/var/log/bootstrap.log", "/var/log/dnf.log", "/var/log/dnf5.log", "/var/log/dpkg.log", "/var/log/pacman.log",
}

// maxCache bounds, in bytes, what is put to the databases for that: all of it is fetched each time.
const maxCache = 1 << 20

// branching are the directories at the top whose own directories have little to do with each other.
var branching = []string{"home", "opt", "srv", "usr", "var"}

// place is what a directory's entries have in common.
type place struct {
	dir    tree.Node
	depth  int
	area   area
	kernel string // version
	xattr  claim  // inherited
	rest   claim  // if there is none better
	globs  span
}

// places claims what is so by its path or by an extended attribute, and the rest.
func (c *claimer) places() error {
	if err := c.prepare(); err != nil {
		return err
	}
	root := place{xattr: nobody, rest: claim{group: c.group(byPlace, "")}, globs: c.rules.root()}
	var err error
	if root.xattr, err = c.annotated(tree.Root, nobody); err != nil {
		return fmt.Errorf("/: %w", err)
	}
	if c.leaf(tree.Root) {
		c.claim(tree.Root, root.rest)
		return nil
	}
	return c.visit(root)
}

// prepare finds the areas, and what is claimed by absolute path.
func (c *claimer) prepare() error {
	for _, a := range areas {
		n, err := c.paths.dir(a.path)
		if err != nil {
			return err
		}
		if n != tree.None {
			c.special[n] = a.area
		}
		if n != tree.None && a.area == modules {
			for name, child := range c.t.Children(n) {
				c.kernels[name] = c.kernels[name] || c.t.IsDir(child)
			}
		}
	}
	for _, p := range caches {
		n, err := c.paths.node(p)
		if err != nil {
			return err
		}
		if n != tree.None && c.t.Attr(n).Size <= maxCache {
			if err := c.claimPath(p, byDatabase, ""); err != nil {
				return err
			}
		}
	}
	return c.useMapping()
}

func (c *claimer) useMapping() error {
	if c.o.Mapping == nil {
		return nil
	}
	c.ruleUsed = make([]bool, len(c.o.Mapping.rules))
	for i, r := range c.o.Mapping.rules {
		g := c.group(byRule, r.component)
		c.groups[g].interval, c.groups[g].exclusive = r.interval, r.exclusive
		c.ruled = append(c.ruled, claim{g, int32(i)})
		c.rules.globs = append(c.rules.globs, r.globs...)
	}
	return c.rules.resolve(c.paths)
}

func (c *claimer) visit(p place) error {
	for e := range c.t.Entries(p.dir) {
		xattr, err := c.annotated(e.Node, p.xattr)
		if err != nil {
			return fmt.Errorf("%s: %w", c.t.Path(e.Node), err)
		}
		if c.leaf(e.Node) {
			c.claimEntry(p, e, xattr)
			continue
		}
		in := c.enter(p, e)
		in.xattr = xattr
		if err := c.visit(in); err != nil {
			return err
		}
		c.rules.leave(in.globs)
	}
	return nil
}

// enter is a directory's place in that of its parent.
func (c *claimer) enter(p place, e tree.Entry) place {
	in := place{dir: e.Node, depth: p.depth + 1, kernel: p.kernel, rest: p.rest, globs: c.rules.enter(p.globs, e.Name)}
	name := string(e.Name)
	switch p.area {
	case modules:
		in.area, in.kernel = version, name
	case version, driver:
		in.area = driver
	case firmware:
		in.area = firmware
	}
	if a, ok := c.special[e.Node]; ok {
		in.area = a
	}
	top := c.groups[p.rest.group].key
	switch {
	case p.depth == 0:
		in.rest = claim{group: c.group(byPlace, name)}
	case p.depth == 1 && slices.Contains(branching, top):
		in.rest = claim{group: c.group(byPlace, top+"/"+name)}
	}
	return in
}

func (c *claimer) claimEntry(p place, e tree.Entry, xattr claim) {
	if xattr != nobody {
		c.claimXattr(e.Node, xattr)
	}
	if r := c.rules.rule(p.globs, e.Name); r >= 0 {
		c.claim(e.Node, c.ruled[r])
		c.ruleUsed[r] = true
	}
	if r, key := c.byName(p, string(e.Name)); r < byPlace {
		c.claim(e.Node, claim{group: c.group(r, key)})
	}
	if c.best[e.Node] == nobody {
		c.noteBig(p, e)
	}
	c.claim(e.Node, p.rest)
}

// byName is what claims an entry for where it is and what it is called.
func (c *claimer) byName(p place, name string) (rank, string) {
	switch p.area {
	case version, boot:
		if strings.HasPrefix(name, "initramfs") || strings.HasPrefix(name, "initrd") {
			return byInitramfs, ""
		}
		if p.area == version {
			return byKernel, p.kernel
		}
		for _, prefix := range kernelFiles {
			v, ok := strings.CutPrefix(name, prefix)
			if v = strings.TrimSuffix(strings.TrimSuffix(v, ".gz"), ".xz"); ok && c.kernels[v] {
				return byKernel, v
			}
		}
	case driver:
		return byKernel, p.kernel
	case firmware:
		return byFirmware, ""
	}
	return byPlace, ""
}

const (
	componentXattr = "user.component"
	intervalXattr  = "user.update-interval"
)

// annotation is what extended attributes say.
type annotation struct {
	group    claim
	interval time.Duration
}

// annotated is the component that a node's extended attributes claim it for, else the inherited one. An interval that they
// have is the component's.
func (c *claimer) annotated(n tree.Node, inherited claim) (claim, error) {
	set := c.t.XattrSet(n)
	if set < 0 {
		return inherited, nil
	}
	a, ok := c.xattrs[set]
	if !ok {
		var err error
		if a, err = c.readAnnotation(n); err != nil {
			return nobody, err
		}
		c.xattrs[set] = a
	}
	if a.group != nobody {
		inherited = a.group
	}
	if inherited == nobody || a.interval == 0 {
		return inherited, nil
	}
	g := &c.groups[inherited.group]
	if g.interval != 0 && g.interval != a.interval {
		return nobody, fmt.Errorf("component %s has a %s of %d days here and of %d elsewhere",
			g.key, intervalXattr, a.interval/day, g.interval/day)
	}
	g.interval = a.interval
	return inherited, nil
}

func (c *claimer) readAnnotation(n tree.Node) (annotation, error) {
	a := annotation{group: nobody}
	for _, x := range c.t.Xattrs(n) {
		value := string(x.Value)
		var err error
		switch x.Name {
		case componentXattr:
			if err = checkComponentName(value); err == nil {
				a.group = claim{group: c.group(byXattr, escapeName(value))}
			}
		case intervalXattr:
			a.interval, err = ParseInterval(value)
		}
		if err != nil {
			return a, fmt.Errorf("%s: %w", x.Name, err)
		}
	}
	return a, nil
}

// conflict is a file that extended attributes claim for two components, under two of its names.
type conflict struct {
	node tree.Node
	a, b int32
}

func (c *claimer) claimXattr(n tree.Node, with claim) {
	if old := c.best[n]; old != nobody && old != with && c.groups[old.group].rank == byXattr {
		c.conflicts = append(c.conflicts, conflict{n, old.group, with.group})
	}
	c.claim(n, with)
}
