package index

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// model is a tree as plainly as can be: a map of paths. It follows doc/formats/oci-1.md and shares no code with Flatten.
type model struct{ at map[string]*modelFile }

// modelFile is an inode; two paths may have the same one.
type modelFile struct {
	typ   string // as in the text form; "hard" never gets here
	perm  uint32
	uid   uint32
	mtime int
	label string // security.selinux
	caps  string // security.capability
	data  string // content or target
}

// modelEntry is an entry of a layer.
type modelEntry struct {
	path, target string
	modelFile
}

func (e *modelEntry) String() string {
	s := fmt.Sprintf("%s %q %o uid=%d mtime=%d", e.typ, cmp.Or(e.path, "."), e.perm, e.uid, e.mtime)
	switch {
	case e.typ == "sym":
		s += " -> " + e.data
	case e.typ == "hard":
		s += " -> " + e.target
	case e.typ == "file":
		s += " data=" + e.data
	}
	if e.label != "" {
		s += " x:security.selinux=" + e.label
	}
	if e.caps != "" {
		s += " x:security.capability=" + e.caps
	}
	return s
}

func cutPath(path string) (dir, base string) {
	i := strings.LastIndex(path, "/")
	return path[:max(i, 0)], path[i+1:]
}

func (m *model) remove(path string) {
	maps.DeleteFunc(m.at, func(p string, _ *modelFile) bool { return p == path || strings.HasPrefix(p, path+"/") })
}

func (m *model) removeBelow(dir string) {
	maps.DeleteFunc(m.at, func(p string, _ *modelFile) bool {
		return p != "" && (dir == "" || strings.HasPrefix(p, dir+"/"))
	})
}

func (m *model) isDir(path string) bool { return m.at[path] != nil && m.at[path].typ == "dir" }

// hide does what the whiteout does, or says what is wrong with it.
func (m *model) hide(e *modelEntry) string {
	dir, base := cutPath(e.path)
	switch {
	case !strings.HasPrefix(base, ".wh."):
	case base == ".wh." || base == ".wh.." || base == ".wh...":
		return "a whiteout of no name"
	case base == ".wh..wh..opq":
		if m.isDir(dir) {
			m.removeBelow(dir)
		}
	case strings.HasPrefix(base, ".wh..wh."):
	case m.isDir(dir):
		m.remove(strings.TrimPrefix(dir+"/"+base[4:], "/"))
	}
	return ""
}

// makeParents makes what is missing above a path. skip tells that the path is AUFS's.
func (m *model) makeParents(path string) (skip bool, wrong string) {
	dir, base := cutPath(path)
	if dir == "" && base == path {
		return false, ""
	}
	if skip, wrong = m.makeParents(dir); skip || wrong != "" {
		return skip, wrong
	}
	_, name := cutPath(dir)
	switch {
	case m.isDir(dir):
	case m.at[dir] != nil:
		return false, "its parent is no directory"
	case strings.HasPrefix(name, ".wh..wh."):
		return true, ""
	case strings.HasPrefix(name, ".wh."):
		return false, "it is below a whiteout"
	default:
		m.at[dir] = &modelFile{typ: "dir", perm: 0o755}
	}
	return false, ""
}

// add puts an entry into the tree, or says what is wrong with it.
func (m *model) add(e *modelEntry) string {
	if _, base := cutPath(e.path); strings.HasPrefix(base, ".wh.") {
		return ""
	}
	if skip, wrong := m.makeParents(e.path); skip || wrong != "" {
		return wrong
	}
	if e.typ == "hard" {
		target := m.at[e.target]
		switch {
		case e.target == e.path:
			return "hard link to itself"
		case target == nil:
			return fmt.Sprintf("hard link to %q, which does not exist", e.target)
		case target.typ == "dir":
			return fmt.Sprintf("hard link to the directory %q", e.target)
		}
		m.remove(e.path)
		m.at[e.path] = target
		return ""
	}
	if e.typ != "dir" || !m.isDir(e.path) {
		m.remove(e.path)
	}
	file := e.modelFile
	m.at[e.path] = &file
	return ""
}

// layer merges a layer and says what is wrong with which entry.
func (m *model) layer(entries []*modelEntry) string {
	for _, pass := range []func(*modelEntry) string{m.hide, m.add} {
		for i, e := range entries {
			if wrong := pass(e); wrong != "" {
				return fmt.Sprintf("entry %d, %q: %s", i+1, e.path, wrong)
			}
		}
	}
	return ""
}

func (m *model) normalize() {
	if m.isDir("usr") {
		root := *m.at["usr"]
		m.at[""] = &root
	}
	if m.isDir("run") {
		m.removeBelow("run")
		m.at["run"].mtime = m.at[""].mtime
	}
	for _, f := range m.at {
		f.label = ""
	}
}

// dump writes the tree as composefs-dump text. The names in use need no escapes.
func (m *model) dump() string {
	paths := slices.SortedFunc(maps.Keys(m.at), func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) // depth first, siblings by name
	})
	home, links := map[*modelFile]string{}, map[*modelFile]int{}
	for _, path := range paths {
		f := m.at[path]
		if links[f]++; links[f] == 1 {
			home[f] = path
		}
		if dir, _ := cutPath(path); f.typ == "dir" {
			links[f]++
			if path != "" {
				links[m.at[dir]]++
			}
		}
	}
	var b strings.Builder
	for _, path := range paths {
		f := m.at[path]
		b.WriteString(f.line(path, home[f], links[f]))
	}
	return b.String()
}

