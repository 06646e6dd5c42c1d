package index

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// Rules names the rule by which layers become a tree. The rules' page is doc/formats/oci-1.md.
type Rules string

const (
	// OCI1 is the rule whose images other composefs tools look for.
	OCI1 Rules = "oci-1"
	// Faithful1 leaves the root, /run and all extended attributes as the layers have them.
	Faithful1 Rules = "faithful-1"
)

// ParseRules checks a rule's name; the empty one is OCI1.
func ParseRules(s string) (Rules, error) {
	switch r := Rules(s); r {
	case "":
		return OCI1, nil
	case OCI1, Faithful1:
		return r, nil
	}
	return "", fmt.Errorf("unknown rules %q: use %s or %s", s, OCI1, Faithful1)
}

// FlattenOptions are Flatten's.
type FlattenOptions struct {
	Rules     Rules // empty: OCI1
	Algorithm fsverity.Algorithm
	// MaxEntries bounds the entries of all layers together; 0: 4 Mi.
	MaxEntries int64
}

const (
	whiteoutPrefix = ".wh."         // OCI image specification, layer.md, "Whiteouts"
	opaqueMarker   = ".wh..wh..opq" // the same, "Opaque Whiteout"
	aufsPrefix     = ".wh..wh."     // names that AUFS keeps for itself

	defaultImageEntries = 4 << 20
)

// defaultDir is what a missing parent, and a root that no layer has, look like.
var defaultDir = tree.Attr{Mode: tree.Directory | 0o755, Nlink: 2}

// Flatten merges layers, lowest first, into one tree. An error names the layer, counted from 1, and its entry.
func Flatten(ctx context.Context, layers []*Layer, o FlattenOptions) (*tree.Tree, error) {
	f := newFlattening(o)
	for _, l := range layers {
		if err := f.add(ctx, l); err != nil {
			return nil, err
		}
	}
	return f.finish()
}

// flattening is a tree that layers are added to, lowest first.
type flattening struct {
	m      *merger
	layers int
}

func newFlattening(o FlattenOptions) *flattening {
	return &flattening{m: &merger{
		t: tree.New(o.Algorithm, defaultDir), rules: o.Rules, limit: cmp.Or(o.MaxEntries, defaultImageEntries),
	}}
}

// add merges one more layer. It needs nothing of it afterwards.
func (f *flattening) add(ctx context.Context, l *Layer) error {
	f.layers++
	err := f.m.count(int64(l.Len()))
	if err == nil {
		err = f.m.merge(ctx, l)
	}
	f.m.layer = nil
	if err != nil {
		return fmt.Errorf("layer %d (%s): %w", f.layers, l.DiffID, err)
	}
	return nil
}

func (f *flattening) finish() (*tree.Tree, error) {
	if f.m.rules != Faithful1 {
		if err := f.m.normalize(); err != nil {
			return nil, err
		}
	}
	f.m.t.Canonicalize()
	return f.m.t, nil
}

// merger puts entries into a tree.
type merger struct {
	t       *tree.Tree
	rules   Rules
	layer   *Layer
	kept    []tree.Xattr // for reuse
	entries int64        // so far, and directories made for them
	limit   int64

	// The directory of the entry before: entries of one directory mostly follow each other.
	dirPath []byte
	dir     tree.Node
}

// count adds to the entries. Directories that are made count too: a path may need two thousand of them.
func (m *merger) count(n int64) error {
	m.entries += n
	return checkLimit("entries of the image, missing directories included", m.entries, m.limit, "--max-image-entries")
}

func (m *merger) merge(ctx context.Context, l *Layer) error {
	m.layer = l
	if err := each(ctx, l, m.hide); err != nil {
		return err
	}
	m.forget()
	return each(ctx, l, m.add)
}

