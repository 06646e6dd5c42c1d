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

// hostile is a file of an image that flatroot wouldn't make.
type hostile struct {
	name    string
	payload string          // the object's path, as the image has it
	digest  fsverity.Digest // zero: the image has none
	size    int             // 0: the object's

	overlay, server unix.Errno // as in tampering
}

// content is what the object of hostile files holds, and right its digest.
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
	{name: "no such object", payload: "00/11", digest: right, overlay: unix.ENOENT, server: unix.EIO},
	{name: "path from the root", payload: "/" + right.ObjectPath(), digest: right, overlay: unix.EINVAL, server: unix.EIO},
	{name: "directory", payload: right.ObjectPath()[:2], digest: right, overlay: unix.ENOENT, server: unix.EIO},
	{name: "fifo", payload: "fifo", digest: right, overlay: unix.ENOENT, server: unix.EIO},
	// To overlayfs the digest is that of all there is.
	{name: "shorter than the object", payload: right.ObjectPath(), digest: right, size: len(content) - 1, server: unix.EIO},
	{name: "longer than the object", payload: right.ObjectPath(), digest: right, size: len(content) + 1, server: unix.EIO},
	{name: "symlink to an object", payload: "symlink", digest: right, overlay: unix.ENOENT, server: unix.EIO},
}

// TestHostileImages mounts an image that has the digest asked for, but that flatroot doesn't make: what it names without a
// digest, or outside the objects, can't be read where all has to be verified.
func TestHostileImages(t *testing.T) {
	needGuest(t)
	b, digest := hostileImage(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			at, _ := d.mount(t)
			v := victim{disk: d, dir: filepath.Join(at, "hostile"), digest: right}
			defer os.RemoveAll(v.dir)
			v.plantHostile(t, b)
			d.each(t, func(t *testing.T, w way) {
				target := t.TempDir()
				must(t, w.tryMountPath(filepath.Join(v.dir, "image"), digest.String(), v.objects(), target))
				defer unmount(t, target)
				for _, row := range hostiles {
					row.check(t, w, target)
				}
			})
		})
	}
}

// plantHostile makes what the image wants to lead to.
func (v *victim) plantHostile(t *testing.T, image []byte) {
	t.Helper()
	v.plant(t, filepath.Join(v.dir, "image"), image)
	v.plant(t, v.path(right), content)
	v.plant(t, filepath.Join(v.dir, "outside"), content)
	must(t, os.Symlink(right.ObjectPath(), filepath.Join(v.objects(), "symlink")))
	must(t, unix.Mkfifo(filepath.Join(v.objects(), "fifo"), 0o644))
}

func (row *hostile) check(t *testing.T, w way, target string) {
	t.Helper()
	errno := row.server
	if w.byOverlay() {
		errno = row.overlay
	}
	b, err := os.ReadFile(filepath.Join(target, row.name))
	switch {
	case errno != 0 && !errors.Is(err, errno):
		t.Errorf("%s: reading %d bytes: %v, want %v", row.name, len(b), err, errno)
	case errno == 0 && (err != nil || !bytes.Equal(b, content)):
		t.Errorf("%s: reading %d bytes: %v", row.name, len(b), err)
	}
}

// hostileImage is an image with a file for each row.
func hostileImage(t *testing.T) ([]byte, fsverity.Digest) {
	t.Helper()
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	for _, row := range hostiles {
		size := row.size
		if size == 0 {
			size = len(content)
		}
		n, err := tr.Add(tree.Root, []byte(row.name), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(size)})
		must(t, err)
		if !row.digest.IsZero() {
			must(t, tr.SetDigest(n, row.digest))
		}
		must(t, tr.SetPayload(n, []byte(row.payload)))
	}
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	return b.Bytes(), sum.Digest
}
