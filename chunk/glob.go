package chunk

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/tree"
)

// maxGlob bounds a glob, in bytes; a path can't be longer.
const maxGlob = 4096

// glob is a pattern for paths, name by name.
type glob struct {
	rule    int32 // number of the rule that has it
	exclude bool
	names   []pattern
	tail    bool // what is below a match matches as well
}

// pattern is one for a name.
type pattern struct {
	deep bool // any number of names may come before
	kind patternKind
	text string // what is literal at the beginning: all, or what is before the star, or before what is special
	end  string // what is behind the star; a pattern of path.Match for all
}

type patternKind uint8

const (
	literal patternKind = iota
	affix               // one star, and nothing else that is special
	general
)

// parseGlob reads a glob. It begins with a slash, or with **/ for any directory. A name of ** is any number of names, none
// too; the others are patterns as path.Match has them, with [!x] for [^x] too. A slash at the end is the same as /** there.
func parseGlob(s string) (g glob, err error) {
	if len(s) > maxGlob {
		return g, fmt.Errorf("%d bytes; a glob has at most %d", len(s), maxGlob)
	}
	if !strings.HasPrefix(s, "/") && s != "**" && !strings.HasPrefix(s, "**/") {
		return g, errors.New("a glob begins with / or, for any directory, with **/")
	}
	names := strings.Split(strings.TrimPrefix(s, "/"), "/")
	if names[len(names)-1] == "" {
		names[len(names)-1] = "**"
	}
	deep := false
	for _, name := range names {
		if name == "**" {
			deep = true
			continue
		}
		p, err := parsePattern(name)
		if err != nil {
			return g, err
		}
		p.deep, deep = deep, false
		g.names = append(g.names, p)
	}
	g.tail = deep
	return g, nil
}

func parsePattern(name string) (p pattern, err error) {
	switch {
	case name == "":
		return p, errors.New("two slashes in a row")
	case name == "." || name == "..":
		return p, fmt.Errorf("%q is no name that a tree can have", name)
	case strings.Contains(name, "**"):
		return p, fmt.Errorf("%q: ** stands alone between two slashes", name)
	}
	if name, err = translate(name); err != nil {
		return p, err
	}
	if _, err := path.Match(name, ""); err != nil {
		return p, fmt.Errorf("%q: a [ without its ], an empty class, or a \\ at the end", name)
	}
	before, after, star := strings.Cut(name, "*")
	switch {
	case strings.ContainsAny(name, `?[\`) || strings.Contains(after, "*"):
		return pattern{kind: general, text: name[:strings.IndexAny(name, `*?[\`)], end: name}, nil
	case star:
		return pattern{kind: affix, text: before, end: after}, nil
	}
	return pattern{kind: literal, text: name}, nil
}

// translate makes of a pattern as shells have it one of path.Match.
func translate(name string) (string, error) {
	b := []byte(name)
	class := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\\':
			i++
		case class:
			class = b[i] != ']'
		case b[i] == '[':
			class = true
			if i+1 < len(b) && b[i+1] == '!' {
				b[i+1] = '^'
			}
		case b[i] == '{':
			return "", fmt.Errorf("%q: braces have no meaning here: write a glob for each, or [{] for the character", name)
		}
	}
	return string(b), nil
}

func (p *pattern) match(name []byte) bool {
	if len(name) < len(p.text) || string(name[:len(p.text)]) != p.text {
		return false
	}
	switch rest := name[len(p.text):]; p.kind {
	case literal:
		return len(rest) == 0
	case affix:
		return len(rest) >= len(p.end) && string(rest[len(rest)-len(p.end):]) == p.end
	}
	ok, _ := path.Match(p.end, string(name)) // it was a good pattern when it was read
	return ok
}

// prefix is the directory in which all that the glob matches lies, as far as it has no patterns, and how many names it has.
func (g *glob) prefix() (dir string, names int) {
	for _, p := range g.names {
		if p.kind != literal || p.deep {
			break
		}
		names++
	}
	if names == len(g.names) && !g.tail {
		names-- // the last is what it matches
	}
	for _, p := range g.names[:names] {
		dir += "/" + p.text
	}
	return dir, names
}

// moved is the glob with other directories for its first names.
func (g glob) moved(names int, dir string) glob {
	var moved []pattern
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name != "" {
			moved = append(moved, pattern{text: name})
		}
	}
	g.names = slices.Concat(moved, g.names[names:])
	return g
}

// matcher tells which rule a path matches, of a tree that is walked from the root down. So a glob costs nothing in
// directories where it can't match anything.
type matcher struct {
	globs []glob
	live  []state // of the directories from the root to the one that is looked at
}

// state is a glob of which some names have been matched, and the next are to be.
type state struct {
	glob  int32
	names int32
}

// span is a part of live: the states of one directory.
type span struct{ from, to int }

// root begins a walk.
func (m *matcher) root() span {
	m.live = m.live[:0]
	for i := range m.globs {
		m.live = append(m.live, state{glob: int32(i)})
	}
	return span{0, len(m.live)}
}

// enter adds the states of a directory that has this name in the one whose states are given. leave takes them away.
func (m *matcher) enter(s span, name []byte) span {
	in := span{len(m.live), len(m.live)}
	for i := s.from; i < s.to; i++ {
		st := m.live[i]
		g := &m.globs[st.glob]
		if int(st.names) == len(g.names) {
			m.add(in.from, st)
			continue
		}
		p := &g.names[st.names]
		if p.deep {
			m.add(in.from, st)
		}
		if p.match(name) && (int(st.names)+1 < len(g.names) || g.tail) {
			m.add(in.from, state{st.glob, st.names + 1})
		}
	}
	in.to = len(m.live)
	return in
}

func (m *matcher) leave(in span) { m.live = m.live[:in.from] }

// add adds a state of the glob that came last, once.
func (m *matcher) add(from int, st state) {
	for i := len(m.live) - 1; i >= from && m.live[i].glob == st.glob; i-- {
		if m.live[i] == st {
			return
		}
	}
	m.live = append(m.live, st)
}

// rule is the number of the first rule that the entry of this name matches; -1: none.
func (m *matcher) rule(s span, name []byte) int32 {
	current, hit, barred := int32(-1), false, false
	for _, st := range m.live[s.from:s.to] {
		g := &m.globs[st.glob]
		if g.rule != current {
			if hit && !barred {
				return current
			}
			current, hit, barred = g.rule, false, false
		}
		if barred || hit && !g.exclude || !g.ends(int(st.names), name) {
			continue
		}
		hit, barred = hit || !g.exclude, g.exclude
	}
	if hit && !barred {
		return current
	}
	return -1
}

// ends tells whether a glob of which some names have been matched matches the entry of this name.
func (g *glob) ends(names int, name []byte) bool {
	return names == len(g.names) || names+1 == len(g.names) && g.names[names].match(name)
}

// resolve gives globs the directories that symlinks in their first names lead to, so that /lib/modules/** is what it
// seems to be in a tree where /lib is a symlink.
func (m *matcher) resolve(r *resolver) error {
	for i, g := range m.globs {
		dir, names := g.prefix()
		if names == 0 {
			continue
		}
		n, err := r.dir(dir)
		if err != nil {
			return err
		}
		if n != tree.None {
			m.globs[i] = g.moved(names, r.t.Path(n))
		}
	}
	return nil
}
