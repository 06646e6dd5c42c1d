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

// TestHostileImages mounts images that have the digest asked for, but that flatroot doesn't make: what they name without a
// digest, or outside the objects, can't be read where all has to be verified.
func TestHostileImages(t *testing.T) {
	needGuest(t)
	object := big["dir/small"]
	d := fsverity.Sum(fsverity.SHA256, object)
	dir := t.TempDir()
	objects := filepath.Join(dir, "objects")
	must(t, os.MkdirAll(filepath.Join(objects, d.ObjectPath()[:2]), 0o755))
	plant(t, filepath.Join(objects, d.ObjectPath()), object, fsverity.SHA256)
	plant(t, filepath.Join(dir, "outside"), object, fsverity.SHA256)
	must(t, os.Symlink(d.ObjectPath(), filepath.Join(objects, "symlink")))

	for _, row := range []struct {
		name, payload string
		digest        fsverity.Digest
		errno         unix.Errno // 0: it can be read
	}{
		{"right", d.ObjectPath(), d, 0},
		{"no digest", d.ObjectPath(), fsverity.Digest{}, unix.EIO},
		{"other digest", d.ObjectPath(), fsverity.Sum(fsverity.SHA256, nil), unix.EIO},
		{"path with ..", "../outside", d, unix.EXDEV},
		{"path with .. inside", d.ObjectPath()[:2] + "/../../outside", d, unix.EXDEV},
		{"no such object", "00/11", d, unix.ENOENT},
		{"symlink to an object", "symlink", d, unix.ENOENT},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			digest := hostileImage(t, path, row.payload, row.digest, len(object))
			target := t.TempDir()
			flatroot(t, "mount", path, target, "-o", "verity=require,digest="+digest.String()+",basedir="+objects)
			defer flatroot(t, "umount", target)
			b, err := os.ReadFile(filepath.Join(target, "file"))
			switch {
			case row.errno != 0 && !errors.Is(err, row.errno):
				t.Errorf("reading %d bytes: %v, want %v", len(b), err, row.errno)
			case row.errno == 0 && (err != nil || !bytes.Equal(b, object)):
				t.Errorf("reading %d bytes: %v", len(b), err)
			}
		})
	}
}

// hostileImage writes an image of one file with this object path and digest, with fs-verity.
func hostileImage(t *testing.T, path, payload string, d fsverity.Digest, size int) fsverity.Digest {
	t.Helper()
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	n, err := tr.Add(tree.Root, []byte("file"), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(size)})
	must(t, err)
	if !d.IsZero() {
		must(t, tr.SetDigest(n, d))
	}
	must(t, tr.SetPayload(n, []byte(payload)))
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	plant(t, path, b.Bytes(), fsverity.SHA256)
	return sum.Digest
}
