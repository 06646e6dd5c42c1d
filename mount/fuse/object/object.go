// Package object reads the objects of a FUSE mount: regular files in object
// directories, each named by its path there and, by the image, with the fs-verity
// digest and the size of its content.
//
// With [Options.Verify] no byte leaves the package that is not the digest's. Who
// sees to it is told anew for each descriptor:
//
//   - the kernel, where the file has fs-verity with this very digest: nothing is
//     hashed here;
//   - a READ that covers the whole object hashes what it hands out, and nothing
//     is kept;
//   - otherwise the leaves of the object's Merkle tree are computed once, by all
//     processors, and compared with the digest; then each READ checks the blocks
//     it touches, after it has read them and before it hands them out.
//
// Words: a block is 4096 bytes; a leaf is a block's hash; a segment is the content
// below one tree block (512 KiB with SHA-256, 256 KiB with SHA-512), or that
// tree block's leaves; a unit is the content below one hash of the lowest level
// that is kept of the whole object.
//
// Invariants:
//
//   - What is remembered was compared with a digest and holds for that digest and
//     size alone, whatever file has it now. A file that is changed, truncated or
//     replaced makes reads fail with [ErrBad] or be right, never wrong.
//   - An error sticks to no object: the next read opens it by name again.
//   - Content that is read is hashed where it lies in private memory, never in a
//     map that others can write.
//   - Descriptors and memory are bounded by [Options], whatever the size and the
//     number of objects.
package object

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// ErrBad is wrapped by errors about an object, or an image, that is not what its
// digest or size says, or of which a digest that is asked for isn't known.
var ErrBad = errors.New("content is not what the digest says")

// Options are what a [Pool] may use and must check. The zero value is a pool that
// checks nothing.
type Options struct {
	// Verify is whether content is checked against Ref.Digest. An object without
	// a digest is then refused.
	Verify bool
	// MaxOpen is the number of descriptors that are kept open; 0 means 256. Each
	// read that goes on at the same time may need one more.
	MaxOpen int
	// LeafBytes is the memory for Merkle leaves, bytes; 0 means 64 MiB, less than
	// 64 KiB means 64 KiB. Half is for leaves, 8 MiB for each GiB of content in
	// SHA-256; those that had to go are computed again from a unit. The other half
	// is for one hash per unit. Units are segments in objects of up to 512 GiB,
	// with SHA-512 128 GiB, at 64 MiB, and less in proportion; of longer ones 128 or 64
	// segments. An object of more than 64 TiB, with SHA-512 8 TiB, at 64 MiB is
	// refused.
	LeafBytes int64
	// Workers is the number of processors that hash a long object; 0 means
	// GOMAXPROCS.
	Workers int
}

const (
	defaultMaxOpen   = 256
	defaultLeafBytes = 64 << 20
	minLeafBytes     = 64 << 10
)

func (o *Options) fill() {
	if o.MaxOpen <= 0 {
		o.MaxOpen = defaultMaxOpen
	}
	if o.LeafBytes <= 0 {
		o.LeafBytes = defaultLeafBytes
	}
	o.LeafBytes = max(o.LeafBytes, minLeafBytes)
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
}

// Ref is an object as an image names it.
type Ref struct {
	Digest fsverity.Digest // zero: the image has none
	Path   []byte          // below an object directory, without a slash in front
	Size   int64           // bytes
}

// Pool reads objects. It is safe for concurrent use.
type Pool struct {
	verify bool
	dirs   []*os.File
	files  files
	leaves *leafCache

	// measure is fsverity's, or a test's.
	measure func(fd int) (fsverity.Digest, error)
}

// NewPool returns a pool of the objects in dirs, which are searched in this order
// and stay the caller's: they must not be closed before the pool is.
func NewPool(dirs []*os.File, o Options) *Pool {
	o.fill()
	p := &Pool{
		verify:  o.Verify,
		dirs:    dirs,
		leaves:  newLeafCache(o.LeafBytes, o.Workers),
		measure: fsverity.MeasureFD,
	}
	p.files.init(o.MaxOpen, p.open)
	return p
}

