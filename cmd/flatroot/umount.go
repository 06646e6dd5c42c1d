package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

func umountCommand() *command {
	return &command{
		name: "umount", args: "DIR...", min: 1, max: -1,
		usage: "unmount images",
		about: `Ends the topmost mount on each DIR, if it is one of an image. What else is mounted there stays, unless --force is given.

An image that has no name any more goes with the next flatroot gc after its last mount. A mount that is taken away while in use (--lazy) counts as ended then.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "lazy", Aliases: []string{"l"}, Usage: "take the mount away now, and end it when nobody uses it any more"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "unmount whatever is mounted there"},
		},
		examples: []example{{"the usual", "flatroot umount /mnt"}},
		run: func(_ context.Context, v *invocation) error {
			return runUmount(v.console, v.Args().Slice(), mount.UnmountOptions{Lazy: v.Bool("lazy"), Force: v.Bool("force")})
		},
	}
}

func runUmount(c console, dirs []string, o mount.UnmountOptions) error {
	var errs []error
	for _, d := range dirs {
		m, unknown := mount.At(d)
		err := mount.Unmount(d, o)
		errs = append(errs, err)
		// What is unmounted lazily may be in use for a while.
		if err == nil && unknown == nil && !o.Lazy {
			store.ForgetMount(c.store, m.Digest, mount.Mounted)
		}
	}
	return errors.Join(errs...)
}
