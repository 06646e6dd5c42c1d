package object

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openFlags opens for reading without waiting: a pipe that has an object's name
// has no writer. What isn't regular is closed again.
const openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOCTTY | unix.O_CLOEXEC

// openHow is how overlayfs looks for a file of a data-only layer (fs/overlayfs
// namei.c, ovl_lookup_data_layer: beneath the layer, no symlink, no other mount),
// so that both kinds of mount find the same objects.
var openHow = unix.OpenHow{
	Flags: openFlags,
	Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS |
		unix.RESOLVE_NO_XDEV,
}

// open opens the object by name in the first directory that has it. As in
// overlayfs, a directory where that fails is passed over, but its error is told
// rather than "missing".
func (p *Pool) open(path []byte) (*descriptor, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("open object %.80q: %w (%w)", path, ErrBad, err)
	}
	name := string(path)
	var failed error = fs.ErrNotExist
	for _, dir := range p.dirs {
		d, err := p.openIn(dir, name)
		switch {
		case err == nil:
			return d, nil
		case err != unix.ENOENT && err != unix.ENOTDIR && failed == fs.ErrNotExist:
			failed = err
		}
	}
	return nil, fmt.Errorf("open object %.80q: %w", path, failed)
}

// checkPath takes names separated by single slashes, none of them . or .. alone.
// Overlayfs refuses less: a .. that stays beneath the layer. No image writer
// needs one.
func checkPath(path []byte) error {
	if bytes.IndexByte(path, 0) >= 0 || len(path) >= unix.PathMax {
		return unix.EINVAL
	}
	for name := range bytes.SplitSeq(path, []byte{'/'}) {
		switch string(name) {
		case "", ".", "..":
			return unix.EXDEV // what the kernel has for .. (RESOLVE_BENEATH)
		}
	}
	return nil
}

// openIn returns bare errnos for what can be missing.
func (p *Pool) openIn(dir *os.File, name string) (*descriptor, error) {
	fd, err := openBeneath(int(dir.Fd()), name)
	if err != nil {
		return nil, err
	}
	d, err := newDescriptor(fd, name)
	if err != nil {
		return nil, err
	}
	if p.verify {
		p.askKernel(d)
	}
	return d, nil
}

// askKernel notes the digest that the kernel checks d's content against. Any
// failure means that there is none, and that the content is hashed here.
func (p *Pool) askKernel(d *descriptor) {
	if digest, err := p.measure(d.fd); err == nil {
		d.kernel = digest
	}
}

// openBeneath opens name below the directory, following no symlink.
func openBeneath(dir int, name string) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat2(dir, name, &openHow)
		return err
	})
	if err == unix.ENOSYS || err == unix.EPERM { // before Linux 5.6; some sandboxes
		return walk(dir, name)
	}
	return fd, err
}

// walk is openBeneath one name at a time. It doesn't notice mounts on the way.
func walk(dir int, name string) (int, error) {
	const step = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	rest, at := name, dir
	for {
		first, below, more := strings.Cut(rest, "/")
		flags := openFlags
		if more {
			flags = step
		}
		fd, err := openat(at, first, flags)
		if at != dir {
			unix.Close(at)
		}
		if err != nil || !more {
			return fd, err
		}
		rest, at = below, fd
	}
}

func openat(dir int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags, 0)
		return err
	})
	return fd, err
}
