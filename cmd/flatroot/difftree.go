package main

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatroot/flatroot/tree"
)

// change is one name that two trees do not have alike.
type change struct {
	Path       string      `json:"path"`
	Change     string      `json:"change"` // added, removed or changed
	Attributes []attribute `json:"attributes,omitempty"`
}

// attribute is one that differs, in both trees.
type attribute struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

const (
	added   = "added"
	removed = "removed"
	changed = "changed"
)

// differ compares two trees.
type differ struct {
	a, b  *tree.Tree
	yield func(change) bool
}

// diffTrees yields what b has otherwise than a: depth first, siblings in byte order.
func diffTrees(a, b *tree.Tree) iter.Seq[change] {
	return func(yield func(change) bool) {
		d := &differ{a, b, yield}
		_ = d.node("/", tree.Entry{Node: tree.Root}, tree.Entry{Node: tree.Root})
	}
}

// node compares a name that both have, and what is below.
func (d *differ) node(path string, a, b tree.Entry) bool {
	attrs := d.compare(a, b)
	if len(attrs) > 0 && !d.yield(change{path, changed, attrs}) {
		return false
	}
	aDir, bDir := d.a.IsDir(a.Node), d.b.IsDir(b.Node)
	switch {
	case aDir && bDir:
		return d.children(path, a.Node, b.Node)
	case aDir:
		return d.below(d.a, path, a.Node, removed)
	case bDir:
		return d.below(d.b, path, b.Node, added)
	}
	return true
}

// children compares two directories name by name.
func (d *differ) children(path string, a, b tree.Node) bool {
	nextA, stopA := iter.Pull(d.a.Entries(a))
	defer stopA()
	nextB, stopB := iter.Pull(d.b.Entries(b))
	defer stopB()
	ea, okA := nextA()
	eb, okB := nextB()
	for okA || okB {
		order := bytes.Compare(ea.Name, eb.Name)
		switch {
		case okA && (!okB || order < 0):
			if !d.all(d.a, path, ea, removed) {
				return false
			}
			ea, okA = nextA()
		case okB && (!okA || order > 0):
			if !d.all(d.b, path, eb, added) {
				return false
			}
			eb, okB = nextB()
		default:
			if !d.node(join(path, ea.Name), ea, eb) {
				return false
			}
			ea, okA = nextA()
			eb, okB = nextB()
		}
	}
	return true
}

func join(dir string, name []byte) string { return strings.TrimSuffix(dir, "/") + "/" + string(name) }

// all yields a name that one tree has, and all below it.
func (d *differ) all(t *tree.Tree, dir string, e tree.Entry, what string) bool {
	path := join(dir, e.Name)
	if !d.yield(change{Path: path, Change: what}) {
		return false
	}
	return !t.IsDir(e.Node) || d.below(t, path, e.Node, what)
}

func (d *differ) below(t *tree.Tree, path string, dir tree.Node, what string) bool {
	for e := range t.Entries(dir) {
		if !d.all(t, path, e, what) {
			return false
		}
	}
	return true
}

// compare lists the attributes that differ.
func (d *differ) compare(a, b tree.Entry) []attribute {
	var list []attribute
	add := func(name, from, to string) {
		if from != to {
			list = append(list, attribute{name, from, to})
		}
	}
	x, y := d.a.Attr(a.Node), d.b.Attr(b.Node)
	add("type", typeName(x.Mode), typeName(y.Mode))
	add("link", linkText(d.a, a), linkText(d.b, b))
	add("mode", octal(x.Mode), octal(y.Mode))
	add("uid", number(x.UID), number(y.UID))
	add("gid", number(x.GID), number(y.GID))
	add("rdev", number(x.Rdev), number(y.Rdev))
	add("size", fileSize(x), fileSize(y))
	add("mtime", timeText(x), timeText(y))
	add("target", string(d.a.Target(a.Node)), string(d.b.Target(b.Node)))
	add("content", contentText(d.a, a.Node), contentText(d.b, b.Node))
	return append(list, d.compareXattrs(a.Node, b.Node)...)
}

func (d *differ) compareXattrs(a, b tree.Node) []attribute {
	from, to := xattrMap(d.a, a), xattrMap(d.b, b)
	var names []string
	for n := range from {
		names = append(names, n)
	}
	for n := range to {
		names = append(names, n)
	}
	slices.Sort(names)
	var list []attribute
	for _, n := range slices.Compact(names) {
		if from[n] != to[n] {
			list = append(list, attribute{"xattr " + n, from[n], to[n]})
		}
	}
	return list
}

// xattrMap has extended attributes' values quoted, so that an empty one is not like none.
func xattrMap(t *tree.Tree, n tree.Node) map[string]string {
	if t.XattrSet(n) < 0 {
		return nil
	}
	m := map[string]string{}
	for _, x := range t.Xattrs(n) {
		m[x.Name] = strconv.QuoteToASCII(string(x.Value))
	}
	return m
}

// contentText is the digest of a file that is an object, or the inline content, quoted.
func contentText(t *tree.Tree, n tree.Node) string {
	if c := t.Content(n); len(c) > 0 {
		return strconv.QuoteToASCII(string(c))
	}
	if d := t.Digest(n); !d.IsZero() {
		return d.String()
	}
	return string(t.Payload(n))
}

// linkText is the inode's home for names that are hard links.
func linkText(t *tree.Tree, e tree.Entry) string {
	if !e.Link {
		return ""
	}
	return t.Path(e.Node)
}

// fileSize is empty for what is no regular file: only some sources of trees say anything there.
func fileSize(a tree.Attr) string {
	if a.Mode&tree.TypeMask != tree.Regular {
		return ""
	}
	return strconv.FormatUint(a.Size, 10)
}

func octal(mode uint32) string { return fmt.Sprintf("%04o", mode&0o7777) }

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func timeText(a tree.Attr) string {
	t := time.Unix(a.MtimeSec, int64(a.MtimeNsec)).UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return fmt.Sprintf("%d.%09d", a.MtimeSec, a.MtimeNsec)
	}
	return t.Format("2006-01-02T15:04:05.999999999Z")
}

func typeName(mode uint32) string {
	switch mode & tree.TypeMask {
	case tree.Regular:
		return "file"
	case tree.Directory:
		return "directory"
	case tree.Symlink:
		return "symlink"
	case tree.CharDevice:
		return "character device"
	case tree.BlockDevice:
		return "block device"
	}
	return "fifo"
}
