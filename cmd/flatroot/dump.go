package main

import (
	"context"
	"io"

	"github.com/flatroot/flatroot/tree/dump"
)

func dumpCommand() *command {
	return &command{
		name: "dump", args: "NAME|IMAGE|DIR", min: 1, max: 1,
		usage: "print a tree as composefs-dump text",
		about: `Prints a tree in the text form of composefs-dump(5): one line a name, with all attributes and the fs-verity digest of its content. mkcomposefs --from-file and flatroot build read it back.

` + operandHelp,
		flags: treeFlags(),
		examples: []example{
			{"the tree of an image in the store", "flatroot dump web"},
			{"of a directory, as it would be in an image", "flatroot dump ./rootfs --rules faithful-1"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o, err := treeOptionsOf(v)
			if err != nil {
				return err
			}
			return runDump(ctx, v.console, v.Args().First(), o, v.stdout)
		},
	}
}

func runDump(ctx context.Context, c console, arg string, o treeOptions, stdout io.Writer) error {
	f, err := c.find(arg, o)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := f.tree(ctx, c, o)
	if err != nil {
		return err
	}
	return dump.Write(stdout, t)
}
