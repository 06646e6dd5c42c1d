package keeper

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Notify tells the service manager, if there is one that listens (NOTIFY_SOCKET),
// about the calling process: "READY=1", "STATUS=…", "MAINPID=…" and more, as
// sd_notify(3) has them. Without a listener it does nothing.
func Notify(assignments ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" || len(assignments) == 0 {
		return nil
	}
	if path[0] != '/' && path[0] != '@' { // systemd knows vsock too, for virtual machines
		return fmt.Errorf("notify service manager: NOTIFY_SOCKET=%s is neither a path nor an abstract name", path)
	}
	if err := sendDatagram(path, []byte(strings.Join(assignments, "\n")), 0); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}

// sendDatagram sends one to the socket at path; an @ begins an abstract name. The
// package net would do it too, for a megabyte more of program. flags are of
// send(2).
func sendDatagram(path string, b []byte, flags int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, b, flags|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("send to %s: %w", path, err)
	}
	return nil
}
