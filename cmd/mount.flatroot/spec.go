package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

// wanted is what a SPEC and its options lead to, opened.
type wanted struct {
	image   *os.File
	digest  fsverity.Digest // zero: none expected
	objects []*os.File
	closers []io.Closer // all of the above, and a store's lock
	// record keeps a collection of garbage away from what is mounted; undo takes that
	// back. Nil: it is from no store.
	record func() (undo func(), err error)
}

func (w *wanted) Close() {
	for _, c := range w.closers {
		c.Close()
	}
	w.closers = nil
}

// recorded mounts with a record of it, if it is from a store.
func (w *wanted) recorded(mount func() error) error {
	if w.record == nil {
		return mount()
	}
	undo, err := w.record()
	if err != nil {
		return err
	}
	if err = mount(); err != nil {
		undo()
	}
	return err
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
		err = w.openPath(c)
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

// openPath takes the image from a file. A store is but a place with objects then.
func (w *wanted) openPath(c *command) error {
	dirs := c.options.Basedirs
	if c.options.Store != "" || len(dirs) == 0 {
		dirs = append(dirs, filepath.Join(storeDir(c.options.Store), "objects"))
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
