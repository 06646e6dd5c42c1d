package main

import (
	"errors"
	"fmt"
	"io/fs"
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
}

func (w *wanted) Close() {
	w.image.Close()
	for _, o := range w.objects {
		o.Close()
	}
}

func (w *wanted) request(c *command) mount.Request {
	return mount.Request{
		Image:        w.image,
		ExpectDigest: w.digest,
		Objects:      w.objects,
		Target:       c.dir,
		Verity:       c.options.policy(c.dialect, w.digest),
		Mode:         c.options.mode,
		NoSuid:       c.options.noSuid,
		NoDev:        c.options.noDev,
		NoExec:       c.options.noExec,
	}
}

// resolve finds and opens image and object directories.
func resolve(c *command) (*wanted, error) {
	if c.dialect == composefsDialect && c.options.store == "" && len(c.options.basedirs) == 0 {
		return nil, usagef("no object directories given: option basedir is needed")
	}
	p, err := locate(c)
	if err != nil {
		return nil, err
	}
	if !c.options.digest.IsZero() && !p.digest.IsZero() && c.options.digest != p.digest {
		return nil, &mount.DigestError{Want: c.options.digest, Got: p.digest}
	}
	w := &wanted{digest: p.digest}
	if w.digest.IsZero() {
		w.digest = c.options.digest
	}
	if w.objects, err = mount.OpenObjects(p.objects...); err != nil {
		return nil, err
	}
	if w.image, err = mount.OpenImage(p.image); err != nil {
		for _, o := range w.objects {
			o.Close()
		}
		return nil, p.explain(err)
	}
	return w, nil
}

// place is where a SPEC's image is.
type place struct {
	image   string
	digest  fsverity.Digest // as SPEC or the store says; zero for a path
	objects []string
	store   string // the store that it was looked for in; empty for a path
}

func (p *place) explain(err error) error {
	if p.store != "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no image %s in store %s: %w", p.digest, p.store, fs.ErrNotExist)
	}
	return err
}

// locate tells the three kinds of SPEC apart. Object directories are those of
// basedir, then the store's if the store is given or has the image.
func locate(c *command) (*place, error) {
	o := &c.options
	store := o.store
	if store == "" {
		store = defaultStore()
	}
	p := &place{objects: o.basedirs}
	isPath := strings.HasPrefix(c.spec, "/") || strings.HasPrefix(c.spec, ".")
	if isPath || (c.dialect == composefsDialect && o.store == "") {
		p.image = c.spec
		if o.store == "" && len(o.basedirs) > 0 {
			return p, nil
		}
		p.objects = append(p.objects, filepath.Join(store, "objects"))
		return p, nil
	}
	d, err := specDigest(store, c.spec)
	if err != nil {
		return nil, err
	}
	p.digest, p.store = d, store
	p.image = filepath.Join(store, "images", d.String())
	p.objects = append(p.objects, filepath.Join(store, "objects"))
	return p, nil
}

// specDigest is the digest that a SPEC, which is no path, stands for.
func specDigest(store, spec string) (fsverity.Digest, error) {
	if n := len(spec); n == 64 || n == 128 {
		if d, err := fsverity.ParseDigest(spec); err == nil {
			return d, nil
		}
	}
	return digestByName(store, spec)
}

// defaultStore is where the store is when nobody says.
func defaultStore() string {
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
