package mount

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
)

// MissingError says which objects an image names that aren't there.
type MissingError struct {
	Missing []MissingObject // the first few
	Total   int             // files of the image that lack their content
}

// MissingObject is one of them.
type MissingObject struct {
	File   string          // path in the image
	Object string          // path below an object directory
	Digest fsverity.Digest // zero: the image has none for it
	Why    string          // what is wrong with the object if it is there; else empty
}

func (e *MissingError) Error() string {
	var b strings.Builder
	for i, m := range e.Missing {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q needs object %s", m.File, m.Object)
		if !m.Digest.IsZero() && m.Digest.ObjectPath() != m.Object {
			fmt.Fprintf(&b, " (digest %s)", m.Digest)
		}
		if m.Why != "" {
			b.WriteString(", which " + m.Why)
		}
	}
	if more := e.Total - len(e.Missing); more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return fmt.Sprintf("objects are missing, files without content: %d: %s", e.Total, &b)
}

// missingNamed is how many missing objects an error names.
const missingNamed = 3

// checkObjects looks for each object that the image names.
func (d *doing) checkObjects(ctx context.Context) error {
	st, err := d.image.Stat()
	if err != nil {
		return fmt.Errorf("check objects: %w", err)
	}
	m, err := erofs.Open(d.image, st.Size())
	if err != nil {
		return fmt.Errorf("check objects: %w", err)
	}
	c := &objectCheck{image: m, dirs: d.request.Objects, seen: map[erofs.Nid]bool{}}
	if err := c.walk(ctx); err != nil {
		return fmt.Errorf("check objects: %w", err)
	}
	if c.missing.Total > 0 {
		return &c.missing
	}
	return nil
}

// objectCheck walks an image's tree.
type objectCheck struct {
	image   *erofs.Image
	dirs    []*os.File
	seen    map[erofs.Nid]bool // directories; a damaged image may have loops
	queue   []foundDir
	missing MissingError
}

type foundDir struct {
	nid  erofs.Nid
	path string
}

func (c *objectCheck) walk(ctx context.Context) error {
	c.queue = []foundDir{{c.image.Root(), "/"}}
	for len(c.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		if c.seen[dir.nid] {
			continue
		}
		c.seen[dir.nid] = true
		if err := c.visitDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (c *objectCheck) visitDir(dir foundDir) error {
	i, err := c.image.Inode(dir.nid)
	if err != nil {
		return err
	}
	for e, err := range i.Dirents() {
		if err != nil {
			return fmt.Errorf("%q: %w", dir.path, err)
		}
		if err := c.visit(foundDir{e.Nid, path.Join(dir.path, e.Name)}); err != nil {
			return err
		}
	}
	return nil
}

func (c *objectCheck) visit(at foundDir) error {
	i, err := c.image.Inode(at.nid)
	if err != nil {
		return fmt.Errorf("%q: %w", at.path, err)
	}
	if i.IsDir() {
		c.queue = append(c.queue, at)
		return nil
	}
	b, backed, err := i.Backing()
	if err != nil {
		return fmt.Errorf("%q: %w", at.path, err)
	}
	if backed {
		c.look(at.path, b, int64(i.Attr().Size))
	}
	return nil
}

// look takes note if the object of file isn't there.
func (c *objectCheck) look(file string, b erofs.Backing, size int64) {
	object := string(b.Path)
	if object == "" {
		object = b.Digest.ObjectPath()
	}
	why, found := findObject(c.dirs, object, size)
	if found {
		return
	}
	if c.missing.Total++; len(c.missing.Missing) < missingNamed {
		c.missing.Missing = append(c.missing.Missing, MissingObject{file, object, b.Digest, why})
	}
}

// findObject looks for a regular file of the right size; the first directory
// that has anything by that name decides, as it does for overlayfs.
func findObject(dirs []*os.File, object string, size int64) (why string, ok bool) {
	for _, d := range dirs {
		// A path that leads out of the directory is none to overlayfs either.
		fd, err := unix.Openat2(int(d.Fd()), object, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH,
		})
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return fmt.Sprintf("can't be looked up in %s: %v", d.Name(), err), false
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		switch {
		case err != nil:
			return err.Error(), false
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			return "is no regular file in " + d.Name(), false
		case st.Size != size:
			return fmt.Sprintf("has %d bytes in %s, not %d", st.Size, d.Name(), size), false
		}
		return "", true
	}
	return "", false
}
