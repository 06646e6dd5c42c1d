package inguest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// hostile is an image of one file that flatroot wouldn't make.
type hostile struct {
	name    string
	payload string          // the object's path, as the image has it
	digest  fsverity.Digest // zero: the image has none
	size    int             // 0: the object's

	overlay, server unix.Errno // as in tampering
}

// content is what the object of hostile images holds, and right its digest.
var (
	content = big["dir/small"]
	right   = fsverity.Sum(fsverity.SHA256, content)
)

var hostiles = []hostile{
	{name: "right", payload: right.ObjectPath(), digest: right},
	{name: "no digest", payload: right.ObjectPath(), overlay: unix.EIO, server: unix.EIO},
	{name: "other digest", payload: right.ObjectPath(), digest: fsverity.Sum(fsverity.SHA256, nil), overlay: unix.EIO, server: unix.EIO},
	{name: "path with ..", payload: "../outside", digest: right, overlay: unix.EXDEV, server: unix.EIO},
	{name: "path with .. inside", payload: right.ObjectPath()[:2] + "/../../outside", digest: right, overlay: unix.EXDEV, server: unix.EIO},
	{name: "no such object", payload: "00/11", digest: right, overlay: unix.ENOENT, server: unix.ENOENT},
	{name: "path from the root", payload: "/" + right.ObjectPath(), digest: right, overlay: unix.EINVAL, server: unix.EIO},
	{name: "directory", payload: right.ObjectPath()[:2], digest: right, overlay: unix.ENOENT, server: unix.EIO},
	{name: "fifo", payload: "fifo", digest: right, overlay: unix.ENOENT, server: unix.EIO},
	// To overlayfs the digest is that of all there is.
	{name: "shorter than the object", payload: right.ObjectPath(), digest: right, size: len(content) - 1, server: unix.EIO},
	{name: "longer than the object", payload: right.ObjectPath(), digest: right, size: len(content) + 1, server: unix.EIO},
	{name: "symlink to an object", payload: "symlink", digest: right, overlay: unix.ENOENT, server: unix.EIO},
}

// TestHostileImages mounts images that have the digest asked for, but that flatroot doesn't make: what they name without a
// digest, or outside the objects, can't be read where all has to be verified.
func TestHostileImages(t *testing.T) {
	needGuest(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		at, _ := d.mount(t)
		dir := filepath.Join(at, "hostile")
		objects := filepath.Join(dir, "objects")
		d.plantHostile(t, filepath.Join(objects, right.ObjectPath()), content)
		d.plantHostile(t, filepath.Join(dir, "outside"), content)
		must(t, os.Symlink(right.ObjectPath(), filepath.Join(objects, "symlink")))
		must(t, unix.Mkfifo(filepath.Join(objects, "fifo"), 0o644))
		for _, row := range hostiles {
			t.Run(d.name+"/"+row.name, func(t *testing.T) {
				image := filepath.Join(dir, "image")
				b, digest := row.image(t)
				d.plantHostile(t, image, b)
				d.each(t, func(t *testing.T, w way) {
					if w.required() {
						target := t.TempDir()
						must(t, w.tryMountPath(image, digest.String(), objects, target))
						defer unmount(t, target)
						row.check(t, w, target)
					}
				})
			})
		}
		must(t, os.RemoveAll(dir))
	}
}

func (d disk) plantHostile(t *testing.T, path string, content []byte) {
	t.Helper()
	v := victim{disk: d, digest: right}
	v.plant(t, path, content)
}

func (row *hostile) check(t *testing.T, w way, target string) {
	t.Helper()
	errno := row.server
	if w.byOverlay() {
		errno = row.overlay
	}
	b, err := os.ReadFile(filepath.Join(target, "file"))
	switch {
	case errno != 0 && !errors.Is(err, errno):
		t.Errorf("reading %d bytes: %v, want %v", len(b), err, errno)
	case errno == 0 && (err != nil || !bytes.Equal(b, content)):
		t.Errorf("reading %d bytes: %v", len(b), err)
	}
}

// image is the image as a file, and its digest.
func (row *hostile) image(t *testing.T) ([]byte, fsverity.Digest) {
	t.Helper()
	size := row.size
	if size == 0 {
		size = len(content)
	}
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	n, err := tr.Add(tree.Root, []byte("file"), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(size)})
	must(t, err)
	if !row.digest.IsZero() {
		must(t, tr.SetDigest(n, row.digest))
	}
	must(t, tr.SetPayload(n, []byte(row.payload)))
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	return b.Bytes(), sum.Digest
}
