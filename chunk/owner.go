package chunk

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flatroot/flatroot/chunk/pkgdb"
	"github.com/flatroot/flatroot/tree"
)

// ownership is a package's of a file.
type ownership struct {
	node tree.Node
	of   *pkgdb.Package
}

// packages has databases claim what is theirs and their packages'. What goes wrong is a pkgdb.Error.
func (c *claimer) packages() error {
	for i := range c.o.Databases {
		d := &c.o.Databases[i]
		if err := c.claimDatabase(d); err != nil {
			return &pkgdb.Error{Kind: d.Kind, Err: err}
		}
	}
	c.bytecode(tree.Root)
	return nil
}

func (c *claimer) claimDatabase(d *pkgdb.Database) error {
	for _, p := range d.Files {
		if err := c.claimPath(p, byDatabase, ""); err != nil {
			return err
		}
	}
	for k := range d.Packages {
		if err := c.claimPackage(d.Kind, &d.Packages[k]); err != nil {
			return err
		}
	}
	return nil
}

func (c *claimer) claimPath(p string, r rank, key string) error {
	n, err := c.paths.node(p)
	if err == nil && n != tree.None && c.leaf(n) {
		c.claim(n, claim{group: c.group(r, key)})
	}
	return err
}

func (c *claimer) claimPackage(kind string, p *pkgdb.Package) error {
	source := cmp.Or(p.Source, p.Name)
	if err := checkComponentName(source); err != nil {
		return fmt.Errorf("package %.80q: its source: %w", p.Name, err)
	}
	g := c.group(byPackage, kind+"/"+escapeName(source))
	c.groups[g].changes.add(p)
	for _, name := range p.Paths {
		n, err := c.paths.node(name)
		if err != nil {
			return err
		}
		if n == tree.None || !c.leaf(n) || c.isSymlink(n) && hasBelow(p.Paths, name) {
			continue
		}
		if dated(kind, name) {
			c.claim(n, claim{group: c.group(byDatabase, "")})
			continue
		}
		c.claim(n, claim{group: g})
		c.owned = append(c.owned, ownership{n, p})
	}
	return nil
}

// dated tells files of a database that are about one package, but are written when it is installed, so that their times,
// and what pacman has in them, are others in each build. With their package they would have it fetched each time.
func dated(kind, name string) bool {
	switch kind {
	case "dpkg":
		return strings.HasPrefix(name, "/var/lib/dpkg/info/") && strings.HasSuffix(name, ".list")
	case "pacman":
		base := path.Base(name)
		return strings.HasPrefix(name, "/var/lib/pacman/local/") && (base == "desc" || base == "files")
	}
	return false
}

func (c *claimer) isSymlink(n tree.Node) bool { return c.t.Mode(n)&tree.TypeMask == tree.Symlink }

// hasBelow tells whether some of a package's paths, which are sorted, are below another. Then that is a directory to the
// package. If it is a symlink in the tree, as /bin is today, somebody else put it there.
func hasBelow(paths []string, dir string) bool {
	i, _ := slices.BinarySearch(paths, dir+"/")
	return i < len(paths) && strings.HasPrefix(paths[i], dir+"/")
}

// bytecode finds what Python has compiled below a directory.
func (c *claimer) bytecode(dir tree.Node) {
	for e := range c.t.Entries(dir) {
		if string(e.Name) == "__pycache__" {
			for compiled := range c.t.Entries(e.Node) {
				c.claimBytecode(dir, compiled)
			}
		}
		c.bytecode(e.Node)
	}
}

// claimBytecode knows a file __pycache__/NAME.cpython-313.pyc by the package that has NAME.py. dpkg's packages don't have it
// themselves: it is made when they are installed, and so has another time in each build, which is why it is a component
// beside the package's.
func (c *claimer) claimBytecode(dir tree.Node, e tree.Entry) {
	module, version, _ := strings.Cut(string(e.Name), ".")
	source, ok := c.t.Lookup(dir, []byte(module+".py"))
	if !ok || !strings.HasSuffix(version, ".pyc") || !c.leaf(e.Node) || c.best[e.Node] != nobody || c.best[source] == nobody {
		return
	}
	of := c.groups[c.best[source].group]
	if of.rank != byPackage {
		return
	}
	g := c.group(byPackage, of.key+bytecodeSuffix)
	c.groups[g].changes = of.changes
	c.claim(e.Node, claim{group: g})
}

// date gives kernels, and what was put together by hand, the dates of all packages that have a file in them. A file that
// layers are not to have is in none of them.
func (c *claimer) date() {
	last := make([]*pkgdb.Package, len(c.groups))
	for _, o := range c.owned {
		g := c.best[o.node].group
		if g < 0 || last[g] == o.of || c.t.IsDir(o.node) || c.groups[g].rank > byKernel {
			continue
		}
		last[g] = o.of
		c.groups[g].changes.add(o.of)
	}
}

// maxChanges bounds the times of a component. There is no use for more than the newest: a history has fewer steps.
const maxChanges = 1000

// changes collects times.
type changes struct{ times []time.Time }

func (c *changes) add(p *pkgdb.Package) {
	for _, t := range p.Changes {
		c.times = append(c.times, t.UTC())
	}
	if !p.Built.IsZero() {
		c.times = append(c.times, p.Built.UTC())
	}
	if len(c.times) > 4*maxChanges {
		c.times = c.list()
	}
}

// list is the newest times, newest first, each once.
func (c *changes) list() []time.Time {
	times := slices.Clone(c.times) // the parts of a component have the same
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	times = slices.CompactFunc(times, time.Time.Equal)
	return times[:min(len(times), maxChanges)]
}
