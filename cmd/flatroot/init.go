package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

func initCommand() *command {
	return &command{
		name:  "init",
		usage: "make an empty store",
		about: `Makes a store in the directory that --store, $FLATROOT_STORE or the default names. The directory is made too; if it is there already it has to be empty. A store that is there already is left as it is: that is success if it has the settings asked for.

The store is a composefs repository, which other composefs tools can work on. With --verity auto, objects get fs-verity where the file system can; with require it must, and there the kernel checks every byte of a mount; with off they never do.`,
		flags: []cli.Flag{
			hashFlag(),
			&cli.StringFlag{Name: "verity", Value: string(store.VerityAuto), Usage: "enable fs-verity on objects: `WHEN` is auto, require or off"},
		},
		examples: []example{
			{"a store in the usual place", "flatroot init"},
			{"a store elsewhere, where the kernel checks all that is read", "flatroot init --store /srv/images --verity require"},
		},
		run: func(_ context.Context, v *invocation) error {
			a, err := v.hash()
			if err != nil {
				return err
			}
			o := store.InitOptions{Algorithm: a, Verity: store.Verity(v.String("verity"))}
			switch o.Verity {
			case store.VerityAuto, store.VerityRequire, store.VerityOff:
			default:
				return v.usagef("--verity=%s: want auto, require or off", o.Verity)
			}
			return runInit(v.console, o, v.stdout)
		},
	}
}

// storeReport describes a store.
type storeReport struct {
	Store     string             `json:"store"`
	Algorithm fsverity.Algorithm `json:"algorithm"`
	Verity    store.Verity       `json:"verity"`
}

func runInit(c console, o store.InitOptions, stdout io.Writer) error {
	if err := store.Init(c.store, o); err != nil {
		return err
	}
	s, err := c.readStore()
	if err != nil {
		return err
	}
	defer s.Close()
	if c.json {
		return printJSON(stdout, storeReport{s.Dir(), s.Algorithm(), s.Verity()})
	}
	c.talk("the store is %s (%s, verity %s)", s.Dir(), s.Algorithm(), s.Verity())
	return nil
}
