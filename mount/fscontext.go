package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fsContext is a file system context of fsopen(2): a mount being configured.
type fsContext struct {
	fs string
	fd int
}

func openContext(fs string) (*fsContext, error) {
	fd, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fs, err)
	}
	return &fsContext{fs: fs, fd: fd}, nil
}

func (c *fsContext) Close() error { return unix.Close(c.fd) }

// set passes one option; an empty value is a flag.
func (c *fsContext) set(o Option) error {
	if o.Value == "" {
		return c.explain(o.Key, unix.FsconfigSetFlag(c.fd, o.Key))
	}
	return c.explain(o.String(), unix.FsconfigSetString(c.fd, o.Key, o.Value))
}

func (c *fsContext) setAll(options []Option) error {
	for _, o := range options {
		if err := c.set(o); err != nil {
			return err
		}
	}
	return nil
}

func (c *fsContext) setFD(key string, fd int) error {
	return c.explain(key, unix.FsconfigSetFd(c.fd, key, fd))
}

// mount creates the file system and returns a mount of it that is attached
// nowhere; closing the file undoes it. attrs are MOUNT_ATTR_ bits.
func (c *fsContext) mount(attrs int) (*os.File, error) {
	if err := c.explain("create", unix.FsconfigCreate(c.fd)); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, c.explain("fsmount", err)
	}
	return os.NewFile(uintptr(fd), c.fs+" mount"), nil
}

// explain adds what the kernel wrote into the context's log to err.
func (c *fsContext) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if log := c.log(); log != "" {
		return fmt.Errorf("%s: %s: %w (kernel: %s)", c.fs, doing, err, log)
	}
	return fmt.Errorf("%s: %s: %w", c.fs, doing, err)
}

// maxLogMessages bounds the loop of log; the kernel keeps eight messages.
const maxLogMessages = 16

// log reads the context's messages. Each read returns one, as "e TEXT" for an
// error, "w" and "i" for less; ENODATA ends them (fs/fsopen.c, fscontext_read).
func (c *fsContext) log() string {
	var messages []string
	buf := make([]byte, 1024)
	for range maxLogMessages {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n == 0 {
			break
		}
		m := strings.TrimSpace(string(buf[:n]))
		if len(m) > 2 && m[1] == ' ' {
			m = m[2:]
		}
		messages = append(messages, m)
	}
	return strings.Join(messages, "; ")
}

// missing says that an fsopen error means that the kernel has no such thing.
func missing(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS)
}
