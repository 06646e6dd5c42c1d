package main

import (
	"context"

	"github.com/flatroot/flatroot/index"
)

func tagCommand() *command {
	return &command{
		name: "tag", args: "NAME NEW", min: 2, max: 2,
		usage: "give an image one more name",
		about: `Gives the image NAME the name NEW too. An image that had that name before loses it.`,
		examples: []example{
			{"keep the version that runs before pulling the next", "flatroot tag web web-previous"},
		},
		run: func(_ context.Context, v *invocation) error {
			if err := checkName(v.Args().Get(1)); err != nil {
				return err
			}
			return runTag(v.console, v.Args().Get(0), v.Args().Get(1))
		},
	}
}

func runTag(c console, name, add string) error {
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	return index.Tag(s, name, add)
}
