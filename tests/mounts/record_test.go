package mounts

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// record is a name of a tree with all that can be seen of its inode.
type record struct {
	path      string
	attr      tree.Attr // Size of directories and devices: 0, the file system's own affair
	inode     uint64    // equal for the names of one inode, of one tree
	link      string    // the first of several names of the inode
	again     bool      // a name that the image's maker met after others of the inode
	target    string    // of a symlink
	data      string    // of a regular file: its digest, or an error
	xattrs    map[string]string
	unchecked bool     // the image has a path of the content and no digest
	text      string   // that String gives, of a record that was read
	odd       []string // what contradicts itself, such as the type in the directory
}

// failed is how a record tells of an error instead of a value: "!" and the errno's name.
func failed(err error) string {
	var errno unix.Errno
	if asError(err, &errno) {
		return "!" + unix.ErrnoName(errno)
	}
	return "!" + err.Error()
}

// digestOf is how a record tells of content.
func digestOf(content []byte) string { return fsverity.Sum(fsverity.SHA256, content).String() }

// String is the record as a line of a dump, but for the content.
func (r *record) String() string {
	if r.text != "" {
		return r.text
	}
	b := dump.AppendEscaped(nil, []byte(r.path))
	b = fmt.Appendf(b, " %d %o %d %d %d %d %d.%d ", r.attr.Size, r.attr.Mode, r.attr.Nlink, r.attr.UID, r.attr.GID,
		r.attr.Rdev, r.attr.MtimeSec, r.attr.MtimeNsec)
	if r.link != "" && r.link != r.path {
		b = append(dump.AppendEscaped(append(b, '@'), []byte(r.link)), ' ')
	}
	b = append(dump.AppendEscaped(b, []byte(r.target)), ' ')
	b = append(b, r.data...)
	for _, name := range slices.Sorted(maps.Keys(r.xattrs)) {
		b = append(dump.AppendEscaped(append(b, ' '), []byte(name)), '=')
		b = dump.AppendEscaped(b, []byte(r.xattrs[name]))
	}
	for _, o := range r.odd {
		b = append(append(b, " ODD:"...), o...)
	}
	return string(b)
}

// parseRecord reads what String gives, for comparing alone.
func parseRecord(line string) *record {
	path, _, _ := strings.Cut(line, " ")
	return &record{path: path, text: line}
}

func (r *record) escapedPath() string {
	if r.text != "" {
		return r.path
	}
	return string(dump.AppendEscaped(nil, []byte(r.path)))
}

func (r *record) is(fileType uint32) bool { return r.attr.Mode&tree.TypeMask == fileType }

// finish sorts the records and finds hard links.
func finish(rs []*record) []*record {
	slices.SortFunc(rs, func(a, b *record) int { return cmp.Compare(a.path, b.path) })
	first := map[uint64]*record{}
	for _, r := range rs {
		if r.is(tree.Directory) || r.attr.Mode == 0 {
			continue
		}
		if f := first[r.inode]; f != nil {
			r.link, f.link = f.path, f.path
		} else {
			first[r.inode] = r
		}
	}
	return rs
}

// compareRecords describes the first differences of two trees, at most a few; empty: none.
func compareRecords(wantName string, want []*record, gotName string, got []*record) string {
	var b strings.Builder
	at := map[string]*record{}
	for _, r := range want {
		at[r.escapedPath()] = r
	}
	differ := 0
	for _, r := range got {
		w := at[r.escapedPath()]
		delete(at, r.escapedPath())
		switch {
		case w == nil:
			fmt.Fprintf(&b, "%s alone has %s\n", gotName, shorten(r.String(), 0))
		case w.String() != r.String():
			at := differAt(w.String(), r.String())
			fmt.Fprintf(&b, "%s: %s\n%s: %s\n", wantName, shorten(w.String(), at), gotName, shorten(r.String(), at))
		default:
			continue
		}
		if differ++; differ == 10 {
			return b.String() + "and so on\n"
		}
	}
	for _, r := range at {
		if differ++; differ == 10 {
			return b.String() + "and so on\n"
		}
		fmt.Fprintf(&b, "%s alone has %s\n", wantName, shorten(r.String(), 0))
	}
	return b.String()
}

// shorten cuts out what is around a place of a long line.
func shorten(s string, at int) string {
	const before, after = 400, 400
	end := ""
	if len(s) > at+after {
		s, end = s[:at+after], "…"
	}
	if at > 2*before {
		s = s[:before] + " … " + s[at-before:]
	}
	return s + end
}

func differAt(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// treeRecords are the records that a mounted tree should have. content gives that of a regular file with an object.
func treeRecords(t *tree.Tree, content func(n tree.Node) string) []*record {
	rs := []*record{treeRecord(t, tree.Root, "/", content)}
	var list func(dir tree.Node, path string)
	list = func(dir tree.Node, path string) {
		for e := range t.Entries(dir) {
			p := path + "/" + string(e.Name)
			r := treeRecord(t, e.Node, p, content)
			r.again = e.Link
			rs = append(rs, r)
			if t.IsDir(e.Node) {
				list(e.Node, p)
			}
		}
	}
	list(tree.Root, "")
	return finish(rs)
}

func treeRecord(t *tree.Tree, n tree.Node, path string, content func(n tree.Node) string) *record {
	r := &record{path: path, attr: t.Attr(n), inode: uint64(n), target: string(t.Target(n)), xattrs: map[string]string{}}
	if !r.is(tree.Regular) && !r.is(tree.Symlink) {
		r.attr.Size = 0
	}
	for _, x := range t.Xattrs(n) {
		r.xattrs[x.Name] = string(x.Value)
	}
	if r.is(tree.Regular) {
		if inline := t.Content(n); inline != nil {
			r.data = digestOf(bytes.Clone(inline))
		} else {
			r.data = content(n)
			r.unchecked = t.Digest(n).IsZero() && len(t.Payload(n)) > 0
		}
	}
	return r
}
