package dump

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/tree"
)

// link is a hard link whose target has no line yet.
type link struct {
	dir          tree.Node
	name, target string
	line         int
}

// place is a name in a directory.
type place struct {
	dir  tree.Node
	name string
}

// addLink reads a hard link's line. Of its other fields C looks at none, and some writers put a dash into all of them.
func (p *parser) addLink(path []byte, mode uint32, f *fields) error {
	if err := f.need(fieldPayload + 1); err != nil {
		return err
	}
	target, err := f.text(fieldPayload)
	target = cutNUL(target)
	switch {
	case err != nil:
		return err
	case !f.isSet(fieldPayload):
		return errors.New("PAYLOAD of a hard link is its target's path; there is none")
	case mode&tree.TypeMask == tree.Directory:
		return errors.New("MODE of a hard link is a directory's; directories can't have more than one name")
	case p.t == nil:
		return fmt.Errorf("first path is %q: it must be the root, /", path)
	}
	dir, name, err := p.parent(path)
	if err != nil {
		return err
	}
	if err := tree.CheckName(name); err != nil {
		return fmt.Errorf("add %q: %w", path, err)
	}
	targetDir, targetName, err := p.target(target)
	if err == nil {
		if n, ok := p.t.Lookup(targetDir, targetName); ok {
			return p.link(dir, name, n)
		}
	}
	p.links = append(p.links, link{dir, string(name), string(target), p.line})
	return nil
}

func (p *parser) link(dir tree.Node, name []byte, n tree.Node) error {
	if err := p.t.Link(dir, name, n); err != nil {
		return fmt.Errorf("add hard link %q: %w", name, err)
	}
	return nil
}

// target finds the directory and the name of a hard link's target. Other than a path it may end in slashes.
func (p *parser) target(path []byte) (dir tree.Node, name []byte, err error) {
	path = bytes.TrimRight(path, "/")
	if len(path) == 0 {
		return tree.None, nil, fmt.Errorf("hard link to the root: %w", tree.ErrType)
	}
	slash := bytes.LastIndexByte(path, '/')
	if slash < 0 {
		return tree.Root, path, nil
	}
	dir, err = p.walk(path[:slash])
	return dir, path[slash+1:], err
}

// resolveLinks makes the hard links whose targets were not there yet. A target may be such a link itself.
func (p *parser) resolveLinks() error {
	if len(p.links) == 0 {
		return nil
	}
	pending := make(map[place]int, len(p.links))
	for i, l := range p.links {
		pending[place{l.dir, l.name}] = i
	}
	for i := range p.links {
		if err := p.resolve(i, pending); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows a chain of links to a node and makes all of them lead to it. Links that are made are found in the tree,
// so no chain is followed twice.
func (p *parser) resolve(i int, pending map[place]int) error {
	if p.links[i].line == 0 {
		return nil
	}
	chain := []int{i}
	for {
		l := &p.links[chain[len(chain)-1]]
		dir, name, err := p.target([]byte(l.target))
		if err != nil {
			return p.fail(l.line, fmt.Errorf("target of a hard link: %w", err))
		}
		if n, ok := p.t.Lookup(dir, name); ok {
			return p.linkChain(chain, n)
		}
		next, ok := pending[place{dir, string(name)}]
		switch {
		case !ok:
			return p.fail(l.line, fmt.Errorf("target of a hard link: %q has no line", l.target))
		case len(chain) == len(p.links):
			return p.fail(l.line, fmt.Errorf("hard link to %q leads back to itself", l.target))
		}
		chain = append(chain, next)
	}
}

// linkChain marks the links that it makes by taking their lines away.
func (p *parser) linkChain(chain []int, n tree.Node) error {
	for _, i := range chain {
		l := &p.links[i]
		if err := p.link(l.dir, []byte(l.name), n); err != nil {
			return p.fail(l.line, err)
		}
		l.line = 0
	}
	return nil
}
