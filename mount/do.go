package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Do carries the plan out: the tree is on the target when it returns nil, and
// nothing is left of it otherwise. Errors are *DigestError, *MissingError,
// ErrTarget, ErrNoLoop, fs.ErrPermission or wrap the errno with what the kernel
// said about it.
func (p *Plan) Do(ctx context.Context) error {
	target, err := openTarget(p.request.Target)
	if err != nil {
		return err // before the work, and again a moment later
	}
	defer target.Close()
	m, err := p.run(ctx, target)
	if err != nil || m == nil {
		return err
	}
	defer m.Close()
	return attachTo(m, target)
}

// Detach makes the mount without attaching it anywhere. It lives as long as the
// file returned, or once attached (see Attach) until it is unmounted. What
// fusermount3 has to mount can't be had so.
func (p *Plan) Detach(ctx context.Context) (*os.File, error) {
	return p.run(ctx, nil)
}

// run takes the steps but the last. It returns the detached mount, or nil if a
// step put it on target itself.
func (p *Plan) run(ctx context.Context, target *os.File) (*os.File, error) {
	d := &doing{request: &p.request, service: p.Service, image: p.request.Image, target: target}
	defer d.undo()
	for _, s := range p.Steps {
		err := ctx.Err()
		if err == nil {
			err = d.step(ctx, s)
		}
		if err != nil {
			d.fail()
			return nil, err
		}
	}
	if d.result == nil && !d.mounted {
		return nil, errors.New("plan mounts nothing") // only if made by hand
	}
	return d.result, nil
}

// Attach puts a detached mount on the directory target, in the mount namespace
// of the calling thread.
func Attach(m *os.File, target string) error {
	t, err := openTarget(target)
	if err != nil {
		return err
	}
	defer t.Close()
	return attachTo(m, t)
}

func openTarget(path string) (*os.File, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: none given", ErrTarget)
	}
	t, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrTarget, path, errors.Unwrap(err))
	}
	return t, nil
}

func attachTo(m, target *os.File) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(int(m.Fd()), "", int(target.Fd()), "", flags); err != nil {
		return fmt.Errorf("attach to %s: %w", target.Name(), err)
	}
	return nil
}

// doing is the state between the steps of one plan.
type doing struct {
	request *Request
	service *Service
	image   *os.File // what to mount: the request's file or the sealed copy
	target  *os.File // for a step that mounts there; nil: none may

	lower       *os.File   // the detached mount of the image, below an overlay
	memory      *os.File   // the detached tmpfs of a transient layer, with
	upper, work *os.File   // its directories
	attached    []*os.File // what is on a private directory
	result      *os.File   // the detached tree
	mounted     bool       // the tree is on its target

	cleanup  []func() // done in any case
	rollback []func() // done on failure, before
}

// undo closes, last first, what only the steps needed. A mount stays alive by
// the mounts that are built on it.
func (d *doing) undo() {
	for i := len(d.cleanup) - 1; i >= 0; i-- {
		d.cleanup[i]()
	}
}

func (d *doing) fail() {
	if d.result != nil {
		d.result.Close()
	}
	for i := len(d.rollback) - 1; i >= 0; i-- {
		d.rollback[i]()
	}
}

func (d *doing) keep(f *os.File) *os.File {
	d.cleanup = append(d.cleanup, func() { f.Close() })
	return f
}

func (d *doing) step(ctx context.Context, s Step) (err error) {
	switch s.Op {
	case OpHash:
		return d.hash(ctx)
	case OpSeal:
		return d.seal(ctx)
	case OpCheck:
		return d.checkObjects(ctx)
	case OpErofs:
		d.lower, err = d.mountErofs(s.Options)
	case OpFUSE:
		return d.mountFUSE(ctx, s)
	case OpFusermount:
		return d.fusermount(ctx, s)
	case OpIDMap:
		return d.idMap()
	case OpTransient:
		return d.transient()
	case OpOverlay:
		d.result, err = d.mountOverlay(s)
	case OpAttach: // Do's own
	default:
		err = fmt.Errorf("unknown step %q", s.Op)
	}
	return err
}

func (d *doing) hash(ctx context.Context) error {
	st, err := d.image.Stat()
	if err != nil {
		return fmt.Errorf("hash image: %w", err)
	}
	return checkDigest(ctx, d.image, st.Size(), d.request.ExpectDigest)
}

func (d *doing) seal(ctx context.Context) error {
	st, err := d.image.Stat()
	if err != nil {
		return fmt.Errorf("copy image to memory: %w", err)
	}
	// A file that grew since it was probed must not take more memory than the
	// limit allows; it can't have the digest any more either.
	m, err := sealImage(ctx, d.image, min(st.Size(), d.request.sealLimit()), d.request.ExpectDigest)
	if err != nil {
		return err
	}
	d.image = d.keep(m)
	return nil
}

// mountErofs mounts the image, through a loop device where the kernel (before
// 6.12) or the file's file system (tmpfs, memory files) demands a block device.
func (d *doing) mountErofs(options []Option) (*os.File, error) {
	m, err := newErofs(d.image, options)
	if errors.Is(err, unix.ENOTBLK) {
		l, lerr := attachLoop(d.image)
		if lerr != nil {
			return nil, fmt.Errorf("mount image: %w", lerr)
		}
		defer l.Close()
		m, err = newErofs(l, options)
	}
	if err != nil {
		return nil, fmt.Errorf("mount image: %w", err)
	}
	return d.keep(m), nil
}

// newErofs mounts what the open file source shows, by descriptor.
func newErofs(source *os.File, options []Option) (*os.File, error) {
	c, err := openContext("erofs")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.set(Option{"source", procPath(source)}); err != nil {
		return nil, err
	}
	if err := c.setAll(options); err != nil {
		return nil, err
	}
	return c.mount(unix.MOUNT_ATTR_RDONLY)
}

// procPath is a path by which the kernel reaches an open file itself, whatever
// has become of its name.
func procPath(f *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
}
