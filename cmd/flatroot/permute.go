package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/mount"
)

// commandLine is a command line in order: cli/v2 stops looking for flags at the first argument, users don't.
type commandLine struct {
	command       *command // nil: none was given
	help, version bool
	global, own   []string // flags as --NAME or --NAME=VALUE
	args          []string
}

// words is the command line as cli/v2 reads it.
func (l *commandLine) words() []string {
	w := append([]string{"flatroot"}, l.global...)
	w = append(append(w, l.command.name), l.own...)
	return append(append(w, "--"), l.args...)
}

// permuter takes a command line apart. Which flags take a value is what the commands say; a test makes sure that all that
// have a flag of some name agree, so that a flag can be read before its command is known.
type permuter struct {
	commands []*command
	globals  []cli.Flag
	line     commandLine
	found    []foundFlag
}

type foundFlag struct {
	name, value string
	takesValue  bool
	given       bool // a value was
}

func (f foundFlag) String() string {
	if f.given {
		return dashed(f.name) + "=" + f.value
	}
	return dashed(f.name)
}

// dashed is a flag's name as one types it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// permute puts a command line, without the program's name, in order.
func permute(args []string, cs []*command) (*commandLine, error) {
	p := &permuter{commands: cs, globals: globalFlags()}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case arg == "--":
			for _, a := range args {
				if err := p.argument(a); err != nil {
					return nil, err
				}
			}
			args = nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			err = p.argument(arg)
		case strings.HasPrefix(arg, "--"):
			args, err = p.long(arg[2:], args)
		default:
			args, err = p.short(arg[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	return &p.line, p.assign()
}

// argument takes the command's name, and after it the command's arguments.
func (p *permuter) argument(arg string) error {
	if p.line.command != nil {
		p.line.args = append(p.line.args, arg)
		return nil
	}
	p.line.command = findCommand(p.commands, arg)
	if p.line.command == nil {
		return unknownCommand(p.commands, arg)
	}
	return nil
}

func findCommand(cs []*command, name string) *command {
	i := slices.IndexFunc(cs, func(c *command) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return cs[i]
}

func unknownCommand(cs []*command, name string) error {
	e := &usageError{msg: fmt.Sprintf("there is no command %q", name)}
	var names []string
	for _, c := range cs {
		if !c.hidden {
			names = append(names, c.name)
		}
	}
	if n := mount.Nearest(name, names); n != "" {
		e.hint = "did you mean " + n + "?"
	}
	return e
}

// long reads --NAME, --NAME=VALUE or --NAME VALUE.
func (p *permuter) long(text string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(text, "=")
	f := p.find(name)
	if f == nil || len(name) == 1 {
		return nil, p.unknownFlag(name, "--"+name)
	}
	return p.add(f, name, value, given, rest)
}

// short reads -X, several of them in one as -XY, and -X with its value as -XVALUE, -X=VALUE or -X VALUE.
func (p *permuter) short(text string, rest []string) ([]string, error) {
	for len(text) > 0 {
		name := text[:1]
		f := p.find(name)
		if f == nil {
			return nil, p.unknownFlag(text, "-"+text)
		}
		text = text[1:]
		if takesValue(f) {
			value, _ := strings.CutPrefix(text, "=")
			return p.add(f, name, value, text != "", rest)
		}
		if strings.HasPrefix(text, "=") {
			return p.add(f, name, text[1:], true, rest)
		}
		if _, err := p.add(f, name, "", false, nil); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (p *permuter) add(f cli.Flag, name, value string, given bool, rest []string) ([]string, error) {
	if takesValue(f) && !given {
		if len(rest) == 0 {
			return nil, p.usagef("%s needs a value", dashed(name))
		}
		value, given, rest = rest[0], true, rest[1:]
	}
	p.found = append(p.found, foundFlag{f.Names()[0], value, takesValue(f), given})
	return rest, nil
}

func (p *permuter) usagef(format string, args ...any) error {
	return &usageError{command: p.commandName(), msg: fmt.Sprintf(format, args...)}
}

func (p *permuter) commandName() string {
	if p.line.command == nil {
		return ""
	}
	return p.line.command.name
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// find looks a flag up: among the global ones, then those of the command if it is known already, then all others.
func (p *permuter) find(name string) cli.Flag {
	if f := flagNamed(p.globals, name); f != nil {
		return f
	}
	if p.line.command != nil {
		return flagNamed(p.line.command.flags, name)
	}
	for _, c := range p.commands {
		if f := flagNamed(c.flags, name); f != nil {
			return f
		}
	}
	return nil
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return flags[i]
}

// unknownFlag says that there is no such flag, and which one may be meant.
func (p *permuter) unknownFlag(name, typed string) error {
	e := &usageError{command: p.commandName(), msg: fmt.Sprintf("there is no flag %q", typed)}
	var names []string
	add := func(flags []cli.Flag) {
		for _, f := range flags {
			names = append(names, f.Names()...)
		}
	}
	add(p.globals)
	for _, c := range p.commands {
		if p.line.command == nil || p.line.command == c {
			add(c.flags)
		}
	}
	if n := mount.Nearest(name, names); n != "" {
		e.hint = "did you mean " + dashed(n) + "?"
	}
	return e
}

// assign gives each flag to flatroot or to the command, now that that is known.
func (p *permuter) assign() error {
	for _, f := range p.found {
		switch {
		case f.name == "help":
			p.line.help = true
		case f.name == "version":
			p.line.version = true
		case flagNamed(p.globals, f.name) != nil:
			p.line.global = append(p.line.global, f.String())
		case p.line.command == nil || flagNamed(p.line.command.flags, f.name) != nil:
			p.line.own = append(p.line.own, f.String())
		default:
			return p.unknownFlag(f.name, dashed(f.name))
		}
	}
	return nil
}
