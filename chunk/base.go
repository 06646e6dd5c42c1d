package chunk

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/flatroot/flatroot/tree"
)

// opaqueMarker hides all that layers below have in its directory (OCI image specification, layer.md, "Opaque Whiteout").
const opaqueMarker = ".wh..wh..opq"

// Above is what has to lie above a base image, whose layers stay as they are, for a tree to come out.
type Above struct {
	t       *tree.Tree
	base    other
	has     []bool // by node
	changed []bool // directories that the base has with other attributes, by node
	hidden  map[tree.Node][]string
	changes bool
	twin    []tree.Node             // of what is no directory: the base's node that it is so far; None: not looked at
	taken   map[tree.Node]tree.Node // by the base's node: whose twin it is
}

// AboveBase compares a tree with that of its base. Times count, so they have to be normalised before, with the base's tree
// among the options.
func AboveBase(base, t *tree.Tree) (*Above, error) {
	a := &Above{
		t: t, base: other{base}, has: make([]bool, t.Len()), changed: make([]bool, t.Len()), hidden: map[tree.Node][]string{},
		twin: make([]tree.Node, t.Len()), taken: map[tree.Node]tree.Node{},
	}
	for n := range a.twin {
		a.twin[n] = tree.None
	}
	if err := a.dir(tree.Root, tree.Root, ""); err != nil {
		return nil, err
	}
	a.twin, a.taken = nil, nil
	return a, nil
}

// Has tells whether a layer above the base must have a node. A directory of the base that has other attributes is not among
// them: it is in the layer that WriteChanges writes.
func (a *Above) Has(n tree.Node) bool { return a.has[n] }

// Changes tells whether there is anything for WriteChanges to write.
func (a *Above) Changes() bool { return a.changes }

// WriteChanges writes the layer that lies directly above the base: whiteouts of what the tree does not have, the only ones
// of the image, and directories that have other attributes. All layers above it may come in any order.
func (a *Above) WriteChanges(ctx context.Context, w io.Writer) error {
	l := newLayerWriter(ctx, w, a.t)
	l.hidden = a.hidden
	return l.write(func(n tree.Node) bool { return a.changed[n] || len(a.hidden[n]) > 0 })
}

// dir compares a directory with what the base has at its path.
func (a *Above) dir(dir, base tree.Node, path string) error {
	switch {
	case !a.base.isDir(base):
		a.has[dir], base = true, tree.None
	case !a.base.equal(base, a.t, dir):
		a.changed[dir], a.changes = true, true
	}
	for e := range a.t.Entries(dir) {
		b := a.base.lookup(base, e.Name)
		if !a.t.IsDir(e.Node) {
			a.file(e.Node, b)
			continue
		}
		if err := a.dir(e.Node, b, path+"/"+string(e.Name)); err != nil {
			return err
		}
	}
	if base == tree.None {
		return nil
	}
	return a.hide(dir, base, path)
}

// file looks at one of the names of what is no directory. It may stay in the base if that has the same at all of its names,
// and if these are those of one file there and nobody else's: a file whose names have parted, or met, has to be put above.
func (a *Above) file(n, b tree.Node) {
	switch {
	case a.has[n]:
		return
	case a.twin[n] == tree.None:
		_, taken := a.taken[b]
		if taken || !a.base.equal(b, a.t, n) {
			a.has[n] = true
			return
		}
		a.twin[n], a.taken[b] = b, n
	case a.twin[n] != b:
		a.has[n] = true
	}
}

// hide lists the whiteouts that a directory needs: one for each name that has gone, or, if all have, one for them all.
func (a *Above) hide(dir, base tree.Node, path string) error {
	var gone []string
	left := 0
	for e := range a.base.Entries(base) {
		if _, ok := a.t.Lookup(dir, e.Name); ok {
			left++
			continue
		}
		if bytes.HasPrefix(e.Name, []byte(whiteoutPrefix)) {
			return fmt.Errorf("base: %s/%s: %w", path, e.Name, errWhiteoutName)
		}
		gone = append(gone, whiteoutPrefix+string(e.Name))
	}
	if left == 0 && len(gone) > 1 {
		gone = []string{opaqueMarker}
	}
	for _, name := range gone {
		if len(name) > tree.NameMax {
			return fmt.Errorf("base: %s/%s has gone, but its name is too long for a whiteout: don't keep the base's layers",
				path, name[len(whiteoutPrefix):])
		}
	}
	if len(gone) > 0 {
		a.hidden[dir], a.changes = gone, true
	}
	return nil
}
