package erofs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tree"
)

// linked is an inode of several names.
type linked struct {
	inode *Inode
	names []linkName
}

type linkName struct {
	dir  tree.Node
	name string
	fits bool // the inode's number in a composefs image is the one that it has if this is its home
}

// keep notes a name of an inode that has several.
func (r *treeReader) keep(l *linked, dir tree.Node, name string) {
	if l.names == nil {
		r.order = append(r.order, l)
	}
	fits := l.inode.ino == r.next
	if fits {
		r.count(l.inode)
	} else {
		fits = r.last == l.inode.nid // no other inode came since: this name could as well have been the home
	}
	l.names = append(l.names, linkName{dir, name, fits && r.escapes()})
}

// addLinked adds the inodes of several names: under the home first, then the others.
func (r *treeReader) addLinked() error {
	for _, l := range r.order {
		home, err := r.home(l)
		if err != nil {
			return err
		}
		n, err := r.add(home.dir, home.name, l.inode)
		if err != nil {
			return err
		}
		for _, name := range l.names {
			if name == home {
				continue
			}
			if err := r.t.Link(name.dir, []byte(name.name), n); err != nil {
				return fmt.Errorf("%s: %w", joinPath(r.t.Path(name.dir), name.name), err)
			}
		}
	}
	return nil
}

// home is the name that is first, depth first with siblings in byte order. An image of version 0 or 1 says by its order
// which name it was: of those that fit, and for an escaped whiteout of those whose directory is marked, the first.
func (r *treeReader) home(l *linked) (linkName, error) {
	names := slices.Clone(l.names)
	if fit := slices.DeleteFunc(slices.Clone(names), func(n linkName) bool { return !n.fits }); len(fit) > 0 {
		names = fit
	}
	slices.SortFunc(names, func(a, b linkName) int { return strings.Compare(r.sortKey(a), r.sortKey(b)) })
	for _, n := range names {
		if escaped, err := r.isEscaped(n.dir, l.inode); escaped || err != nil {
			return n, err
		}
	}
	return names[0], nil
}

// sortKey compares as the names do, component by component: NUL is in no name and before every byte of one.
func (r *treeReader) sortKey(n linkName) string {
	return strings.ReplaceAll(joinPath(r.t.Path(n.dir), n.name), "/", "\x00")
}
