package erofs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tree"
)

// setXattrs gives node n the xattrs of inode i. Of a backed file it returns where the data is.
func (r *treeReader) setXattrs(n tree.Node, i *Inode) (*Backing, error) {
	xs, err := i.Xattrs()
	if err != nil {
		return nil, err
	}
	if !r.img.composefs() {
		return nil, r.t.SetXattrs(n, xs)
	}
	var o overlay
	own := xs[:0]
	for _, x := range xs {
		switch {
		case n == tree.Root && r.escapes() && x.Name == xattrOpaque:
			continue // every root has it
		case strings.HasPrefix(x.Name, escapePrefix):
			x.Name = overlayPrefix + x.Name[len(escapePrefix):]
		case strings.HasPrefix(x.Name, overlayPrefix):
			taken, err := o.take([]byte(x.Name[len(trustedPrefix):]), x.Value)
			if err == nil && (!taken || !i.isRegular()) {
				err = corrupt("xattr %q, which composefs escapes", x.Name)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		own = append(own, x)
	}
	return r.finishXattrs(n, i, own, &o)
}

func (r *treeReader) finishXattrs(n tree.Node, i *Inode, own []tree.Xattr, o *overlay) (*Backing, error) {
	switch {
	case i.IsDir() && r.hasMark(own):
		r.marked[n] = &markedDir{xattrs: slices.Clone(own)}
		own = r.withoutMark(own)
	case r.t.Mode(n)&tree.TypeMask == tree.CharDevice && i.isRegular():
		own = without(own, whiteoutNames)
	}
	if err := r.t.SetXattrs(n, own); err != nil {
		return nil, err
	}
	if !i.isRegular() {
		return nil, nil
	}
	if err := o.check(i); err != nil || !o.metacopy {
		return nil, err
	}
	return &o.backing, nil
}

// What marks an escaped whiteout and the directory that holds one, as names of the tree: unescaped.
var (
	whiteoutNames = []string{unescaped(escapedWhiteout), userWhiteout}
	markNames     = []string{unescaped(escapedWhiteouts), userWhiteouts}
	opaqueNames   = []string{unescaped(escapedOpaque), userOpaque} // version 1 only
)

// The value of opaqueNames: a directory that is not opaque but may have xattr whiteouts in it.
const opaqueValue = "x"

func unescaped(name string) string { return overlayPrefix + strings.TrimPrefix(name, escapePrefix) }

// hasMark tells whether a directory's xattrs have the mark that an escaped whiteout in it leaves.
func (r *treeReader) hasMark(xs []tree.Xattr) bool {
	return r.escapes() && haveAll(xs, markNames, "") && (r.img.version == 0 || haveAll(xs, opaqueNames, opaqueValue))
}

func haveAll(xs []tree.Xattr, names []string, value string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(xs, func(x tree.Xattr) bool { return x.Name == name && string(x.Value) == value }) {
			return false
		}
	}
	return true
}

func without(xs []tree.Xattr, names []string) []tree.Xattr {
	return slices.DeleteFunc(xs, func(x tree.Xattr) bool { return slices.Contains(names, x.Name) })
}

// isEscaped tells whether a file in dir is a whiteout of the input: an empty file with both its marks, in a directory with
// the mark for holding one. Were it all the input's own doing, the image would be the same.
func (r *treeReader) isEscaped(dir tree.Node, i *Inode) (bool, error) {
	if _, marked := r.marked[dir]; !marked || !i.isRegular() || i.attr.Size != 0 {
		return false, nil
	}
	for _, name := range []string{escapedWhiteout, userWhiteout} {
		value, ok, err := i.Xattr(name)
		if err != nil || !ok || len(value) > 0 {
			return false, err
		}
	}
	return true, nil
}

// markedDir is a directory with the mark that whiteouts leave. While the tree is read it is without: the mark may be more
// than a tree's node can have.
type markedDir struct {
	xattrs []tree.Xattr // with the mark
	holds  bool         // a whiteout, so the mark is not the input's
}

func (r *treeReader) withoutMark(xs []tree.Xattr) []tree.Xattr {
	xs = without(xs, markNames)
	if r.img.version == 1 {
		xs = without(xs, opaqueNames)
	}
	return xs
}

// remark gives the mark back to directories in which no whiteout was found.
func (r *treeReader) remark() error {
	for dir, d := range r.marked {
		if d.holds {
			continue
		}
		if err := r.t.SetXattrs(dir, d.xattrs); err != nil {
			return fmt.Errorf("%s: %w", r.t.Path(dir), err)
		}
	}
	return nil
}
