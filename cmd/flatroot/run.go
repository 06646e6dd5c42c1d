package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/flatroot/flatroot/oci"
)

// version is set by the linker.
var version = "unknown"

// flatrootMain is the command flatroot; args has no program name.
func flatrootMain(args []string, base console) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the work in order, the second one the program.
	context.AfterFunc(ctx, stop)
	base.stdin = &cancelReader{ctx: ctx, r: base.stdin}
	err := dispatch(ctx, args, base)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	return report(base.stderr, err)
}

// report tells of an error and returns the status to exit with.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var own *statusError
	if errors.As(err, &own) {
		code = own.code
	}
	if u, ok := asUsage(err); ok {
		code = usageExit(u.command)
	}
	if own == nil || own.err != nil {
		printError(stderr, err)
	}
	return code
}

// usageExit is the status for wrong usage of a command.
func usageExit(name string) int {
	for _, c := range commands() {
		if c.name == name && c.usageExit != 0 {
			return c.usageExit
		}
	}
	return exitUsage
}

func dispatch(ctx context.Context, args []string, base console) error {
	cs := commands()
	line, err := permute(args, cs)
	switch {
	case err != nil:
		return err
	case line.help:
		return showHelp(base.stdout, line.command)
	case line.version:
		_, err := fmt.Fprintln(base.stdout, "flatroot", version)
		return err
	case line.command == nil:
		return &usageError{msg: "want a command"}
	}
	return newApp(cs, base).RunContext(ctx, line.words())
}

// printError tells of an error on one line, and of what can be done about it on another.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "flatroot: %s\n", oneLine(err.Error()))
	if h := hintOf(err); h != "" {
		fmt.Fprintf(w, "flatroot: hint: %s\n", oneLine(h))
	}
}

// oneLine keeps what others wrote, such as names in a layer, from reaching the terminal as more than text.
func oneLine(s string) string {
	return oci.Printable(strings.ReplaceAll(s, "\n", "; "), 16<<10)
}

// hintOf is the advice that an error comes with, or "".
func hintOf(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	u, ok := asUsage(err)
	switch {
	case !ok:
		return ""
	case u.hint != "":
		return u.hint
	case u.command != "":
		return "`flatroot " + u.command + " --help` tells how to use it"
	}
	return "`flatroot --help` lists commands and flags"
}
