package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

func mountCommand() *command {
	return &command{
		name: "mount", args: "NAME|DIGEST|IMAGE DIR", min: 2, max: 2,
		usage: "mount an image",
		about: aboutMount,
		flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "options", Aliases: []string{"o"}, Usage: "mount with `OPTIONS`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "mount nothing, show what would be done; with --json as a mount specification"},
			&cli.BoolFlag{Name: "foreground", Usage: "stay until a mount with a FUSE server is unmounted, and unmount it when told to end, as service managers like it"},
			&cli.StringFlag{Name: "log", Usage: "write the messages of a FUSE mount's server to `FILE`; default: the journal"},
		},
		examples: []example{
			{"as well protected as it goes here", "flatroot mount web /mnt"},
			{"all or nothing", "flatroot mount web /mnt -o verity=require,nosuid"},
			{"to try things out, and forget them", "flatroot mount web /mnt -o transient"},
			{"what a container engine would mount itself", "flatroot mount web /mnt --dry-run --json"},
			{"in fstab", "web /srv/web flatroot nodev 0 0"},
		},
		run: func(ctx context.Context, v *invocation) error {
			r, err := v.mountRequest()
			if err != nil {
				return err
			}
			return runMount(ctx, v.console, r, v.stdout)
		},
	}
}

const aboutMount = `Mounts an image on DIR and tells what is checked. The first argument is the path of an EROFS image if it begins with / or . and a digest if it is 64 or 128 hex digits, else a name in the store.

OPTIONS are those of mount(8), separated by commas, as mount.flatroot(8) lists them; a backslash takes the next character as it is.

verity=auto (the default) checks all that kernel and file systems can; verity=require, or just verity, wants image and objects checked whenever they are read, and mounts nothing otherwise; verity=off leaves it at the image's digest, which is always checked if it is known.

mode=native is the kernel's EROFS and overlayfs; mode=hybrid has a FUSE server for names and attributes, and overlayfs for content; mode=fuse a FUSE server for all of it. mode=auto (the default) takes the first that can check what was asked for; flatroot doctor says which can be had.

Of the image the kernel checks each block (kernel), a copy in sealed memory was checked (sealed), the FUSE server checks each block that it uses (blocks), or the file was checked once, when it was mounted (once). Objects are checked by the kernel, by the FUSE server (user), or not at all.

A mounted image stays in its store even if its name is removed: the mount is recorded there, and gc looks at what is mounted. Of an image that is given by its path this holds if the option digest is given too, and the image is one of the store's.`

// mountRequest is what a command line asks to be mounted.
type mountRequest struct {
	spec, dir          string
	options            mount.Options
	dryRun, foreground bool
}

func (v *invocation) mountRequest() (*mountRequest, error) {
	r := &mountRequest{spec: v.Args().Get(0), dir: v.Args().Get(1), dryRun: v.Bool("dry-run"), foreground: v.Bool("foreground")}
	for _, list := range v.StringSlice("options") {
		if err := r.options.Parse(list, false); err != nil {
			return nil, v.usagef("%v", err)
		}
	}
	if log := v.String("log"); log != "" {
		r.options.Log = log
	}
	if err := r.options.Validate(); err != nil {
		return nil, v.usagef("%v", err)
	}
	return r, nil
}

func runMount(ctx context.Context, c console, m *mountRequest, stdout io.Writer) error {
	w, err := c.openSpec(m.spec, m.options)
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := w.request(m)
	if err != nil {
		return err
	}
	defer r.CloseOptions()
	l := launcher(m.options, m.foreground)
	r.Start = l.Start
	p, err := planMount(r)
	if err != nil {
		return err
	}
	if m.dryRun {
		return printPlan(stdout, p, c.json)
	}
	undo := w.record(p.Digest(), c.talk)
	if err := p.Do(ctx); err != nil {
		undo()
		return err
	}
	// Nothing of it is needed any more, and its lock would keep a collection of garbage waiting.
	if err := w.Close(); err != nil {
		return err
	}
	if err := c.reportMount(stdout, m, r, p); err != nil || !m.foreground || p.Service == nil {
		return err
	}
	err = l.Foreground(func() error { return mount.Unmount(m.dir, mount.UnmountOptions{Lazy: true}) })
	if err == nil && w.store != nil { // the session is over, so nobody uses it any more
		store.ForgetMount(w.store.Dir(), p.Digest(), mount.Mounted)
	}
	return err
}

