package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/fsck"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

func gcCommand() *command {
	return &command{
		name: "gc", max: 0,
		usage: "remove what no image needs any more",
		about: `Removes what has lost its names since: images, their layers, and the files that no other image has. Images that have names or are mounted stay, as does all that they share with others.

The work follows what is removed, not what is stored: only what removed images referred to is looked at. A command that was killed while it wrote may have left files that nothing refers to; the next gc then looks at all files once. --full always does.

Commands that are at work are waited for. If anything can't be read that says what is needed, nothing is removed.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "remove nothing; tell what would be removed"},
			&cli.BoolFlag{Name: "full", Usage: "look at all files in the store"},
		},
		examples: []example{
			{"remove an image and what only it needs", "flatroot rm web && flatroot gc"},
			{"how much that would free", "flatroot gc --dry-run --json | jq .removed.bytes"},
		},
		run: func(ctx context.Context, v *invocation) error {
			return runGC(ctx, v.console, store.GCOptions{DryRun: v.Bool("dry-run"), Full: v.Bool("full")}, v.stdout)
		},
	}
}

func runGC(ctx context.Context, c console, o store.GCOptions, stdout io.Writer) error {
	open := c.openStore
	if o.DryRun {
		open = c.readStore
	}
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close()
	o.Tracers, o.Waiting = fsck.Tracers(), c.tellWaiting
	o.Mounted = mount.Mounted
	o.BootID, _ = store.BootID() // without it all records of mounts stay, as in some containers
	o.Prune = func(gone func(string) bool, dry bool) (int, error) { return index.PruneNotes(s, gone, dry) }
	r, err := s.GC(ctx, o)
	if err != nil {
		return err
	}
	c.tellStaying(r)
	if c.json {
		return printJSON(stdout, r)
	}
	return c.printGC(stdout, r)
}

// maxTold is how many things that stay are told one by one.
const maxTold = 10

// tellStaying says what stays though no image needs it.
func (c *console) tellStaying(r store.GCReport) {
	for i, err := range r.Unreadable {
		if i == maxTold {
			c.talk("and %d more that can't be read", len(r.Unreadable)-i)
			break
		}
		c.talk("%v: it has no name any more, but can't be read and stays; gc --full removes it", err)
	}
	for i, path := range r.Strange {
		if i == maxTold {
			c.talk("and %d more that are no objects", len(r.Strange)-i)
			break
		}
		c.talk("%s: it is no object and stays", path)
	}
}

func (c *console) printGC(w io.Writer, r store.GCReport) error {
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	if r.Leftovers > 0 || r.Mounts > 0 {
		c.talk("%s %s that were left over, %s of mounts that are no more",
			verb, counted(int(r.Leftovers), "name"), counted(int(r.Mounts), "record"))
	}
	_, err := fmt.Fprintf(w, "%s %s (%s), %s, %s\n", verb,
		counted(int(r.Removed.Objects), "object"), size(r.Removed.Bytes),
		counted(int(r.Removed.Streams), "stream"), counted(int(r.Removed.Images), "image"))
	return err
}