// Close closes what the pool has open. Reads that still go on end well; those
// that come later return [os.ErrClosed].
func (p *Pool) Close() error { return p.files.close() }

// ReadAt reads as [io.ReaderAt] does from a file of r.Size bytes: less than b
// holds only together with io.EOF. With any other error nothing was read, and b
// is zeros. Errors wrap [fs.ErrNotExist] if no object directory has the object,
// and [ErrBad] if its content or size is wrong or, to be verified, it has no
// digest; others are the operating system's.
func (p *Pool) ReadAt(r Ref, b []byte, off int64) (int, error) {
	n, eof := clip(r.Size, b, off)
	if n == 0 {
		return 0, eof
	}
	if err := p.read(&r, b[:n], off); err != nil {
		clear(b)
		return 0, err
	}
	return n, eof
}

// clip is how much of a file of size bytes lies in b at off, and io.EOF if that
// does not fill b.
func clip(size int64, b []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("read at offset %d: %w", off, unix.EINVAL)
	case len(b) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	case int64(len(b)) > size-off:
		return int(size - off), io.EOF
	}
	return len(b), nil
}

// read reads from the descriptor that is kept, or a new one. One that was kept
// and fails may be of a file that was replaced by a good one since: the object is
// opened by name again, once.
func (p *Pool) read(r *Ref, b []byte, off int64) error {
	for again := false; ; again = true {
		d, kept, err := p.files.get(r.Path)
		if err != nil {
			return err
		}
		err = p.readFrom(d, r, b, off)
		p.files.put(d, err != nil)
		if err == nil || !kept || again {
			return err
		}
	}
}

func (p *Pool) readFrom(d *descriptor, r *Ref, b []byte, off int64) error {
	trusted, err := p.trusts(d, r)
	switch {
	case err != nil:
		return err
	case trusted:
		return d.readFull(b, off)
	case int64(len(b)) == r.Size:
		return d.readWhole(b, r.Digest)
	}
	return p.leaves.read(d, contentKey{r.Digest, r.Size}, b, off)
}

// trusts tells whether d can be read without hashing: because nothing is to be
// verified, or because the kernel does it.
func (p *Pool) trusts(d *descriptor, r *Ref) (bool, error) {
	switch {
	case d.size != r.Size:
		return false, fmt.Errorf("object %.80q has %d bytes, want %d: %w", r.Path, d.size, r.Size, ErrBad)
	case !p.verify:
		return true, nil
	case r.Digest.IsZero():
		return false, fmt.Errorf("object %.80q: the image has no digest for it: %w", r.Path, ErrBad)
	}
	return d.kernel == r.Digest, nil
}

// Open opens an object for passthrough; the file is the caller's to close. With
// Verify its content is checked now, as a whole unless the kernel does it, and
// nobody checks what is read from the file later. Errors are those of
// [Pool.ReadAt].
func (p *Pool) Open(r Ref) (*os.File, error) {
	d, err := p.open(r.Path)
	if err != nil {
		return nil, err
	}
	trusted, err := p.trusts(d, &r)
	if err == nil && !trusted {
		err = p.leaves.checkWhole(d, contentKey{r.Digest, r.Size})
	}
	if err == nil {
		// O_NONBLOCK, which is for opening alone, would be seen by who gets it.
		_, err = unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, 0)
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return os.NewFile(uintptr(d.fd), d.name), nil
}

// Check tells whether an object can be opened, is a regular file and has the
// size, and, to be verified, a digest; it reads no content. Errors are those of
// [Pool.ReadAt].
func (p *Pool) Check(r Ref) error {
	d, err := p.open(r.Path)
	if err != nil {
		return err
	}
	defer d.close()
	_, err = p.trusts(d, &r)
	return err
}
