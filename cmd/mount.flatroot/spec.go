package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
)

// wanted is what a SPEC and its options lead to, opened.
type wanted struct {
	image   *os.File
	digest  fsverity.Digest // zero: none expected
	objects []*os.File
	closers []io.Closer  // all of the above, and the store with its lock
	store   *store.Store // nil: the objects are in none that is known
}

func (w *wanted) Close() {
	for _, c := range w.closers {
		c.Close()
	}
	w.closers = nil
}

// record keeps the image and its objects from being collected while it is mounted. Where
// that can't be written down, as while a machine starts, the mount is made nonetheless.
func (w *wanted) record(d fsverity.Digest, say func(string)) (undo func()) {
	if w.store == nil || d.IsZero() {
		return func() {}
	}
	undo, err := w.store.RecordMount(d, mount.Mounted)
	if err != nil && !errors.Is(err, unix.EROFS) { // there nobody removes anything
		say(fmt.Sprintf("%v; so only a flatroot gc that sees this mount spares what it needs", err))
	}
	return undo
}

// request is what the options make of it. What they name is the request's to
// close, the rest w's.
func (w *wanted) request(c *command) (mount.Request, error) {
	r := mount.Request{Image: w.image, ExpectDigest: w.digest, Objects: w.objects, Target: c.dir, Verity: c.options.Policy()}
	if c.dialect == composefsDialect && c.isPath() { // names are our addition, and in our words
		r.Verity = c.options.ComposefsPolicy(w.digest)
	}
	return r, c.options.Apply(&r)
}

// resolve finds and opens image and object directories. Those of basedir are
// searched first, then the store's. waiting is told when a store is locked.
func resolve(c *command, waiting func(who string)) (*wanted, error) {
	o := &c.options
	if c.dialect == composefsDialect && o.Store == "" && len(o.Basedirs) == 0 {
		return nil, usagef("no object directories given: option basedir is needed")
	}
	w := &wanted{digest: o.Digest}
	var err error
	if c.isPath() {
		err = w.openPath(c, waiting)
	} else {
		err = w.openStored(c, waiting)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// isPath tells the kinds of SPEC apart, as all of flatroot does.
func (c *command) isPath() bool {
	if c.dialect == composefsDialect && c.options.Store == "" {
		return true
	}
	return strings.HasPrefix(c.spec, "/") || strings.HasPrefix(c.spec, ".")
}

// openPath takes the image from a file. A store is but a place with objects then, which
// any directory with objects can be; if it is a store, it is locked.
func (w *wanted) openPath(c *command, waiting func(who string)) error {
	dirs := c.options.Basedirs
	if c.options.Store != "" || len(dirs) == 0 {
		dir := storeDir(c.options.Store)
		dirs = append(dirs, filepath.Join(dir, "objects"))
		_ = w.openStore(dir, waiting)
	}
	if err := w.addObjects(dirs); err != nil {
		return err
	}
	image, err := mount.OpenImage(c.spec)
	if err != nil {
		return err
	}
	w.setImage(image)
	return nil
}

func (w *wanted) addObjects(paths []string) error {
	dirs, err := mount.OpenObjects(paths...)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		w.objects = append(w.objects, d)
		w.closers = append(w.closers, d)
	}
	return nil
}

func (w *wanted) setImage(f *os.File) {
	w.image = f
	w.closers = append(w.closers, f)
}

// expect takes the digest that SPEC or the store says; one given by option must
// be the same.
func (w *wanted) expect(d fsverity.Digest) error {
	if !w.digest.IsZero() && w.digest != d {
		return fmt.Errorf("option digest: %w", &mount.DigestError{Want: w.digest, Got: d})
	}
	w.digest = d
	return nil
}

// storeDir is the store's place: as given, or where it is when nobody says.
func storeDir(given string) string {
	if given != "" {
		return given
	}
	if s := os.Getenv("FLATROOT_STORE"); s != "" {
		return s
	}
	if os.Geteuid() == 0 {
		return "/var/lib/flatroot"
	}
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "flatroot")
	}
	return filepath.Join(os.Getenv("HOME"), ".local/share/flatroot")
}
