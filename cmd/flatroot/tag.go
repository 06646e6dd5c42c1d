package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
)

func tagCommand() *command {
	return &command{
		name: "tag", args: "NAME NEW", min: 2, max: 2,
		usage: "give an image one more name",
		about: `Gives the image NAME the name NEW too. An image that had that name before loses it. If NAME is an image index, so is NEW, unless --platform says which of its images gets the name.`,
		flags: []cli.Flag{ofIndexFlag()},
		examples: []example{
			{"mount the image for another platform", "flatroot tag web web-arm64 --platform linux/arm64 && flatroot mount web-arm64 /mnt"},
			{"keep the version that runs before pulling the next", "flatroot tag web web-previous"},
		},
		run: func(_ context.Context, v *invocation) error {
			if err := checkName(v.Args().Get(1)); err != nil {
				return err
			}
			platform, err := v.platform()
			if err != nil {
				return err
			}
			return runTag(v.console, v.Args().Get(0), v.Args().Get(1), platform)
		},
	}
}

func runTag(c console, name, add string, p oci.Platform) error {
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if p != (oci.Platform{}) {
		return index.TagFor(s, name, add, p)
	}
	return index.Tag(s, name, add)
}
