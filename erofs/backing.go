package erofs

import (
	"bytes"
	"fmt"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// Backing says where the data of a backed file is.
type Backing struct {
	Digest fsverity.Digest // of the object; zero: the image does not say it
	Path   []byte          // of the object, below an object directory, without leading slash; empty: not said
}

// Backing tells whether the inode is a backed file of a composefs image, and then where its data is. It doesn't allocate
// for an image in memory.
func (i *Inode) Backing() (b Backing, ok bool, err error) {
	if !i.img.composefs() || !i.isRegular() {
		return Backing{}, false, nil
	}
	var o overlay
	err = i.eachXattr(func(e xattrEntry) (bool, error) {
		if e.prefix != trustedPrefix {
			return true, nil
		}
		_, err := o.take(e.rest, e.value)
		return true, err
	})
	if err == nil {
		err = o.check(i)
	}
	if err != nil {
		return Backing{}, false, fmt.Errorf("inode %d: %w", i.nid, err)
	}
	return o.backing, o.metacopy, nil
}

// overlay is what a regular file's xattrs tell overlayfs.
type overlay struct {
	metacopy, redirect bool
	backing            Backing
}

// xattrMetacopy and xattrRedirect, in two parts.
const (
	trustedPrefix = "trusted."
	restMetacopy  = "overlay.metacopy"
	restRedirect  = "overlay.redirect"
)

// take takes the two xattrs that make a backed file, and tells whether it was one. It keeps a view of the value.
func (o *overlay) take(rest, value []byte) (taken bool, err error) {
	switch string(rest) {
	case restMetacopy:
		o.metacopy = true
		o.backing.Digest, err = parseMetacopy(value)
		return true, err
	case restRedirect:
		o.redirect = true
		if len(value) == 0 || value[0] != '/' || len(value) > tree.TargetMax+1 || bytes.IndexByte(value, 0) >= 0 {
			return true, corrupt("redirect to %.80q", bytes.Clone(value))
		}
		o.backing.Path = value[1:]
		return true, nil
	}
	return false, nil
}

// check compares the xattrs with where the inode says its data is.
func (o *overlay) check(i *Inode) error {
	chunks := i.layout == disk.ChunkBased
	switch {
	case o.redirect && !o.metacopy:
		return corrupt("a redirect without metacopy")
	case o.metacopy && !chunks:
		return corrupt("metacopy on a file whose data is in the image")
	case chunks && !o.metacopy:
		return corrupt("a file without data and without metacopy")
	}
	return nil
}

// parseMetacopy reads the value of an overlayfs metacopy xattr (struct ovl_metacopy): version 0, the length of all, no
// flags, the fs-verity algorithm, the digest. An empty value is one without a digest.
func parseMetacopy(v []byte) (fsverity.Digest, error) {
	if len(v) == 0 {
		return fsverity.Digest{}, nil
	}
	const head = 4
	if len(v) <= head || v[0] != 0 || int(v[1]) != len(v) || v[2] != 0 {
		return fsverity.Digest{}, corrupt("metacopy value %.80x", v)
	}
	d, err := fsverity.NewDigest(fsverity.Algorithm(v[3]), v[head:])
	if err != nil {
		return fsverity.Digest{}, corrupt("metacopy value: %w", err)
	}
	return d, nil
}
