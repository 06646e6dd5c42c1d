package main

import (
	"io"
	"path/filepath"
	"strings"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

const umountUsage = `usage: umount.flatroot DIR [-flnrv] [-N NAMESPACE] [-t TYPE]

-l takes the mount away now and ends it when nobody uses it any more
-f unmounts whatever is mounted there

Exit codes: 0 unmounted, 1 usage or permission, 32 not unmounted.
`

// umountCommand is a parsed command line of umount.flatroot.
type umountCommand struct {
	dir       string
	options   mount.UnmountOptions
	namespace string
	help      bool
}

// umountMain ends a mount for umount(8), which unmounts itself what it can, and
// for people who may not but have fusermount3.
func umountMain(args []string, stdout io.Writer) error {
	c, err := parseUmount(args)
	if err != nil {
		return err
	}
	if c.help {
		_, err := io.WriteString(stdout, umountUsage)
		return err
	}
	if c.namespace != "" {
		// A record stays: the other namespace may have other stores.
		if c.dir, err = filepath.Abs(c.dir); err != nil {
			return err
		}
		if err := enterNamespace(c.namespace); err != nil {
			return err
		}
		return mount.Unmount(c.dir, c.options)
	}
	m, unknown := mount.At(c.dir)
	if err := mount.Unmount(c.dir, c.options); err != nil {
		return err
	}
	if unknown == nil && !c.options.Lazy { // what is unmounted lazily may be in use for a while
		store.ForgetMount(storeDir(""), m.Digest, mount.Mounted)
	}
	return nil
}

// parseUmount reads arguments as umount(8) passes them: DIR and flags.
func parseUmount(args []string) (*umountCommand, error) {
	c := &umountCommand{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		var err error
		switch {
		case a == "--help":
			c.help = true
		case strings.HasPrefix(a, "--"):
			return nil, usagef("unknown flag %s; see --help", a)
		case len(a) > 1 && a[0] == '-':
			args, err = c.parseFlags(a[1:], args)
		case c.dir != "":
			return nil, usagef("one argument too many: %q; see --help", a)
		default:
			c.dir = a
		}
		if err != nil {
			return nil, err
		}
	}
	if c.dir == "" && !c.help {
		return nil, usagef("no directory given to unmount; see --help")
	}
	return c, nil
}

func (c *umountCommand) parseFlags(cluster string, rest []string) ([]string, error) {
	for i, f := range cluster {
		switch f {
		case 'f':
			c.options.Force = true
		case 'l':
			c.options.Lazy = true
		case 'h':
			c.help = true
		case 'n', 'r', 'v': // no mtab is written, there is nothing to write back, nor to say
		case 'N', 't':
			value := cluster[i+1:]
			if value == "" {
				if len(rest) == 0 {
					return nil, usagef("-%c needs a value", f)
				}
				value, rest = rest[0], rest[1:]
			}
			if f == 'N' {
				c.namespace = value
			}
			return rest, nil
		default:
			return nil, usagef("unknown flag -%c; see --help", f)
		}
	}
	return rest, nil
}
