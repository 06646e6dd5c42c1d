package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

func mountCommand() *command {
	return &command{
		name: "mount", args: "NAME|DIGEST|IMAGE DIR", min: 2, max: 2,
		usage: "mount an image",
		about: `Mounts an image on DIR, read-only, and tells what is checked. The first argument is the path of an EROFS image if it begins with / or . and a digest if it is 64 or 128 hex digits, else a name in the store.

OPTIONS are separated by commas; a backslash takes the next character as it is:

verity=auto (the default) checks all that kernel and file systems can; verity=require, or just verity, wants image and objects checked by the kernel whenever they are read, and mounts nothing otherwise; verity=off leaves it at the image's digest, which is always checked if it is known.

digest=HEX says which digest the image must have. mode=native wants the kernel's EROFS and overlayfs. basedir=DIR[:DIR...] looks for objects there first. nosuid, nodev and noexec are those of mount(8), which calls mount.flatroot(8) with the same options.

Of the image the kernel checks each block (kernel), a copy in sealed memory was checked (sealed), or the file was checked once, when it was mounted (once). Objects are checked by the kernel or not at all.`,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "options", Aliases: []string{"o"}, Usage: "mount with `OPTIONS`"},
		},
		examples: []example{
			{"as well protected as it goes here", "flatroot mount web /mnt"},
			{"all or nothing", "flatroot mount web /mnt -o verity=require,nosuid"},
			{"in fstab", "web /srv/web flatroot nodev 0 0"},
		},
		run: func(ctx context.Context, v *invocation) error {
			o, err := parseMountOptions(strings.Join(v.StringSlice("options"), ","))
			if err != nil {
				return v.usagef("%v", err)
			}
			return runMount(ctx, v.console, v.Args().Get(0), v.Args().Get(1), o, v.stdout)
		},
	}
}

// mountOptions is what -o can say.
type mountOptions struct {
	request mount.Request // policy, mode, flags and expected digest
	basedir []string
}

func parseMountOptions(list string) (o mountOptions, err error) {
	for _, item := range splitOptions(list) {
		name, value, given := strings.Cut(item, "=")
		if err := o.set(name, value, given); err != nil {
			return o, err
		}
	}
	return o, nil
}

// splitOptions cuts at commas that no backslash precedes, and removes backslashes.
func splitOptions(list string) []string {
	var items []string
	var item strings.Builder
	end := func() {
		if item.Len() > 0 {
			items = append(items, item.String())
		}
		item.Reset()
	}
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list):
			i++
			item.WriteByte(list[i])
		case list[i] == ',':
			end()
		default:
			item.WriteByte(list[i])
		}
	}
	end()
	return items
}

func (o *mountOptions) set(name, value string, given bool) (err error) {
	flags := map[string]*bool{"nosuid": &o.request.NoSuid, "nodev": &o.request.NoDev, "noexec": &o.request.NoExec}
	values := map[string]func(string) error{
		"verity": func(s string) (err error) { o.request.Verity, err = mount.ParsePolicy(s); return err },
		"mode":   func(s string) (err error) { o.request.Mode, err = mount.ParseMode(s); return err },
		"digest": func(s string) (err error) { o.request.ExpectDigest, err = fsverity.ParseDigest(s); return err },
		"basedir": func(s string) error {
			o.basedir = append(o.basedir, strings.Split(s, ":")...)
			return nil
		},
	}
	flag, isFlag := flags[name]
	set, isValue := values[name]
	switch {
	case isFlag && given:
		return fmt.Errorf("option %s takes no value", name)
	case isFlag:
		*flag = true
		return nil
	case isValue && value == "" && (given || name != "verity"):
		return fmt.Errorf("option %s needs a value", name)
	case isValue:
		return set(value)
	case name == "ro" || name == "defaults":
		return nil
	}
	known := []string{"ro", "defaults", "verity", "mode", "digest", "basedir", "nosuid", "nodev", "noexec"}
	if n := nearest(name, known); n != "" {
		return fmt.Errorf("there is no option %q; did you mean %s?", name, n)
	}
	return fmt.Errorf("there is no option %q", name)
}

func runMount(ctx context.Context, c console, spec, dir string, o mountOptions, stdout io.Writer) error {
	w, err := c.openSpec(spec, o.basedir)
	if err != nil {
		return err
	}
	defer w.Close()
	r := o.request
	if !w.digest.IsZero() {
		if !r.ExpectDigest.IsZero() && r.ExpectDigest != w.digest {
			return &mount.DigestError{Want: r.ExpectDigest, Got: w.digest}
		}
		r.ExpectDigest = w.digest
	}
	r.Image, r.Objects, r.Target = w.image, w.objects, dir
	f, err := mount.Probe(r)
	if err != nil {
		return err
	}
	p, err := mount.NewPlan(r, f)
	if err != nil {
		return err
	}
	if err := p.Do(ctx); err != nil {
		return err
	}
	if c.json {
		m := mount.Mount{Target: dir, Digest: r.ExpectDigest, Mode: p.Mode, Verification: p.Verification}
		return printJSON(stdout, mountLineOf(m))
	}
	c.talk("%s is mounted on %s: %s", spec, dir, p.Verification.Explain())
	return nil
}

// mountable is an image with the places where its objects are.
type mountable struct {
	image   *os.File
	digest  fsverity.Digest // as the store says; zero for a path
	objects []*os.File
	store   *store.Store // whose lock keeps all in place until it is mounted; nil for a path
	dirs    []*os.File   // objects but the store's
}

// Close closes what is open; a mount needs none of it.
func (m *mountable) Close() error {
	var errs []error
	if m.image != nil {
		errs = append(errs, m.image.Close())
	}
	for _, d := range m.dirs {
		errs = append(errs, d.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// openSpec opens what a SPEC stands for: a path, a digest or a name.
func (c *console) openSpec(spec string, basedir []string) (*mountable, error) {
	m := &mountable{}
	var err error
	if m.dirs, err = mount.OpenObjects(basedir...); err != nil {
		return nil, err
	}
	m.objects = append(m.objects, m.dirs...)
	if spec != "-" && isPath(spec) {
		err = m.openPath(c, spec)
	} else {
		err = m.openStored(c, spec)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// openPath opens an image file. Its objects are in the store, unless other places were given.
func (m *mountable) openPath(c *console, path string) (err error) {
	if m.image, err = mount.OpenImage(path); err != nil || len(m.objects) > 0 {
		return err
	}
	m.dirs, err = mount.OpenObjects(filepath.Join(c.store, "objects"))
	m.objects = m.dirs
	return err
}

func (m *mountable) openStored(c *console, spec string) (err error) {
	if m.store, err = c.readStore(); err != nil {
		return err
	}
	d, isDigest := asDigest(spec)
	if !isDigest {
		i, err := index.Find(m.store, spec)
		if err != nil {
			return err
		}
		d = i.Image
	}
	m.digest = d
	if m.image, err = openStored(m.store, d); err != nil {
		return err
	}
	m.objects = append(m.objects, m.store.ObjectsDir()) // not nil: it has the image
	return nil
}
