package main

import (
	"fmt"
	"slices"
	"strings"
)

const usageText = `usage: %s SPEC DIR [-sfnv] [-o OPTIONS] [-t TYPE] [-N NAMESPACE]

SPEC     an image file (begins with / or .), a digest, or a name in the store
OPTIONS  store=DIR        the store; default $FLATROOT_STORE or /var/lib/flatroot
         basedir=DIR[:DIR...]  object directories instead of a store
         digest=HEX       the fs-verity digest that the image must have
         verity[=require|auto|off]  what must be checked; default auto
         tryverity        the same as verity=auto
         mode=auto|native who serves the tree
         nosuid,nodev,noexec,ro
-s unknown options are ignored   -f nothing is mounted   -v says what is done

Exit codes: 0 mounted, 1 usage or permission, 2 system error, 32 mount failed.
`

// dialect is the tool that is asked for by argv[0].
type dialect int

const (
	flatrootDialect dialect = iota
	composefsDialect
)

// String is the name by which the tool is called.
func (d dialect) String() string {
	if d == composefsDialect {
		return "mount.composefs"
	}
	return "mount.flatroot"
}

// usageError is a mistake in the command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, a ...any) error {
	return &usageError{fmt.Sprintf(format, a...)}
}

// command is a parsed command line.
type command struct {
	dialect   dialect
	spec, dir string
	options   options
	namespace string // -N: path of a mount namespace
	sloppy    bool   // -s
	fake      bool   // -f
	verbose   bool   // -v
	help      bool
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
		case a == "--help":
			c.help = true
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
		if !slices.Contains([]string{"flatroot", "composefs"}, name) {
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
	for _, l := range optionLists {
		if err := c.options.parse(l, c.sloppy); err != nil {
			return err
		}
	}
	return nil
}
