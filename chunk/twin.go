package chunk

import (
	"bytes"
	"slices"

	"github.com/flatroot/flatroot/tree"
)

// other is a tree that a tree is compared with path by path; of nil there is nothing at any path.
type other struct{ *tree.Tree }

// lookup finds a name in a directory; None: it is not there, or dir is no directory.
func (o other) lookup(dir tree.Node, name []byte) tree.Node {
	if o.Tree == nil || dir == tree.None || !o.IsDir(dir) {
		return tree.None
	}
	n, ok := o.Lookup(dir, name)
	if !ok {
		return tree.None
	}
	return n
}

func (o other) root() tree.Node {
	if o.Tree == nil {
		return tree.None
	}
	return tree.Root
}

// isDir is IsDir for a node that may be None.
func (o other) isDir(n tree.Node) bool { return n != tree.None && o.IsDir(n) }

// twins tells whether two nodes are the same but for their times and names.
func (o other) twins(m tree.Node, t *tree.Tree, n tree.Node) bool {
	if m == tree.None {
		return false
	}
	return timeless(o.Tree, m) == timeless(t, n) && slices.EqualFunc(o.Xattrs(m), t.Xattrs(n), equalXattr) &&
		bytes.Equal(o.Target(m), t.Target(n)) && sameContent(o.Tree, m, t, n)
}

// equal tells whether two nodes are the same but for their names.
func (o other) equal(m tree.Node, t *tree.Tree, n tree.Node) bool {
	return o.twins(m, t, n) && mtimeOf(o.Tree, m) == mtimeOf(t, n)
}

func equalXattr(a, b tree.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }

// timeless is a node's attributes without the time, and without what they only say in passing.
func timeless(t *tree.Tree, n tree.Node) tree.Attr {
	a := t.Attr(n)
	a.Nlink, a.MtimeSec, a.MtimeNsec = 0, 0, 0
	if a.Mode&tree.TypeMask != tree.Regular {
		a.Size = 0
	}
	return a
}

// sameContent compares what regular files of one size hold. Where a digest is missing nothing is known.
func sameContent(a *tree.Tree, n tree.Node, b *tree.Tree, m tree.Node) bool {
	attr := a.Attr(n)
	if attr.Mode&tree.TypeMask != tree.Regular || attr.Size == 0 {
		return true
	}
	if x, y := a.Content(n), b.Content(m); x != nil || y != nil {
		return bytes.Equal(x, y)
	}
	d := a.Digest(n)
	return !d.IsZero() && d == b.Digest(m)
}

// mtime is a time as trees have it.
type mtime struct {
	sec  int64
	nsec uint32
}

func mtimeOf(t *tree.Tree, n tree.Node) mtime {
	a := t.Attr(n)
	return mtime{a.MtimeSec, a.MtimeNsec}
}

func (m mtime) after(o mtime) bool { return m.sec > o.sec || m.sec == o.sec && m.nsec > o.nsec }

func setMtime(t *tree.Tree, n tree.Node, m mtime) error {
	a := t.Attr(n)
	a.MtimeSec, a.MtimeNsec = m.sec, m.nsec
	return t.SetAttr(n, a)
}