// each calls f for every entry of a layer.
func each(ctx context.Context, l *Layer, f func(*Entry) error) error {
	n := 0
	for e := range l.Entries() {
		n++
		err := f(e)
		if err == nil && n%1024 == 0 {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("entry %d, %s: %w", n, quotePath(string(e.Name)), err)
		}
	}
	return nil
}

// forget drops the remembered directory, which may have gone.
func (m *merger) forget() { m.dirPath = nil }

func split(path []byte) (dir, base []byte) {
	i := bytes.LastIndexByte(path, '/')
	if i < 0 {
		return nil, path
	}
	return path[:i], path[i+1:]
}

// hide lets a whiteout do its work on what the layers below have.
func (m *merger) hide(e *Entry) error {
	dir, base := split(e.Name)
	hidden, ok := bytes.CutPrefix(base, []byte(whiteoutPrefix))
	if !ok {
		return nil
	}
	if len(hidden) == 0 || string(hidden) == "." || string(hidden) == ".." {
		return errMarker
	}
	parent, ok := m.find(dir)
	switch {
	case !ok: // nothing there to hide
	case string(base) == opaqueMarker:
		m.t.RemoveChildren(parent)
	case bytes.HasPrefix(base, []byte(aufsPrefix)):
	default:
		m.t.Remove(parent, hidden)
	}
	return nil
}

// find walks a path. Symlinks are not followed.
func (m *merger) find(path []byte) (tree.Node, bool) {
	n := tree.Root
	for len(path) > 0 {
		name, rest, _ := bytes.Cut(path, []byte{'/'})
		next, ok := m.t.Lookup(n, name)
		if !ok {
			return tree.None, false
		}
		n, path = next, rest
	}
	return n, true
}

var (
	errMarker  = errors.New("a whiteout of no name, or of the directory itself or its parent")
	errParent  = errors.New("its parent is no directory (symlinks are not followed)")
	errBelow   = errors.New("it is below a whiteout, which is no directory")
	errRootDir = errors.New("the root must be a directory")
)

// parent finds an entry's directory, and makes what is missing of it.
func (m *merger) parent(path []byte) (tree.Node, error) {
	if m.dirPath != nil && bytes.Equal(path, m.dirPath) {
		return m.dir, nil
	}
	n := tree.Root
	for rest := path; len(rest) > 0; {
		var name []byte
		name, rest, _ = bytes.Cut(rest, []byte{'/'})
		next, ok := m.t.Lookup(n, name)
		if !ok {
			var err error
			if next, err = m.make(n, name); err != nil {
				return tree.None, err
			}
		}
		if !m.t.IsDir(next) {
			return tree.None, errParent
		}
		n = next
	}
	m.dirPath, m.dir = append(m.dirPath[:0], path...), n
	return n, nil
}

// make adds a missing directory. No name of a whiteout gets into the tree: it could not be put into a layer again.
func (m *merger) make(dir tree.Node, name []byte) (tree.Node, error) {
	switch {
	case bytes.HasPrefix(name, []byte(aufsPrefix)):
		return tree.None, errSkip
	case bytes.HasPrefix(name, []byte(whiteoutPrefix)):
		return tree.None, errBelow
	}
	if err := m.count(1); err != nil {
		return tree.None, err
	}
	return m.t.Add(dir, name, defaultDir)
}

// errSkip says that an entry belongs to AUFS's own.
var errSkip = errors.New("skip")

// add puts an entry into the tree. Whiteouts have had their turn.
func (m *merger) add(e *Entry) error {
	dirPath, name := split(e.Name)
	if bytes.HasPrefix(name, []byte(whiteoutPrefix)) {
		return nil
	}
	if len(e.Name) == 0 {
		if e.Hardlink || e.Mode&tree.TypeMask != tree.Directory {
			return errRootDir
		}
		return m.setDir(tree.Root, e)
	}
	dir, err := m.parent(dirPath)
	if err == errSkip {
		return nil
	}
	if err != nil {
		return err
	}
	old, exists := m.t.Lookup(dir, name)
	if e.Hardlink {
		return m.link(e, dir, name, exists)
	}
	if exists {
		if m.t.IsDir(old) && e.Mode&tree.TypeMask == tree.Directory {
			return m.setDir(old, e)
		}
		m.remove(dir, name, old)
	}
	n, err := m.t.Add(dir, name, m.attr(e))
	if err != nil {
		return err
	}
	return m.fill(n, e)
}

