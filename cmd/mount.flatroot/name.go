package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/flatroot/flatroot/fsverity"
)

// digestByName asks the store which image has the name.
func digestByName(store, name string) (fsverity.Digest, error) {
	if !fs.ValidPath(name) || name == "." {
		return fsverity.Digest{}, usagef("%q is neither a path, nor a digest, nor a possible name", name)
	}
	d, err := imageRef(store, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("no image named %s in store %s", name, store)
	}
	return d, err
}

// imageRef reads the symlink images/refs/NAME, whose last component is the
// digest of an image.
func imageRef(store, name string) (fsverity.Digest, error) {
	text, err := os.Readlink(filepath.Join(store, "images/refs", name))
	if err != nil {
		return fsverity.Digest{}, err
	}
	d, err := fsverity.ParseDigest(path.Base(text))
	if err != nil {
		return fsverity.Digest{}, fmt.Errorf("reference %s leads to %s: %w", name, text, err)
	}
	return d, nil
}
