package main

import (
	"context"
	"errors"

	"github.com/flatroot/flatroot/index"
)

func rmCommand() *command {
	return &command{
		name: "rm", args: "NAME...", min: 1, max: -1,
		usage: "take names from images",
		about: `Takes names away. An image that has no name any more, and all that only it has, stays in the store until garbage is collected, and as long as it is mounted: mounts go on. All names that are there are removed even if others are not; the exit status is 1 then.`,
		examples: []example{
			{"two names", "flatroot rm web web-previous"},
		},
		run: func(_ context.Context, v *invocation) error { return runRm(v.console, v.Args().Slice()) },
	}
}

func runRm(c console, names []string) error {
	s, err := c.openStore()
	if err != nil {
		return err
	}
	defer s.Close()
	var errs []error
	for _, n := range names {
		errs = append(errs, index.Remove(s, n))
	}
	return errors.Join(errs...)
}