func (m *merger) remove(dir tree.Node, name []byte, old tree.Node) {
	if m.t.IsDir(old) {
		m.forget()
	}
	m.t.Remove(dir, name)
}

func (m *merger) setDir(n tree.Node, e *Entry) error {
	if err := m.t.SetAttr(n, m.attr(e)); err != nil {
		return err
	}
	return m.t.SetXattrs(n, m.xattrs(e))
}

// keptXattr is the only extended attribute that says the same on every machine.
const keptXattr = "security.capability"

// xattrs are those of an entry that stay. Dropping the others at once leaves the same as doing so at the end, and they need
// not fit an image.
func (m *merger) xattrs(e *Entry) []tree.Xattr {
	if m.rules == Faithful1 {
		return e.Xattrs
	}
	m.kept = m.kept[:0]
	for _, x := range e.Xattrs {
		if x.Name == keptXattr {
			m.kept = append(m.kept, x)
		}
	}
	return m.kept
}

func (m *merger) attr(e *Entry) tree.Attr {
	return tree.Attr{
		Mode: e.Mode, Nlink: 1, UID: e.UID, GID: e.GID, Rdev: e.Rdev,
		Size: uint64(e.Size), MtimeSec: e.MtimeSec, MtimeNsec: e.MtimeNsec,
	}
}

// fill gives a new node what its type has besides attributes.
func (m *merger) fill(n tree.Node, e *Entry) error {
	if err := m.t.SetXattrs(n, m.xattrs(e)); err != nil {
		return err
	}
	switch e.Mode & tree.TypeMask {
	case tree.Symlink:
		return m.t.SetTarget(n, e.Link)
	case tree.Regular:
		if e.Object < 0 {
			return m.t.SetContent(n, e.Content)
		}
		d, err := m.layer.Digest(e.Object)
		if err != nil {
			return err
		}
		return m.t.SetObject(n, d)
	}
	return nil
}

// link binds a name to the inode that its target has now. What the name was before goes; the inode stays.
func (m *merger) link(e *Entry, dir tree.Node, name []byte, exists bool) error {
	target, ok := m.find(e.Link)
	switch {
	case bytes.Equal(e.Link, e.Name):
		return errors.New("hard link to itself")
	case !ok:
		return fmt.Errorf("hard link to %s, which does not exist", quotePath(string(e.Link)))
	case m.t.IsDir(target):
		return fmt.Errorf("hard link to the directory %s", quotePath(string(e.Link)))
	}
	if exists {
		old, _ := m.t.Lookup(dir, name)
		m.remove(dir, name, old)
	}
	return m.t.Link(dir, name, target)
}

// normalize makes of the merged tree the one that is booted: what depends on where and how an image was built goes. Extended
// attributes have gone already.
func (m *merger) normalize() error {
	t := m.t
	if usr, ok := t.Lookup(tree.Root, []byte("usr")); ok && t.IsDir(usr) {
		a := t.Attr(usr)
		if err := t.SetAttr(tree.Root, a); err != nil {
			return err
		}
		t.CopyXattrs(tree.Root, usr)
	}
	if run, ok := t.Lookup(tree.Root, []byte("run")); ok && t.IsDir(run) {
		t.RemoveChildren(run)
		a, root := t.Attr(run), t.Attr(tree.Root)
		a.MtimeSec, a.MtimeNsec = root.MtimeSec, root.MtimeNsec
		if err := t.SetAttr(run, a); err != nil {
			return err
		}
	}
	return nil
}
