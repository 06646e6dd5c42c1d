package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/mount"
)

// usage is the text of --help.
func usage(d dialect) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE] [-N NAMESPACE] [--dry-run] [--json] [--foreground]\n\n", d)
	if d == composefsDialect {
		b.WriteString("SPEC is an image file, or with the option store also a digest or a name in the store.\n")
	} else {
		b.WriteString("SPEC is an image file (begins with / or .), a digest, or a name in the store.\n")
	}
	b.WriteString("OPTIONS are separated by commas; a backslash takes the next character as it is:\n\n")
	for _, o := range mount.OptionDocs() {
		fmt.Fprintf(&b, "  %-29s %s\n", o.Form, o.Text)
	}
	b.WriteString(`
-s            ignore unknown options
-f, --dry-run mount nothing; with -v say what would be done, with --json print it as a mount specification
-v            say what is done
-N NAMESPACE  mount in this mount namespace
--foreground  serve a FUSE mount until it is unmounted

Exit codes: 0 mounted, 1 usage or permission, 2 system error, 32 mount failed`)
	if d == composefsDialect {
		b.WriteString("; as mount.composefs 1 for all of these")
	}
	b.WriteString(".\n")
	return b.String()
}

// dialect is the tool that is asked for by argv[0].
type dialect int

const (
	flatrootDialect dialect = iota
	composefsDialect
	umountDialect
)

// String is the name by which the tool is called.
func (d dialect) String() string {
	switch d {
	case composefsDialect:
		return "mount.composefs"
	case umountDialect:
		return "umount.flatroot"
	}
	return "mount.flatroot"
}

// dialectOf tells the tool from argv[0]. umount(8) looks for a helper by the
// type that the kernel shows, umount.fuse.flatroot for a mount served by FUSE.
func dialectOf(arg0 string) dialect {
	name := filepath.Base(arg0)
	switch {
	case name == composefsDialect.String():
		return composefsDialect
	case strings.HasPrefix(name, "umount."):
		return umountDialect
	}
	return flatrootDialect
}

// usageError is a mistake in the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, a ...any) error {
	return &usageError{fmt.Sprintf(format, a...)}
}

// command is a parsed command line.
type command struct {
	dialect    dialect
	spec, dir  string
	options    mount.Options
	namespace  string // -N: path of a mount namespace
	sloppy     bool   // -s
	fake       bool   // -f, --dry-run
	verbose    bool   // -v
	json       bool   // --json
	foreground bool   // --foreground
	help       bool
}

// parseArgs reads arguments as mount(8) passes them to helpers: flags may stand
// before, between or after SPEC and DIR, and be written together.
func parseArgs(args []string, d dialect) (*command, error) {
	c := &command{dialect: d}
	var positional, optionLists []string
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			positional = append(positional, args...)
			args = nil
		case strings.HasPrefix(a, "--"):
			if err := c.setWord(a[2:]); err != nil {
				return nil, err
			}
		case len(a) > 1 && a[0] == '-':
			var err error
			if args, err = c.parseFlags(a[1:], args, &optionLists); err != nil {
				return nil, err
			}
		default:
			positional = append(positional, a)
		}
	}
	if c.help {
		return c, nil
	}
	return c, c.finish(positional, optionLists)
}

// setWord reads a long flag. mount(8) passes none of them.
func (c *command) setWord(name string) error {
	words := map[string]*bool{
		"help": &c.help, "dry-run": &c.fake, "json": &c.json,
		"foreground": &c.foreground, "verbose": &c.verbose, "sloppy": &c.sloppy,
	}
	if w := words[name]; w != nil {
		*w = true
		return nil
	}
	if n := mount.Nearest(name, slices.Collect(maps.Keys(words))); n != "" {
		return usagef("unknown flag --%s; did you mean --%s?", name, n)
	}
	return usagef("unknown flag --%s; see --help", name)
}

// parseFlags reads one cluster of flags and returns the arguments after it.
func (c *command) parseFlags(cluster string, rest []string, optionLists *[]string) ([]string, error) {
	for i, f := range cluster {
		switch f {
		case 's':
			c.sloppy = true
		case 'f':
			c.fake = true
		case 'v':
			c.verbose = true
		case 'n': // no mtab is written anyway
		case 'h':
			c.help = true
		case 'o', 't', 'N':
			value := cluster[i+1:]
			if value == "" {
				if len(rest) == 0 {
					return nil, usagef("-%c needs a value", f)
				}
				value, rest = rest[0], rest[1:]
			}
			return rest, c.setFlag(f, value, optionLists)
		default:
			return nil, usagef("unknown flag -%c; see --help", f)
		}
	}
	return rest, nil
}

func (c *command) setFlag(f rune, value string, optionLists *[]string) error {
	switch f {
	case 'o':
		*optionLists = append(*optionLists, value)
	case 'N':
		c.namespace = value
	case 't':
		// mount(8) passes TYPE.SUBTYPE when fstab has a subtype, which says no more.
		name, _, _ := strings.Cut(value, ".")
		if !slices.Contains([]string{"flatroot", "composefs", "fuse"}, name) {
			return usagef("unknown type %q: want flatroot or composefs", value)
		}
	}
	return nil
}

func (c *command) finish(positional, optionLists []string) error {
	switch len(positional) {
	case 0:
		return usagef("no image and no directory to mount on given; see --help")
	case 1:
		return usagef("no directory to mount %s on given; see --help", positional[0])
	case 2:
		c.spec, c.dir = positional[0], positional[1]
	default:
		return usagef("one argument too many: %q; see --help", positional[2])
	}
	if c.spec == "" {
		return usagef("no image given: the first argument is empty")
	}
	if c.json && !c.fake {
		return usagef("--json prints the plan: give --dry-run with it")
	}
	for _, l := range optionLists {
		if err := c.options.Parse(l, c.sloppy); err != nil {
			return err
		}
	}
	return c.options.Validate()
}
