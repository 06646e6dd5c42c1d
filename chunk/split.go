package chunk

import (
	"fmt"
	"io"
	"strings"

	"github.com/flatroot/flatroot/tree"
)

const (
	// minSplit is from what size on, in bytes, a component is worth two: below it all the rest that a client would not have
	// to fetch is hardly more than what a layer costs.
	minSplit = 8 << 20
	// minPart is what each part has at least, in bytes.
	minPart = 1 << 20
	// minELF is the size of the smallest ELF file, whose header has 52 or 64 bytes. Smaller files are inline in most trees.
	minELF = 64
)

// split divides large components in what is compiled and what is not. A component of somebody who wants it alone in a
// layer stays as it is, since it would need two.
func (c *claimer) split() error {
	if !c.o.Split || c.o.Content == nil {
		return nil
	}
	total := make([]uint64, len(c.groups))
	c.eachFile(func(n tree.Node, g int32) { total[g] += c.t.Attr(n).Size })
	code, err := c.code(total)
	if err != nil {
		return err
	}
	compiled := make([]uint64, len(c.groups))
	c.eachFile(func(n tree.Node, g int32) {
		if code[n] {
			compiled[g] += c.t.Attr(n).Size
		}
	})
	c.divide(total, compiled, code)
	return nil
}

// eachFile visits all regular files.
func (c *claimer) eachFile(visit func(n tree.Node, g int32)) {
	for i, best := range c.best {
		if n := tree.Node(i); best != nobody && c.t.Mode(n)&tree.TypeMask == tree.Regular {
			visit(n, best.group)
		}
	}
}

// code finds what is compiled in components that are large enough, and what else is new in each build of a package. Symlinks
// to libraries are told by their names, and go with what they lead to.
func (c *claimer) code(total []uint64) (map[tree.Node]bool, error) {
	code := map[tree.Node]bool{}
	err := c.eachName(tree.Root, func(n tree.Node, name string) error {
		g := c.best[n].group
		if g < 0 || code[n] || total[g] <= minSplit || c.groups[g].exclusive {
			return nil
		}
		var err error
		library := strings.Contains(name, ".so")
		switch a := c.t.Attr(n); {
		case isOfBuild(name):
			code[n] = true
		case a.Mode&tree.TypeMask == tree.Symlink:
			code[n] = library
		case a.Mode&tree.TypeMask == tree.Regular && a.Size >= minELF && (library || a.Mode&0o111 != 0):
			code[n], err = c.isELF(n)
		}
		return err
	})
	return code, err
}

// isOfBuild tells of names that stand for something new in each version of a package: the changelog, dpkg's checksums of all
// of its files (info/*.md5sums), and links by the build IDs of programs (/usr/lib/.build-id/XX/YYYY… of rpm, a SHA-1 without
// its first byte).
func isOfBuild(name string) bool {
	return strings.HasPrefix(name, "changelog") || strings.HasSuffix(name, ".md5sums") || len(name) == 38 && strings.Trim(name, "0123456789abcdef") == ""
}

// eachName visits all that is no directory, under each of its names.
func (c *claimer) eachName(dir tree.Node, visit func(n tree.Node, name string) error) error {
	for name, n := range c.t.Children(dir) {
		var err error
		if c.t.IsDir(n) {
			err = c.eachName(n, visit)
		} else {
			err = visit(n, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isELF looks at the first bytes of a file.
func (c *claimer) isELF(n tree.Node) (bool, error) {
	const magic = "\x7fELF"
	if b := c.t.Content(n); b != nil {
		return strings.HasPrefix(string(b), magic), nil
	}
	r, err := c.o.Content(n)
	if err != nil {
		return false, fmt.Errorf("open %s to see whether it is a program: %w", c.t.Path(n), err)
	}
	var b [len(magic)]byte
	_, err = io.ReadFull(r, b[:])
	r.Close() // of a file that was not read to its end; what it says of the rest is of no interest
	if err != nil {
		return false, fmt.Errorf("read %s to see whether it is a program: %w", c.t.Path(n), err)
	}
	return string(b[:]) == magic, nil
}

// divide makes another component of what is not compiled, where both have enough.
func (c *claimer) divide(total, compiled []uint64, code map[tree.Node]bool) {
	data := make([]int32, len(total))
	for i := range data {
		if compiled[i] < minPart || total[i]-compiled[i] < minPart {
			continue
		}
		g := c.groups[i]
		g.name += dataSuffix
		g.key += dataSuffix
		data[i] = int32(len(c.groups))
		c.groups = append(c.groups, g)
	}
	for i, best := range c.best {
		if best != nobody && data[best.group] != 0 && !code[tree.Node(i)] {
			c.best[i].group = data[best.group]
		}
	}
}
