package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
)

func digestCommand() *command {
	return &command{
		name: "digest", args: "SOURCE|NAME|DIR|TAR|DUMP", min: 1, max: 1,
		usage: "compute an image's digest and store nothing",
		about: `Prints the fs-verity digest of the EROFS image that pull, or build, would make. Nothing is stored, and no store is needed unless NAME is in it.

` + operandHelp + `

A DUMP's or IMAGE's tree is taken as it is; --rules, --platform and limits are for what has layers.`,
		flags: append([]cli.Flag{formatFlag()}, treeFlags()...),
		examples: []example{
			{"what a registry's image would be here", "flatroot digest docker://docker.io/library/debian:13"},
			{"what mkcomposefs --print-digest-only --from-file prints", "flatroot digest --format auto ./tree.dump"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o := digestOptions{}
			var err error
			if o.treeOptions, err = treeOptionsOf(v); err != nil {
				return err
			}
			if o.format, err = v.format(); err != nil {
				return err
			}
			return runDigest(ctx, v.console, v.Args().First(), o, v.stdout)
		},
	}
}

type digestOptions struct {
	treeOptions
	format erofs.Format
}

func runDigest(ctx context.Context, c console, arg string, o digestOptions, stdout io.Writer) error {
	r, err := digestOf(ctx, c, arg, o)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(stdout, r)
	}
	_, err = fmt.Fprintln(stdout, r.Image)
	return err
}

func digestOf(ctx context.Context, c console, arg string, o digestOptions) (*index.Report, error) {
	var made erofs.Summary
	options := o.options()
	options.Image = writeImage(o.format, &made)
	m := c.startProgress()
	defer m.stop()
	options.Progress = m
	r, err := digestReport(ctx, c, arg, o, options)
	if err != nil {
		return nil, err
	}
	r.Image, r.ImageBytes, r.Format = made.Digest, made.Size, made.Version
	return r, nil
}

func digestReport(ctx context.Context, c console, arg string, o digestOptions, options index.ImportOptions) (*index.Report, error) {
	f, err := c.find(arg, o.treeOptions)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch {
	case f.source != nil:
		return index.Digest(ctx, f.source, o.hash(), options)
	case f.input != nil && f.input.hasLayer():
		tar, done := f.input.tarOf(ctx, o.dir(c))
		defer done()
		return index.BuildDigest(ctx, o.hash(), tar, f.input.path, options)
	}
	t, err := f.tree(ctx, c, o.treeOptions)
	if err != nil {
		return nil, err
	}
	r := &index.Report{Algorithm: t.Algorithm()}
	if f.info != nil {
		r.Name, r.Manifest, r.Config, r.Rules = f.info.Name, f.info.Manifest, f.info.Config, f.info.Rules
	}
	return r, options.Image(io.Discard, t)
}

// treeOptions say how a tree is made of what an argument names. Zero algorithm and rules were not given.
type treeOptions struct {
	reading
	algorithm     fsverity.Algorithm
	oneFileSystem bool
}

func treeFlags() []cli.Flag {
	return append([]cli.Flag{hashFlag(), oneFileSystemFlag()}, readingFlags()...)
}

func treeOptionsOf(v *invocation) (o treeOptions, err error) {
	if o.reading, err = v.reading(); err != nil {
		return o, err
	}
	if !v.IsSet("rules") {
		o.rules = ""
	}
	o.oneFileSystem = v.Bool("one-file-system")
	if v.IsSet("hash") {
		o.algorithm, err = v.hash()
	}
	return o, err
}

// hash is the algorithm for what has no digests yet.
func (o treeOptions) hash() fsverity.Algorithm { return cmp.Or(o.algorithm, fsverity.SHA256) }

func oneFileSystemFlag() cli.Flag {
	return &cli.BoolFlag{Name: "one-file-system", Usage: "of a DIR, leave directories empty on which other file systems are mounted"}
}

// dir are the options for reading a directory.
func (o treeOptions) dir(c console) index.DirOptions {
	return index.DirOptions{
		OneFileSystem: o.oneFileSystem,
		Note:          func(path, what string) { c.talk("%s: %s", path, what) },
	}
}
