package chunk

import (
	"bytes"
	"errors"
	"path"

	"github.com/flatroot/flatroot/tree"
)

const (
	// maxFollowed bounds the symlinks on the way to a directory, as the kernel does (MAXSYMLINKS).
	maxFollowed = 40
	// maxSteps bounds what the ways to all paths may cost together. A million directories take a quarter of it. Without a
	// bound a tree with long symlinks that lead through each other could make it take hours.
	maxSteps = 1 << 22
)

// resolver finds what paths lead to in a tree, by way of the tree's symlinks.
type resolver struct {
	t     *tree.Tree
	dirs  map[string]tree.Node
	steps int
}

func newResolver(t *tree.Tree) *resolver {
	return &resolver{t: t, dirs: map[string]tree.Node{"/": tree.Root}}
}

// node is what a clean absolute path leads to. If it is a symlink itself, it isn't followed. None: nothing.
func (r *resolver) node(p string) (tree.Node, error) {
	if p == "/" {
		return tree.Root, nil
	}
	dir, err := r.dir(path.Dir(p))
	if err != nil || dir == tree.None {
		return tree.None, err
	}
	n, _ := r.t.Lookup(dir, []byte(path.Base(p)))
	return n, nil
}

// dir is the directory that a clean absolute path leads to; None: nothing, or something else.
func (r *resolver) dir(p string) (tree.Node, error) {
	if n, ok := r.dirs[p]; ok {
		return n, nil
	}
	if p == "" || p[0] != '/' {
		return tree.None, nil // no path of a tree
	}
	parent, err := r.dir(path.Dir(p))
	if err != nil {
		return tree.None, err
	}
	followed := 0
	n := r.enter(parent, []byte(path.Base(p)), &followed)
	if r.steps > maxSteps {
		return tree.None, errors.New("the paths of packages lead through too many and too long symlinks")
	}
	r.dirs[p] = n
	return n, nil
}

// enter is the directory that a name in a directory leads to.
func (r *resolver) enter(dir tree.Node, name []byte, followed *int) tree.Node {
	if dir == tree.None || r.steps > maxSteps {
		return tree.None
	}
	r.steps++
	n, ok := r.t.Lookup(dir, name)
	switch {
	case !ok:
		return tree.None
	case r.t.IsDir(n):
		return n
	case r.t.Mode(n)&tree.TypeMask != tree.Symlink || *followed == maxFollowed:
		return tree.None
	}
	*followed++
	return r.follow(dir, r.t.Target(n), followed)
}

func (r *resolver) follow(dir tree.Node, target []byte, followed *int) tree.Node {
	if bytes.HasPrefix(target, []byte{'/'}) {
		dir = tree.Root
	}
	for name := range bytes.SplitSeq(target, []byte{'/'}) {
		switch string(name) {
		case "", ".":
		case "..":
			if dir != tree.None {
				dir = r.t.Parent(dir)
			}
		default:
			dir = r.enter(dir, name, followed)
		}
	}
	return dir
}
