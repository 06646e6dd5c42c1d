package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// Verity says whether objects get fs-verity.
type Verity string

const (
	VerityAuto    Verity = "auto"    // where the file system can; the zero value means this too
	VerityRequire Verity = "require" // always, or there is no store
	VerityOff     Verity = "off"     // never
)

// InitOptions are the options of Init.
type InitOptions struct {
	Algorithm fsverity.Algorithm // default SHA-256
	Verity    Verity             // default auto
}

const (
	// settingsDir and verityNote are where Init remembers VerityOff, which meta.json
	// has no field for.
	settingsDir = "settings"
	verityNote  = "verity"
	// initPrefix begins the temporary name of meta.json where files can't be unnamed.
	initPrefix = ".init-"
)

func (o *InitOptions) fill() error {
	if o.Algorithm == 0 {
		o.Algorithm = fsverity.SHA256
	}
	if o.Verity == "" {
		o.Verity = VerityAuto
	}
	if o.Algorithm.Size() == 0 {
		return fmt.Errorf("unknown algorithm %v", o.Algorithm)
	}
	if !slices.Contains([]Verity{VerityAuto, VerityRequire, VerityOff}, o.Verity) {
		return fmt.Errorf("verity %q is none of auto, require, off", o.Verity)
	}
	return nil
}

// Init makes a store in the directory path, which is made too, or has to be empty.
// A store that is there already is left as it is, but for what a killed Init did
// not come to: that is success if it has the settings asked for (Verity auto takes
// what there is) and an error that says the difference if not.
func Init(path string, o InitOptions) error {
	return initWith(path, o, kernelVerity())
}

func initWith(path string, o InitOptions, kernel verityOps) error {
	if err := o.fill(); err != nil {
		return fmt.Errorf("init store %s: %w", path, err)
	}
	if err := initDir(path, o, kernel); err != nil {
		return fmt.Errorf("init store %s: %w", path, err)
	}
	return nil
}

func initDir(path string, o InitOptions, kernel verityOps) error {
	root, err := makeRoot(path)
	if err != nil {
		return err
	}
	defer root.close()
	had, _, err := loadSettings(root, kernel)
	switch {
	case err == nil:
		return keepFound(root, had, o, kernel)
	case !errors.Is(err, ErrNotStore):
		return err
	}
	if err := checkFresh(root); err != nil {
		// What is there may be the store that somebody made a moment ago.
		if had, _, again := loadSettings(root, kernel); again == nil {
			return keepFound(root, had, o, kernel)
		}
		return err
	}
	return fillRoot(root, o, kernel)
}

func makeRoot(path string) (dir, error) {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return dir{}, err
	}
	if err := os.Mkdir(path, rootMode); err != nil && !errors.Is(err, os.ErrExist) {
		return dir{}, err
	}
	return openDir(unix.AT_FDCWD, path, path)
}

// checkFresh refuses a directory that somebody uses for something else. What a
// killed Init may have left is none of that.
func checkFresh(root dir) error {
	names, err := root.names()
	if err != nil {
		return err
	}
	foreign := slices.DeleteFunc(names, func(n string) bool {
		return n == "lost+found" || n == privateDir || strings.HasPrefix(n, initPrefix) || strings.HasPrefix(n, linkPrefix)
	})
	if len(foreign) == 0 {
		return nil
	}
	return fmt.Errorf("the directory is not empty (%.80q is in it) and is no store: take another one", foreign[0])
}

// fillRoot makes meta.json last but for the empty directories: what has none is no
// store, and Init may start again.
func fillRoot(root dir, o InitOptions, kernel verityOps) error {
	// Objects hold the contents of files that were not for everybody.
	if err := unix.Fchmod(root.fd, rootMode); err != nil {
		return pathError("chmod", root.path, err)
	}
	if o.Verity == VerityOff {
		if err := writeNote(root, settingsDir, verityNote, string(VerityOff)); err != nil {
			return err
		}
	}
	err := writeMeta(root, o, kernel)
	if errors.Is(err, unix.EEXIST) { // somebody was faster
		had, _, err := loadSettings(root, kernel)
		if err != nil {
			return err
		}
		return keepFound(root, had, o, kernel)
	}
	if err != nil {
		return err
	}
	return finishRoot(root)
}

// keepFound takes a store that is there for the one asked for. Who has made it may not
// have finished, or was killed before, so this does the rest, as far as the store may
// be written.
func keepFound(root dir, had meta, o InitOptions, kernel verityOps) error {
	if err := checkSame(root, had, o, kernel); err != nil {
		return err
	}
	err := finishRoot(root)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func finishRoot(root dir) error {
	for _, name := range []string{"objects", string(Images), string(Streams)} {
		if err := root.mkdir(name); err != nil {
			return err
		}
	}
	return syncRoot(root)
}

func syncRoot(root dir) error {
	if err := retry(func() error { return unix.Syncfs(root.fd) }); err != nil {
		return pathError("sync", root.path, err)
	}
	return nil
}

func writeMeta(root dir, o InitOptions, kernel verityOps) error {
	var f facts
	t, err := root.newTmp(initPrefix, &f)
	if err != nil {
		return err
	}
	defer t.discard()
	if err := t.writeAt(encodeMeta(o.Algorithm), 0); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Fsync(t.fd) }); err != nil {
		return pathError("sync", root.join(metaName), err)
	}
	if o.Verity != VerityOff {
		if err := sealMeta(t, o, kernel); err != nil {
			return err
		}
	}
	return t.link(root, metaName)
}

func sealMeta(t *tmp, o InitOptions, kernel verityOps) error {
	if err := t.reopen(); err != nil {
		return err
	}
	err := enableWhenIdle(kernel, t.ro, o.Algorithm)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fsverity.ErrNotSupported) && o.Verity == VerityAuto:
		return nil
	case errors.Is(err, fsverity.ErrNotSupported):
		return fmt.Errorf("%w; it takes a kernel with CONFIG_FS_VERITY and btrfs, f2fs or ext4 "+
			"(`tune2fs -O verity DEVICE` switches it on there), or a store without `--verity require`", err)
	}
	return err
}

// checkSame compares a store that is there with what Init was asked for.
func checkSame(root dir, had meta, o InitOptions, kernel verityOps) error {
	if had.algorithm != o.Algorithm {
		return fmt.Errorf("it is there already, with %v, not %v", had.algorithm, o.Algorithm)
	}
	if o.Verity == VerityAuto {
		return nil
	}
	_, mode, err := loadSettings(root, kernel)
	if err == nil && mode != o.Verity {
		err = fmt.Errorf("it is there already, with verity %s, not %s", mode, o.Verity)
	}
	return err
}