func planMount(r mount.Request) (*mount.Plan, error) {
	f, err := mount.Probe(r)
	if err != nil {
		return nil, err
	}
	return mount.NewPlan(r, f)
}

func printPlan(w io.Writer, p *mount.Plan, asJSON bool) error {
	if asJSON {
		return printJSON(w, p)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

func (c *console) reportMount(stdout io.Writer, m *mountRequest, r mount.Request, p *mount.Plan) error {
	writable := (r.Upper != nil || r.Transient) && !r.ReadOnly
	if c.json {
		l := mount.Mount{Target: m.dir, Digest: r.ExpectDigest, Mode: p.Mode, Verification: p.Verification, ReadOnly: !writable}
		return printJSON(stdout, mountLineOf(l))
	}
	c.talk("%s is mounted on %s: %s", m.spec, m.dir, p.Verification.Explain())
	if m.options.ReadOnlyAnyway() {
		c.talk("the mount is read-only: there is no writable layer (-o upperdir= or -o transient)")
	}
	return nil
}

// mountable is an image with the places where its objects are.
type mountable struct {
	image   *os.File
	digest  fsverity.Digest // as the store says; zero for a path
	objects []*os.File
	store   *store.Store // whose lock keeps all in place until it is mounted; nil: the objects are in none that is known
	dirs    []*os.File   // objects but the store's
	closed  bool
}

// request is what is to be mounted where, and how.
func (m *mountable) request(q *mountRequest) (mount.Request, error) {
	r := mount.Request{Image: m.image, ExpectDigest: m.digest, Objects: m.objects, Target: q.dir, Verity: q.options.Policy()}
	if d := q.options.Digest; !d.IsZero() {
		if !m.digest.IsZero() && d != m.digest {
			return r, &mount.DigestError{Want: d, Got: m.digest}
		}
		r.ExpectDigest = d
	}
	return r, q.options.Apply(&r)
}

// record keeps the image and its objects from being collected while it is mounted. Where that can't be written down, as
// on a disk that is full or another user's, the mount is made nonetheless.
func (m *mountable) record(d fsverity.Digest, talk func(format string, a ...any)) (undo func()) {
	if m.store == nil || d.IsZero() {
		return func() {}
	}
	undo, err := m.store.RecordMount(d, mount.Mounted)
	if err != nil && !errors.Is(err, unix.EROFS) { // there nobody removes anything
		talk("%v; so only a flatroot gc that sees this mount spares what it needs", err)
	}
	return undo
}

// Close closes what is open; a mount needs none of it. It may be called again.
func (m *mountable) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
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
func (c console) openSpec(spec string, o mount.Options) (*mountable, error) {
	if o.Store != "" {
		c.store = o.Store
	}
	m := &mountable{}
	var err error
	if spec != "-" && isPath(spec) {
		err = m.openPath(&c, spec, o)
	} else {
		err = m.openStored(&c, spec, o)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// openPath opens an image file. Its objects are in the store, unless only other places were given. A directory with objects
// does for that; if it is a store, it is locked.
func (m *mountable) openPath(c *console, path string, o mount.Options) (err error) {
	dirs := o.Basedirs
	if o.Store != "" || len(dirs) == 0 {
		dirs = append(slices.Clip(dirs), filepath.Join(c.store, "objects"))
		m.store, _ = store.OpenToMount(c.store, store.OpenOptions{Waiting: c.tellWaiting})
	}
	if m.dirs, err = mount.OpenObjects(dirs...); err != nil {
		return err
	}
	m.objects = m.dirs
	m.image, err = mount.OpenImage(path)
	return err
}

func (m *mountable) openStored(c *console, spec string, o mount.Options) (err error) {
	if m.store, err = store.OpenToMount(c.store, store.OpenOptions{Waiting: c.tellWaiting}); err != nil {
		return c.noStore(err)
	}
	if m.dirs, err = mount.OpenObjects(o.Basedirs...); err != nil {
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
	m.objects = append(slices.Clip(m.dirs), m.store.ObjectsDir()) // not nil: it has the image
	return nil
}
