package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/tree"
)

func buildCommand() *command {
	return &command{
		name: "build", args: "DIR|TAR|DUMP", min: 1, max: 1,
		usage: "make an image of a directory, a tar or a dump",
		about: `Makes an image of something that is no OCI image. A directory or a tar, compressed or not, becomes an OCI image of one layer that can be pushed, and depends on nothing but what is in it: the digest of a directory is that of its tar, if the tar is PAX with times in nanoseconds and extended attributes. Sockets are left out. A composefs-dump becomes an image without layers, which can't be pushed; the objects that it names have to be in the store already when it is mounted.

- is a tar or a dump on standard input.`,
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "name the image `NAME` in the store"},
			&cli.StringFlag{Name: "expect", Usage: "fail, and name nothing, unless the image has this `DIGEST`"},
			oneFileSystemFlag(),
		}, readingFlags()...),
		examples: []example{
			{"an image of a directory", "flatroot build ./rootfs --name web"},
			{"of a container's tree", "podman export web | flatroot build - --name web"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o := buildOptions{name: v.String("name"), oneFileSystem: v.Bool("one-file-system")}
			var err error
			if o.reading, err = v.reading(); err != nil {
				return err
			}
			if o.expect, err = expectDigest(v.String("expect")); err != nil {
				return v.usagef("%v", err)
			}
			if o.name == "" {
				return v.usagef("--name NAME is missing")
			}
			if err := checkName(o.name); err != nil {
				return err
			}
			return runBuild(ctx, v.console, v.Args().First(), o, v.stdout)
		},
	}
}

type buildOptions struct {
	reading
	name          string
	expect        fsverity.Digest
	oneFileSystem bool
}

func runBuild(ctx context.Context, c console, path string, o buildOptions, stdout io.Writer) error {
	in, err := openInput(path, c.stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	options := o.options()
	options.Name, options.Expect = o.name, o.expect
	m := c.startProgress()
	options.Progress = m
	r, err := c.build(ctx, s, in, o, options)
	m.stop()
	if err != nil {
		return err
	}
	return printReport(c, stdout, r)
}

func (c *console) build(ctx context.Context, s *store.Store, in *input, o buildOptions, options index.ImportOptions) (*index.Report, error) {
	if in.hasLayer() {
		dir := treeOptions{oneFileSystem: o.oneFileSystem}.dir(*c)
		tar, done := in.tarOf(ctx, dir)
		defer done()
		return index.Build(ctx, s, tar, in.path, options)
	}
	if in.content == isImage {
		return nil, &hintError{fmt.Errorf("%s is an image already", in.path), "`flatroot dump` makes a dump of it, which can be built"}
	}
	t, err := in.parseDump(s.Algorithm())
	if err != nil {
		return nil, err
	}
	missing, err := countMissing(s, t)
	if err != nil {
		return nil, err
	}
	if missing > 0 {
		c.talk("%s of this image not in the store: the contents have to come from another place", counted(missing, "object"))
	}
	return index.AddImage(s, t, options)
}

// countMissing counts the objects of a tree that a store does not have.
func countMissing(s *store.Store, t *tree.Tree) (int, error) {
	seen := make([]bool, t.NumDigests())
	missing := 0
	for n := range tree.Node(t.Len()) {
		id := t.DigestID(n)
		if id < 0 || seen[id] || len(t.Content(n)) > 0 {
			continue
		}
		seen[id] = true
		has, err := s.HasObject(t.Digest(n))
		if err != nil {
			return 0, err
		}
		if !has {
			missing++
		}
	}
	return missing, nil
}
