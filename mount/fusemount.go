package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime is how long a server that was started may take to answer.
const answerTime = 10 * time.Second

// mountFUSE makes a detached FUSE mount and has a server started for it. Without
// the mount the session ends, and with it the server.
func (d *doing) mountFUSE(ctx context.Context, s Step) error {
	dev, err := openFUSE(0)
	if err != nil {
		return fmt.Errorf("mount image by FUSE: %w", err)
	}
	// The server has its own by then: a session ends with the last descriptor,
	// and must not live on because of this one.
	defer dev.Close()
	m, err := newFUSE(dev, s.Options, attrBits(s.Attrs))
	if err != nil {
		return fmt.Errorf("mount image by FUSE: %w", err)
	}
	if err := d.serve(ctx, dev, m); err != nil {
		m.Close()
		return err
	}
	if d.service.View == ViewPlain {
		d.result = m
		readFarAhead(m)
	} else {
		d.lower = d.keep(m)
	}
	return nil
}

// newFUSE makes a detached FUSE mount whose requests come from dev.
func newFUSE(dev *os.File, options []Option, attrs int) (*os.File, error) {
	c, err := openContext("fuse")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// As text: before 6.13 the parameter is a number and not a descriptor.
	own := []Option{
		{"fd", strconv.Itoa(int(dev.Fd()))},
		{"user_id", strconv.Itoa(os.Geteuid())}, {"group_id", strconv.Itoa(os.Getegid())},
	}
	if err := errors.Join(c.setAll(own), c.setAll(options)); err != nil {
		return nil, err
	}
	return c.mount(attrs)
}

// serve has a server started and waits until the mount m answers.
func (d *doing) serve(ctx context.Context, dev, m *os.File) error {
	if d.request.Start == nil {
		return fmt.Errorf("start FUSE server: %w", ErrUnavailable)
	}
	s := Serving{Service: *d.service, Device: dev, Image: d.image, Objects: d.request.Objects}
	if err := d.request.Start(ctx, s); err != nil {
		return fmt.Errorf("start FUSE server: %w", err)
	}
	err := answers(ctx, m, answerTime)
	if err != nil {
		abortFUSE(m)
	}
	return err
}

// answers asks for the attributes of m's root. Until then the root has those that
// the mount was made with, no permissions and the superuser as its owner, which
// overlayfs would keep for its own root. The answer is not looked at.
func answers(ctx context.Context, m *os.File, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	// With a descriptor of its own: this goroutine stays behind if nobody
	// answers, until the session is aborted.
	fd, err := unix.FcntlInt(m.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ask FUSE server: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
		unix.Close(fd)
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the FUSE server doesn't answer: %w", err)
	}
	return nil
}

// abortFUSE ends the session of a detached mount whatever its server does, so
// that nobody waits for an answer. Only unmounting by force does that, and what
// is attached nowhere can't be unmounted.
func abortFUSE(m *os.File) {
	dir, err := privateDir()
	if err != nil {
		return
	}
	defer os.Remove(dir)
	if Attach(m, dir) == nil {
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// readAheadKB is how far the kernel reads ahead, KiB: as much as one READ takes.
// At INIT a server can only lower it, from 128.
const readAheadKB = "1024"

// readFarAhead raises the read-ahead of a FUSE mount. It is for speed alone and
// needs root and a mounted sysfs, so failure is no error.
func readFarAhead(m *os.File) {
	var st unix.Statx_t
	if unix.Statx(int(m.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st) != nil {
		return
	}
	f, err := os.OpenFile(readAheadFile(st), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteString(readAheadKB)
}

func readAheadFile(st unix.Statx_t) string {
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
}
