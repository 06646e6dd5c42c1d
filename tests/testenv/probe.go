package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rootPrograms are no peers but tools that the root suite makes file systems with, mounts with, and checks units with.
var rootPrograms = []string{"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "debugfs", "umount", "unshare", "systemd-analyze"}

// probes has a function for each capability that is no program; nil means that it is there.
var probes = map[string]func() error{
	"root":    probeRoot,
	"user":    probeUser,
	"mount":   probeMount,
	"erofs":   func() error { return probeFilesystem("erofs") },
	"overlay": func() error { return probeFilesystem("overlay") },
	"loop":    func() error { return probeDevice("/dev/loop-control") },
	"fuse":    func() error { return probeDevice("/dev/fuse") },
	"verity":  probeVerity,
	"ptrace":  probePtrace,
	"crash":   func() error { return nil }, // it takes minutes: not in each suite of those that could
}

func probe(capability string) error {
	if p := probes[capability]; p != nil {
		return p()
	}
	_, err := lookPath(capability)
	return err
}

// lookPath finds a program among the peers, else in PATH, else where only root's PATH would lead.
func lookPath(name string) (string, error) {
	if dir := os.Getenv("FLATROOT_PEERS"); dir != "" {
		if path, err := exec.LookPath(filepath.Join(dir, "bin", name)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in FLATROOT_PEERS or PATH (tests/peers/setup.sh fetches the peers)", name)
}

func probeRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	return nil
}

func probeUser() error {
	if os.Geteuid() == 0 {
		return errors.New("needs an ordinary user: root passes every permission check")
	}
	return nil
}

// probeMount wants CAP_SYS_ADMIN, which root in a container may lack.
func probeMount() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("needs the right to mount: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return fmt.Errorf("needs the right to mount: effective capabilities in /proc/self/status: %w", err)
	}
	if caps&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errors.New("needs the right to mount (CAP_SYS_ADMIN)")
	}
	return nil
}

// probeFilesystem looks among what the kernel has registered; a module that isn't loaded yet counts as missing.
func probeFilesystem(name string) error {
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !bytes.Contains(list, []byte("\t"+name+"\n")) {
		return fmt.Errorf("needs the file system %s in the kernel (modprobe %s)", name, name)
	}
	return nil
}

func probeDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("needs %s: %w", path, err)
	}
	return f.Close()
}

// probePtrace starts this program as one that is traced, and ends it before it has done anything. The registers that
// package inject changes are those of one architecture.
func probePtrace() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("needs amd64, this is %s", runtime.GOARCH)
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"probe"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return fmt.Errorf("needs the right to trace its own children (ptrace): %w", err)
	}
	return errors.Join(unix.Kill(pid, unix.SIGKILL), waitGone(pid))
}

// waitGone waits for the end of a child that has been killed. It stops once more before.
func waitGone(pid int) error {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err != unix.EINTR && (err != nil || !status.Stopped()) {
			return err
		}
	}
}

// probeVerity asks a new file in the temporary directory for its digest: ENODATA says that fs-verity could be enabled there.
func probeVerity() error {
	f, err := os.CreateTemp("", "verity")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	// struct fsverity_digest of linux/fsverity.h: two 16-bit fields, then room for SHA-512.
	var arg [4 + 64]byte
	arg[2] = 64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_MEASURE_VERITY, uintptr(unsafe.Pointer(&arg)))
	if errno != unix.ENODATA {
		return fmt.Errorf("needs fs-verity in the kernel and on the file system of %s: %w", os.TempDir(), errno)
	}
	return nil
}
