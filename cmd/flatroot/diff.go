package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
)

// exitTrouble is the status of a diff that could not be made, as of diff(1): 1 says that the trees differ.
const exitTrouble = 2

func diffCommand() *command {
	return &command{
		name: "diff", args: "A B", min: 2, max: 2,
		usage: "compare two trees, attribute by attribute",
		about: `Prints what tree B has otherwise than tree A, one line a name: - before what is gone, + before what is new, ~ before what has changed, with each attribute that differs: type, link (the name that a hard link has as its home), mode, uid, gid, rdev, size, mtime, target of a symlink, content (the digest, or the text itself of up to 64 bytes), and extended attributes. Nothing else of an image depends on the tree, so no line means equal images.

` + operandHelp,
		flags: treeFlags(),
		examples: []example{
			{"what an update changed", "flatroot diff web-previous web"},
			{"whether an image still is what a directory has", "flatroot diff web ./rootfs"},
		},
		exits: []exit{{exitOK, "The trees are equal."}, {exitFailed, "They differ."}, {exitTrouble, "Wrong usage, or a tree could not be read."}},
		run: func(ctx context.Context, v *invocation) error {
			o, err := treeOptionsOf(v)
			if err != nil {
				return err
			}
			return runDiff(ctx, v.console, v.Args().Get(0), v.Args().Get(1), o, v.stdout)
		},
	}
}

func runDiff(ctx context.Context, c console, a, b string, o treeOptions, stdout io.Writer) error {
	differ, err := diff(ctx, c, a, b, o, stdout)
	switch {
	case err != nil:
		return &statusError{exitTrouble, err}
	case differ:
		return &statusError{code: exitFailed}
	}
	return nil
}

func diff(ctx context.Context, c console, a, b string, o treeOptions, stdout io.Writer) (bool, error) {
	if a == "-" && b == "-" {
		return false, errors.New("only one tree can come from standard input")
	}
	ta, tb, err := c.twoTrees(ctx, a, b, o)
	if err != nil {
		return false, err
	}
	w := bufio.NewWriter(stdout)
	differ := false
	for ch := range diffTrees(ta, tb) {
		differ = true
		if err := ch.print(w, c.json); err != nil {
			return true, err
		}
	}
	return differ, w.Flush()
}

// twoTrees reads both trees with the same algorithm: what has digests already decides for what has none yet.
func (c *console) twoTrees(ctx context.Context, a, b string, o treeOptions) (ta, tb *tree.Tree, err error) {
	fa, err := c.find(a, o)
	if err != nil {
		return nil, nil, err
	}
	defer fa.Close()
	fb, err := c.find(b, o)
	if err != nil {
		return nil, nil, err
	}
	defer fb.Close()
	first, second := fa, fb
	if !fa.hasDigests() {
		first, second = fb, fa
	}
	t1, err := first.tree(ctx, *c, o)
	if err != nil {
		return nil, nil, err
	}
	o.algorithm = t1.Algorithm()
	t2, err := second.tree(ctx, *c, o)
	if err != nil {
		return nil, nil, err
	}
	if first == fb {
		t1, t2 = t2, t1
	}
	return t1, t2, nil
}

// hasDigests tells whether the tree's digests are fixed, rather than computed by the algorithm asked for.
func (f *found) hasDigests() bool {
	return f.image != nil || f.input != nil && !f.input.hasLayer()
}

func (ch change) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, ch)
	}
	sign := map[string]string{added: "+", removed: "-", changed: "~"}[ch.Change]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", sign, quoted(ch.Path))
	for i, a := range ch.Attributes {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s %s → %s", a.Name, quoted(a.From), quoted(a.To))
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted is text as it is, or quoted if a terminal could take it for more, or a reader for less. What is quoted already
// stays.
func quoted(s string) string {
	printable := oci.Printable(s, len(s)+1) == s
	switch {
	case s == "":
		return "none"
	case printable && (strings.HasPrefix(s, `"`) || !strings.ContainsAny(s, " →")):
		return s
	}
	return fmt.Sprintf("%q", s)
}