func (f *modelFile) line(path, home string, links int) string {
	types := map[string]string{"dir": "40", "file": "100", "sym": "120", "chr": "20", "fifo": "10"}
	size, payload, content := 0, "-", "-"
	switch {
	case f.typ == "sym":
		size, payload = len(f.data), f.data
	case f.typ == "file" && f.data != "":
		size, content = len(f.data), f.data
	}
	link := ""
	if home != path {
		link, payload = "@", "/"+home
	}
	s := fmt.Sprintf("/%s %d %s%s%03o %d %d 0 0 %d.0 %s %s -", path, size, link, types[f.typ], f.perm, links, f.uid, f.mtime, payload, content)
	if f.caps != "" {
		s += " security.capability=" + f.caps
	}
	if f.label != "" {
		s += " security.selinux=" + f.label
	}
	return s + "\n"
}

// randomLayer makes a layer of few names, so that its entries meet each other and those of other layers.
// Hard links mostly lead to one of files, to which the layer's own are added.
func randomLayer(r *rand.Rand, files *[]string) []*modelEntry {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	path := func() string {
		dir := pick("", "", "usr/", "usr/", "run/", "d/", "usr/d/", "d/e/", pick("a/", "l/", "d/", "usr/d/", ".wh..wh.plnk/", pick("d/", ".wh.d/")))
		return dir + pick("a", "b", "c", "a", "b", "l", "d", "e", "usr", "run")
	}
	entries := make([]*modelEntry, r.IntN(7))
	for i := range entries {
		e := &modelEntry{path: path(), modelFile: modelFile{
			typ: pick("file", "file", "file", "dir", "dir", "dir", "sym", "hard", "chr", "fifo"), perm: uint32(r.IntN(0o1000)),
			uid: uint32(r.IntN(3)), mtime: r.IntN(3), caps: pick("", "", "cap"), label: pick("", "t"),
		}}
		switch _, base := cutPath(e.path); {
		case e.typ == "dir" && r.IntN(8) == 0:
			e.path = ""
		case base == "usr" || base == "run" || base == "d" || base == "e": // mostly directories
			e.typ = pick("dir", "dir", "dir", "dir", "dir", "dir", "dir", e.typ)
		}
		if dir, base := cutPath(e.path); e.path != "" && r.IntN(4) == 0 {
			base = pick(".wh."+base, ".wh."+base, ".wh."+base, ".wh."+base, ".wh..wh..opq", ".wh..wh..opq", ".wh..wh.aufs", pick(".wh.", ".wh..", ".wh..."))
			e.path = strings.TrimPrefix(dir+"/"+base, "/")
		}
		switch e.typ {
		case "file":
			e.data = pick("", "one", "two")
		case "sym":
			e.data = pick("a", "../usr", "d")
		case "hard":
			if e.target = path(); len(*files) > 0 && r.IntN(10) > 0 {
				e.target = pick(*files...)
			}
		}
		if _, base := cutPath(e.path); e.typ != "dir" && !strings.HasPrefix(base, ".wh.") {
			*files = append(*files, e.path)
		}
		entries[i] = e
	}
	return entries
}

// runModel makes the tree of a stack of layers, or says what is wrong.
func runModel(stack [][]*modelEntry, rules Rules) (dump, wrong string) {
	m := &model{at: map[string]*modelFile{"": {typ: "dir", perm: 0o755}}}
	for _, l := range stack {
		if wrong := m.layer(l); wrong != "" {
			return "", wrong
		}
	}
	if rules == OCI1 {
		m.normalize()
	}
	return m.dump(), ""
}

// TestModel compares random stacks of layers with the model.
func TestModel(t *testing.T) {
	stacks := 10_000
	if testing.Short() {
		stacks = 1000
	}
	good, links := 0, 0
	for seed := range uint64(stacks) {
		r := rand.New(rand.NewPCG(seed, 2))
		stack := make([][]*modelEntry, 1+r.IntN(4))
		texts := make([]string, len(stack))
		var layers []*Layer
		var files []string
		for i := range stack {
			stack[i] = randomLayer(r, &files)
			for _, e := range stack[i] {
				texts[i] += e.String() + "\n"
			}
			layers = append(layers, readLayer(t, texts[i]))
		}
		rules := []Rules{OCI1, Faithful1}[seed%2]
		want, wrong := runModel(stack, rules)
		got := ""
		tr, err := Flatten(context.Background(), layers, FlattenOptions{Rules: rules, Algorithm: fsverity.SHA256})
		if err == nil {
			got = dumpTree(t, tr)
		}
		if got != want || !errorIs(err, wrong) {
			t.Fatalf("seed %d, %s\n%s\n got %v\n%s\nwant %s\n%s", seed, rules, strings.Join(texts, "--\n"), err, got, wrong, want)
		}
		if err == nil {
			good++
			links += strings.Count(got, " @")
		}
	}
	t.Logf("%d stacks, %d of them make a tree, with %d hard links", stacks, good, links)
	if good < stacks/2 || links < stacks/20 {
		t.Errorf("only %d of %d stacks make a tree, with %d hard links", good, stacks, links)
	}
}

// readLayer reads a layer in the text form, of small files only.
func readLayer(t *testing.T, text string) *Layer {
	t.Helper()
	l := newLayer(fsverity.SHA256, "layer")
	_, err := parseTar(&memInput{tar: buildTar(t, text)}, Limits{}, func(e *Entry) error {
		l.entries.add(e)
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return l
}
