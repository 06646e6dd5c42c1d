package object

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// descriptor is a regular file that is open for reading. It is a bare file
// descriptor, since it is opened, read and closed for every small file, and the
// cache counts who uses it.
type descriptor struct {
	fd     int
	kind   string          // "object" or "image", for messages
	name   string          // a pool's key
	kernel fsverity.Digest // that the kernel checks each read against; zero: none
	sparse bool            // it may have holes
	identity

	refs int  // users, and one for being kept; guarded by files
	kept bool // guarded by files
}

// identity changes when a file does, as far as its metadata tells.
type identity struct {
	dev, ino     uint64
	size         int64 // bytes
	mtime, ctime unix.Timespec
}

// errNotRegular is about a name that is a directory's, pipe's or device's.
var errNotRegular = errors.New("not a regular file")

// newDescriptor takes over fd, and closes it when it fails.
func newDescriptor(fd int, name string) (*descriptor, error) {
	d := &descriptor{fd: fd, kind: "object", name: name}
	if err := d.stat(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *descriptor) stat() error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(d.fd, &st) }); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular
	}
	d.identity = identity{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	const statBlock = 512 // unit of st_blocks, stat(2)
	d.sparse = st.Blocks < (st.Size+statBlock-1)/statBlock
	return nil
}

func (d *descriptor) close() { unix.Close(d.fd) }

// readFull fills b from off. A file that ends before is ErrBad: its size was
// looked at before.
func (d *descriptor) readFull(b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(d.fd, b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read %s %.80q at %d: %w", d.kind, d.name, off, err)
		case n == 0:
			return fmt.Errorf("%s %.80q ends at %d: %w", d.kind, d.name, off, ErrBad)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// readWhole fills b, which is as long as the object, and checks it.
func (d *descriptor) readWhole(b []byte, want fsverity.Digest) error {
	if err := d.readFull(b, 0); err != nil {
		return err
	}
	return d.compare(fsverity.Sum(want.Algorithm(), b), want)
}

func (d *descriptor) compare(got, want fsverity.Digest) error {
	if got != want {
		return fmt.Errorf("%s %.80q has digest %v, want %v: %w", d.kind, d.name, got, want, ErrBad)
	}
	return nil
}

// dataFrom is the first offset from off on that has data; all before it is hole.
// A file system that can't tell has data everywhere.
func (d *descriptor) dataFrom(off int64) int64 {
	data, err := unix.Seek(d.fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // lseek(2): a hole up to the end
		return math.MaxInt64
	case err != nil:
		return off
	}
	return data
}

// retry calls f until no signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
