package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

const composefsInfoUsage = `usage: composefs-info [--basedir=path] [--filter=name] [ls|objects|dump|missing-objects|measure-file] IMAGES...
`

// composefsInfoMain is the command run as composefs-info: the C tool, option for option. args has no program name.
func composefsInfoMain(args []string, stdout, stderr io.Writer) int {
	out := bufio.NewWriter(stdout)
	err := runComposefsInfo(args, out)
	err = errors.Join(err, out.Flush())
	if err == nil {
		return 0
	}
	var wrongOption optionError
	var wrongUse errUsage
	fmt.Fprintf(stderr, "composefs-info: %v\n", err)
	if errors.As(err, &wrongOption) || errors.As(err, &wrongUse) {
		fmt.Fprint(stderr, composefsInfoUsage)
	}
	return 1
}

// infoOptions are the tool's options.
type infoOptions struct {
	basedir string
	filter  []string // names in the root; none: all
}

func runComposefsInfo(args []string, out io.Writer) error {
	var o infoOptions
	operands, err := parseCOptions(args, []cOption{
		{name: "basedir", set: func(s string) error { o.basedir = s; return nil }},
		{name: "filter", set: o.addFilter},
	})
	switch {
	case err != nil:
		return err
	case len(operands) == 0:
		return errUsage("no command specified")
	}
	command, files := operands[0], operands[1:]
	switch command {
	case "measure-file":
		return measureFiles(files, out)
	case "ls":
		return o.eachImage(files, func(t *tree.Tree) error { return listTree(out, t) })
	case "dump":
		return o.eachImage(files, func(t *tree.Tree) error { return dump.Write(out, t) })
	case "objects":
		return o.listObjects(files, out, func(string) bool { return true })
	case "missing-objects":
		return o.listMissing(files, out)
	}
	return errUsage(fmt.Sprintf("unknown command '%s'", command))
}

func (o *infoOptions) addFilter(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("filter must be a single name: %s", name)
	}
	o.filter = append(o.filter, name)
	return nil
}

// eachImage reads images one by one. Of an inode's several names the one that comes first, depth first, is its home.
func (o *infoOptions) eachImage(files []string, do func(*tree.Tree) error) error {
	if len(files) == 0 {
		return errUsage("no image path specified")
	}
	for _, file := range files {
		t, err := readImageFile(file)
		if err != nil {
			return err
		}
		if len(o.filter) > 0 {
			filterRoot(t, o.filter)
		}
		t.Rehome()
		if err := do(t); err != nil {
			return err
		}
	}
	return nil
}

func filterRoot(t *tree.Tree, keep []string) {
	var others []string
	for name := range t.Children(tree.Root) {
		if !slices.Contains(keep, name) {
			others = append(others, name)
		}
	}
	for _, name := range others {
		t.Remove(tree.Root, []byte(name))
	}
}

func readImageFile(file string) (*tree.Tree, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := erofs.Open(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", file, err)
	}
	t, err := erofs.ReadTree(m, erofs.ReadOptions{})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", file, err)
	}
	if m.Version() == 1 {
		err = showOpaque(t, tree.Root)
	}
	return t, err
}

// showOpaque gives directories that hold whiteouts the xattrs by which version 1 makes overlayfs show those. They are no
// part of the tree that the image was made from, but C shows them; an image made with them is the same.
func showOpaque(t *tree.Tree, dir tree.Node) error {
	holds := false
	for e := range t.Entries(dir) {
		switch {
		case t.IsDir(e.Node):
			if err := showOpaque(t, e.Node); err != nil {
				return err
			}
		case !e.Link && isWhiteout(t, e.Node):
			holds = true
		}
	}
	if !holds {
		return nil
	}
	return t.SetXattrs(dir, append(t.Xattrs(dir),
		tree.Xattr{Name: "trusted.overlay.opaque", Value: []byte("x")},
		tree.Xattr{Name: "user.overlay.opaque", Value: []byte("x")}))
}

func isWhiteout(t *tree.Tree, n tree.Node) bool {
	a := t.Attr(n)
	return a.Mode&tree.TypeMask == tree.CharDevice && a.Rdev == 0
}

// listTree prints the paths of a tree, and behind them what they lead to.
func listTree(out io.Writer, t *tree.Tree) error {
	var list func(dir tree.Node, path []byte) error
	list = func(dir tree.Node, path []byte) error {
		for e := range t.Entries(dir) {
			path := append(append(path[:len(path):len(path)], '/'), e.Name...)
			if _, err := fmt.Fprintf(out, "%s%s\n", shellText(path), target(t, e)); err != nil {
				return err
			}
			if t.IsDir(e.Node) {
				if err := list(e.Node, path); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return list(tree.Root, nil)
}

// shellText is a path with the dump's escapes, but with plain spaces.
func shellText(path []byte) []byte {
	parts := bytes.Split(path, []byte{' '})
	for i, p := range parts {
		parts[i] = dump.AppendEscaped(nil, p)
	}
	return bytes.Join(parts, []byte{' '})
}

// target is what ls shows behind a path. Behind further names of a file that is nothing.
func target(t *tree.Tree, e tree.Entry) string {
	payload := t.Payload(e.Node)
	switch {
	case t.IsDir(e.Node):
		return "/\t"
	case e.Link:
		return ""
	case t.Mode(e.Node)&tree.TypeMask == tree.Symlink:
		return "\t-> " + string(dump.AppendEscaped(nil, t.Target(e.Node)))
	case payload != nil:
		return "\t@ " + string(dump.AppendEscaped(nil, payload))
	}
	return ""
}

// listObjects prints the object paths that the images name and want accepts, each once, in byte order.
func (o *infoOptions) listObjects(files []string, out io.Writer, want func(string) bool) error {
	objects := map[string]bool{}
	err := o.eachImage(files, func(t *tree.Tree) error {
		eachObject(t, tree.Root, func(path string) {
			if _, known := objects[path]; !known {
				objects[path] = want(path)
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(objects)) {
		if objects[path] {
			if _, err := fmt.Fprintln(out, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachObject calls do for the object path of each file below a directory.
func eachObject(t *tree.Tree, dir tree.Node, do func(path string)) {
	for e := range t.Entries(dir) {
		if t.IsDir(e.Node) {
			eachObject(t, e.Node, do)
		} else if payload := t.Payload(e.Node); payload != nil {
			do(string(payload))
		}
	}
}

// listMissing prints the objects that the base directory has not. Without one that is all.
func (o *infoOptions) listMissing(files []string, out io.Writer) error {
	if o.basedir == "" {
		return o.listObjects(files, out, func(string) bool { return true })
	}
	dir, err := os.OpenFile(o.basedir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return o.listObjects(files, out, func(path string) bool {
		var st unix.Stat_t
		return unix.Fstatat(int(dir.Fd()), strings.TrimLeft(path, "/"), &st, unix.AT_EMPTY_PATH) != nil
	})
}

// measureFiles prints the SHA-256 fs-verity digests of files: the kernel's where it has one. That of an empty file is the
// kernel's too, other than C's.
func measureFiles(files []string, out io.Writer) error {
	if len(files) == 0 {
		return errUsage("no files specified")
	}
	for _, file := range files {
		d, err := measureFile(file)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, d); err != nil {
			return err
		}
	}
	return nil
}

func measureFile(file string) (fsverity.Digest, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return fsverity.Digest{}, err
	}
	defer f.Close()
	if d, err := fsverity.Measure(f); err == nil && d.Algorithm() == fsverity.SHA256 {
		return d, nil
	}
	return hashFile(f, fsverity.SHA256)
}
