package tree

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

var (
	dirAttr  = Attr{Mode: Directory | 0o755}
	fileAttr = Attr{Mode: Regular | 0o644, Nlink: 1}
)

func newTree() *Tree { return New(fsverity.SHA256, dirAttr) }

// add adds a node by its path, whose parent must exist.
func add(t *testing.T, tr *Tree, path string, a Attr) Node {
	t.Helper()
	dir, name := parent(t, tr, path)
	n, err := tr.Add(dir, []byte(name), a)
	if err != nil {
		t.Fatalf("add %s: %v", path, err)
	}
	return n
}

func link(t *testing.T, tr *Tree, path string, target Node) {
	t.Helper()
	dir, name := parent(t, tr, path)
	if err := tr.Link(dir, []byte(name), target); err != nil {
		t.Fatalf("link %s: %v", path, err)
	}
}

func parent(t *testing.T, tr *Tree, path string) (Node, string) {
	t.Helper()
	parts := strings.Split(path, "/")
	dir := Root
	for _, p := range parts[:len(parts)-1] {
		next, ok := tr.Lookup(dir, []byte(p))
		if !ok {
			t.Fatalf("no directory for %s", path)
		}
		dir = next
	}
	return dir, parts[len(parts)-1]
}

// list shows a tree as text: names with * for hard links, directories in parentheses.
func list(tr *Tree, dir Node) string {
	var parts []string
	for e := range tr.Entries(dir) {
		s := string(e.Name)
		if e.Link {
			s += "*"
		}
		if tr.IsDir(e.Node) {
			s += "(" + list(tr, e.Node) + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func wantList(t *testing.T, tr *Tree, want string) {
	t.Helper()
	if got := list(tr, Root); got != want {
		t.Errorf("tree is %q, want %q", got, want)
	}
}

func TestAddErrors(t *testing.T) {
	tr := newTree()
	f := add(t, tr, "f", fileAttr)
	d := add(t, tr, "d", dirAttr)
	tests := []struct {
		dir  Node
		name string
		want error
	}{
		{Root, "f", ErrExist},
		{Root, "d", ErrExist},
		{f, "x", ErrNotDir},
		{Root, "", ErrName},
		{Root, ".", ErrName},
		{Root, "..", ErrName},
		{Root, "a/b", ErrName},
		{Root, "a\x00b", ErrName},
		{Root, strings.Repeat("x", 256), ErrName},
		{Root, strings.Repeat("x", 255), nil},
		{d, "f", nil},
		{Root, "...", nil},
		{Root, "\xff\n", nil},
	}
	for _, tt := range tests {
		if _, err := tr.Add(tt.dir, []byte(tt.name), fileAttr); !errors.Is(err, tt.want) {
			t.Errorf("add %q: %v, want %v", tt.name, err, tt.want)
		}
		if tt.want == nil {
			continue
		}
		if err := tr.Link(tt.dir, []byte(tt.name), f); !errors.Is(err, tt.want) {
			t.Errorf("link %q: %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := tr.Link(Root, []byte("d2"), d); !errors.Is(err, ErrType) {
		t.Errorf("hard link to a directory: %v", err)
	}
}

func TestOrder(t *testing.T) {
	tr := newTree()
	names := []string{"b", "a", "-", ".a", "a\xff", "aa", "B", "a!", "~", "\x01"}
	for _, n := range names {
		add(t, tr, n, fileAttr)
	}
	var got []string
	for name := range tr.Children(Root) {
		got = append(got, name)
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("order %q, want %q", got, names)
	}
	add(t, tr, "!", fileAttr) // after the list was sorted once
	wantList(t, tr, strings.Join(append([]string{"\x01", "!"}, names[1:]...), " "))
}

func TestRemove(t *testing.T) {
	tr := newTree()
	add(t, tr, "d", dirAttr)
	for _, p := range []string{"a", "z", "d/x", "d/y"} {
		add(t, tr, p, fileAttr)
	}
	if tr.Remove(Root, []byte("none")) {
		t.Error("removed what isn't there")
	}
	if !tr.Remove(Root, []byte("a")) || tr.Remove(Root, []byte("a")) {
		t.Error("a is removed once")
	}
	if _, ok := tr.Lookup(Root, []byte("a")); ok {
		t.Error("a is still found")
	}
	wantList(t, tr, "d(x y) z")
	tr.Remove(Root, []byte("z")) // the last of the list
	add(t, tr, "a", dirAttr)     // behind a removed entry, and before d
	wantList(t, tr, "a() d(x y)")
	tr.Remove(Root, []byte("d"))
	add(t, tr, "d", fileAttr)
	wantList(t, tr, "a() d")
	tr.RemoveChildren(Root)
	wantList(t, tr, "")
	if _, ok := tr.Lookup(Root, []byte("d")); ok {
		t.Error("d is still found")
	}
	add(t, tr, "b", fileAttr)
	wantList(t, tr, "b")
}

func TestRemoveChildrenAfterRemove(t *testing.T) {
	tr := newTree()
	d := add(t, tr, "d", dirAttr)
	add(t, tr, "d/x", fileAttr)
	add(t, tr, "d/y", fileAttr)
	tr.Remove(d, []byte("x"))
	tr.RemoveChildren(d)
	add(t, tr, "d/x", fileAttr)
	wantList(t, tr, "d(x)")
	f := add(t, tr, "f", Attr{Mode: CharDevice, Rdev: 7})
	tr.RemoveChildren(f) // not a directory: nothing happens
	if tr.Attr(f).Rdev != 7 {
		t.Error("device number is lost")
	}
}

func TestCanonicalize(t *testing.T) {
	tr := newTree()
	add(t, tr, "b", dirAttr)
	f := add(t, tr, "z", fileAttr)
	add(t, tr, "a", dirAttr)
	link(t, tr, "b/x", f)
	link(t, tr, "a/y", f)
	add(t, tr, "a/sub", dirAttr)
	wantList(t, tr, "a(sub() y*) b(x*) z")
	if p := tr.Path(f); p != "/z" {
		t.Errorf("home is %s", p)
	}
	tr.Canonicalize()
	wantList(t, tr, "a(sub() y) b(x*) z*")
	if p := tr.Path(f); p != "/a/y" {
		t.Errorf("home is %s", p)
	}
	for path, want := range map[string]uint32{"": 4, "a": 3, "b": 2, "a/sub": 2, "z": 3} {
		n := Root
		if path != "" {
			dir, name := parent(t, tr, path)
			n, _ = tr.Lookup(dir, []byte(name))
		}
		if got := tr.Attr(n).Nlink; got != want {
			t.Errorf("/%s has %d links, want %d", path, got, want)
		}
	}
	dir, _ := tr.Lookup(Root, []byte("a"))
	tr.Remove(dir, []byte("y"))
	tr.Canonicalize()
	wantList(t, tr, "a(sub()) b(x) z*")
	if got := tr.Attr(f).Nlink; got != 2 {
		t.Errorf("%d links are left, want 2", got)
	}
	if got := tr.Parent(f); tr.Path(got) != "/b" || tr.Parent(Root) != Root {
		t.Errorf("parent is %s", tr.Path(got))
	}
}

func TestRemoveHome(t *testing.T) {
	tr := newTree()
	add(t, tr, "d", dirAttr)
	f := add(t, tr, "d/f", fileAttr)
	link(t, tr, "l", f)
	tr.Remove(Root, []byte("d"))
	if n, ok := tr.Lookup(Root, []byte("l")); !ok || n != f {
		t.Error("the other name is lost")
	}
	tr.Rehome()
	wantList(t, tr, "l")
	tr.Remove(Root, []byte("l"))
	tr.Canonicalize()
	if tr.Parent(f) != None || tr.Attr(f).Nlink != 0 {
		t.Errorf("a node without names is in %v, has %d links", tr.Parent(f), tr.Attr(f).Nlink)
	}
}

func TestDeep(t *testing.T) {
	tr := newTree()
	const depth = 20000
	dir := Root
	for range depth {
		var err error
		if dir, err = tr.Add(dir, []byte("d"), dirAttr); err != nil {
			t.Fatal(err)
		}
	}
	tr.Canonicalize()
	if got := len(tr.Path(dir)); got != 2*depth {
		t.Errorf("path has %d bytes", got)
	}
}

// TestRandom does at random what a simple model with maps does too.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tr := newTree()
	type key struct {
		dir  Node
		name string
	}
	model := map[key]Node{}
	dirs := []Node{Root}
	alive := func(d Node) bool { return d == Root || model[key{tr.Parent(d), base(tr.Path(d))}] == d }
	for range 20000 {
		dir := dirs[r.IntN(len(dirs))]
		if !alive(dir) {
			continue
		}
		k := key{dir, fmt.Sprint("n", r.IntN(30))}
		_, exists := model[k]
		switch op := r.IntN(10); {
		case op < 6:
			a := fileAttr
			if op == 0 {
				a = dirAttr
			}
			n, err := tr.Add(dir, []byte(k.name), a)
			if exists != errors.Is(err, ErrExist) {
				t.Fatalf("add %s: %v", k.name, err)
			}
			if err == nil {
				model[k] = n
				if op == 0 {
					dirs = append(dirs, n)
				}
			}
		case op < 9:
			if tr.Remove(dir, []byte(k.name)) != exists {
				t.Fatalf("remove %s: it exists: %v", k.name, exists)
			}
			delete(model, k)
		default:
			checkDir(t, tr, dir, func(name string) Node {
				if n, ok := model[key{dir, name}]; ok {
					return n
				}
				return None
			})
		}
	}
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func checkDir(t *testing.T, tr *Tree, dir Node, want func(string) Node) {
	t.Helper()
	last := ""
	seen := 0
	for name, n := range tr.Children(dir) {
		if name <= last || want(name) != n {
			t.Fatalf("entry %q after %q leads to %v, want %v", name, last, n, want(name))
		}
		last = name
		seen++
	}
	for i := range 30 {
		name := fmt.Sprint("n", i)
		n, ok := tr.Lookup(dir, []byte(name))
		if w := want(name); ok != (w != None) || ok && n != w {
			t.Fatalf("lookup %q: %v, %v, want %v", name, n, ok, w)
		}
		if ok {
			seen--
		}
	}
	if seen != 0 {
		t.Fatalf("the list and lookups differ by %d names", seen)
	}
}

func TestBigDirectory(t *testing.T) {
	tr := newTree()
	const count = 100_000
	for i := range count {
		add(t, tr, fmt.Sprintf("%08d", i*7919%count), fileAttr)
	}
	i := 0
	for name := range tr.Children(Root) {
		if want := fmt.Sprintf("%08d", i); name != want {
			t.Fatalf("entry %d is %s", i, name)
		}
		i++
	}
	for i := range count { // must not be quadratic
		if !tr.Remove(Root, fmt.Appendf(nil, "%08d", i)) {
			t.Fatalf("%d was not there", i)
		}
	}
	wantList(t, tr, "")
	if tr.Len() != count+1 {
		t.Errorf("%d nodes", tr.Len())
	}
}

func TestStopIteration(t *testing.T) {
	tr := newTree()
	add(t, tr, "a", fileAttr)
	add(t, tr, "b", fileAttr)
	var got bytes.Buffer
	for name := range tr.Children(Root) {
		got.WriteString(name)
		break
	}
	if got.String() != "a" {
		t.Errorf("got %s", &got)
	}
}
