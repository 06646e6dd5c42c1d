package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// command is a subcommand: what cli/v2 needs to run it, and what its help and its manual page say. Both come from here.
type command struct {
	name     string
	args     string // as the synopsis has them
	usage    string // one line, lower case
	about    string // paragraphs, with an empty line between
	flags    []cli.Flag
	min, max int // number of arguments; max < 0: any
	examples []example
	exits    []exit // where they are not the usual ones
	hidden   bool
	// usageExit is the exit status of wrong usage; 0: exitUsage.
	usageExit int
	run       func(ctx context.Context, v *invocation) error
}

// example is a command line and what it is good for.
type example struct{ what, line string }

// exit is an exit status and when it comes.
type exit struct {
	code int
	when string
}

// The exit statuses of flatroot.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func usualExits() []exit {
	return []exit{{exitOK, "Done."}, {exitFailed, "Failed."}, {exitUsage, "Wrong usage."}}
}

// invocation is a command line that is carried out.
type invocation struct {
	*cli.Context // flags and arguments
	console
}

// console is what every command gets besides its own options.
type console struct {
	store          string // directory
	json           bool
	progress       progressMode
	stdin          io.Reader
	stdout, stderr io.Writer
}

// commands lists all commands, in the order of the help.
func commands() []*command {
	return []*command{
		initCommand(),
		pullCommand(),
		buildCommand(),
		pushCommand(),
		chunkCommand(),
		chunksCommand(),
		imagesCommand(),
		layersCommand(),
		inspectCommand(),
		duCommand(),
		tagCommand(),
		rmCommand(),
		gcCommand(),
		fsckCommand(),
		digestCommand(),
		dumpCommand(),
		diffCommand(),
		mountCommand(),
		umountCommand(),
		mountsCommand(),
		doctorCommand(),
		completionCommand(),
		helpCommand(),
		completeCommand(),
		manCommand(),
	}
}

// globalFlags are those of all commands.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "store", EnvVars: []string{storeVariable},
			Usage: "the store is in `DIR`; default: $" + storeVariable + ", else /var/lib/flatroot for root and $XDG_DATA_HOME/flatroot for others"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON, one object a line where there are several"},
		&cli.StringFlag{Name: "progress", Value: string(progressAuto),
			Usage: "tell on standard error how far things are: `HOW` is auto (bars on a terminal), plain or none"},
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show the help of flatroot or of the command"},
		&cli.BoolFlag{Name: "version", Usage: "show the version"},
	}
}

// usageError tells that a command line is wrong. Its exit status is 2.
type usageError struct {
	command string // empty: flatroot itself
	msg     string
	hint    string // empty: where the help is
}

func (e *usageError) Error() string {
	if e.command == "" {
		return e.msg
	}
	return e.command + ": " + e.msg
}

// usagef makes a usageError of a command's arguments.
func (v *invocation) usagef(format string, args ...any) error {
	return &usageError{command: v.Command.Name, msg: fmt.Sprintf(format, args...)}
}

// hintError is an error with advice, which is shown on a line of its own.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// statusError ends the program with a status of its own.
type statusError struct {
	code int
	err  error // nil: there is nothing more to say
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// action is the command as cli/v2 runs it.
func (c *command) action(base console) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		v := &invocation{Context: ctx, console: base}
		if err := c.checkArgs(ctx.Args().Slice()); err != nil {
			return err
		}
		if err := v.setGlobals(); err != nil {
			return err
		}
		return c.run(ctx.Context, v)
	}
}

func (c *command) checkArgs(args []string) error {
	switch n := len(args); {
	case n < c.min:
		return &usageError{command: c.name, msg: "an argument is missing: want " + c.args}
	case c.max == 0 && n > 0:
		return &usageError{command: c.name, msg: fmt.Sprintf("takes no arguments, but there is %q", args[0])}
	case c.max >= 0 && n > c.max:
		return &usageError{command: c.name, msg: fmt.Sprintf("too many arguments, from %q on: want %s", args[c.max], c.args)}
	}
	for _, a := range args {
		if a == "" && !c.hidden {
			return &usageError{command: c.name, msg: "an argument is empty: want " + c.args}
		}
	}
	return nil
}

func (v *invocation) setGlobals() (err error) {
	if v.store, err = storeDir(v.String("store")); err != nil {
		return err
	}
	v.json = v.Bool("json")
	v.progress, err = parseProgressMode(v.String("progress"))
	return err
}

// newApp makes the application of cli/v2. It is given a command line that permute has put in order, so that it finds
// neither unknown commands nor unknown flags.
func newApp(cs []*command, base console) *cli.App {
	app := &cli.App{
		Name:                      "flatroot",
		HideHelp:                  true,
		HideVersion:               true,
		Flags:                     withoutHelp(globalFlags()),
		Writer:                    base.stdout,
		ErrWriter:                 base.stderr,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              badFlag,
	}
	for _, c := range cs {
		app.Commands = append(app.Commands, &cli.Command{
			Name: c.name, Flags: c.flags, HideHelp: true, OnUsageError: badFlag, Action: c.action(base),
		})
	}
	return app
}

// withoutHelp leaves out what permute takes care of.
func withoutHelp(flags []cli.Flag) []cli.Flag {
	var kept []cli.Flag
	for _, f := range flags {
		if n := f.Names()[0]; n != "help" && n != "version" {
			kept = append(kept, f)
		}
	}
	return kept
}

// badFlag makes an error about a flag's value, in the words of package flag, one of ours.
func badFlag(c *cli.Context, err error, sub bool) error {
	e := &usageError{msg: strings.Replace(err.Error(), "for flag -", "for --", 1)}
	if c.Command != nil && sub {
		e.command = c.Command.Name
	}
	return e
}

// asUsage tells whether an error is one about usage.
func asUsage(err error) (*usageError, bool) {
	var u *usageError
	ok := errors.As(err, &u)
	return u, ok
}
