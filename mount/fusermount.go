package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// fusermount has fusermount3 mount on the target, and a server started for what
// it hands over.
func (d *doing) fusermount(ctx context.Context, s Step) error {
	if d.target == nil {
		return errors.New("a mount by fusermount3 can't be had detached: it is on its directory at once")
	}
	dev, err := d.runFusermount(ctx, s)
	if err != nil {
		return fmt.Errorf("mount image by fusermount3: %w", err)
	}
	defer dev.Close()
	// The target opened before is what lies below the mount.
	m, err := os.OpenFile(s.Target, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("mount image by fusermount3: %w", err)
	}
	defer m.Close()
	if err := d.serve(ctx, dev, m); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

// runFusermount runs the program as libfuse does: it mounts, and sends the
// session's device through the socket whose number is in _FUSE_COMMFD.
func (d *doing) runFusermount(ctx context.Context, s Step) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	defer ours.Close()
	c := exec.CommandContext(ctx, s.Program, "-o", s.mountOptions(), "--", s.Target)
	c.ExtraFiles = []*os.File{theirs} // descriptor 3
	c.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	err = runQuietly(c)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	// Only now: before, another mount of this user may be on top there.
	d.rollback = append(d.rollback, func() { fusermountUnmount(s.Program, s.Target, true) })
	return receiveDevice(ours)
}

// mountOptions are a step's options and attributes as mount(8) takes them. None
// of ours has a comma in it.
func (s Step) mountOptions() string {
	var words []string
	for _, o := range s.Options {
		words = append(words, o.String())
	}
	return strings.Join(append(words, s.Attrs...), ",")
}

// runQuietly runs a command and puts what it said on stderr into the error.
func runQuietly(c *exec.Cmd) error {
	var stderr bytes.Buffer
	c.Stderr = &stderr
	err := c.Run()
	if said := strings.TrimSpace(stderr.String()); err != nil && said != "" {
		return fmt.Errorf("%s (%w)", strings.ReplaceAll(said, "\n", "; "), err)
	}
	return err
}

// receiveDevice takes the one descriptor that the program sent before it ended.
func receiveDevice(socket *os.File) (*os.File, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive device: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive device: %w", errors.Join(io.ErrUnexpectedEOF, err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive device: %d descriptors: %w", len(fds), errors.Join(io.ErrUnexpectedEOF, err))
	}
	return os.NewFile(uintptr(fds[0]), fuseDevice), nil
}

// fusermountUnmount ends a mount that program made for this user.
func fusermountUnmount(program, target string, lazy bool) error {
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	return runQuietly(exec.Command(program, append(args, "--", target)...))
}
