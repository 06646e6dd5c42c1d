//go:build linux

// Command guest is /init of a virtual machine: it loads the modules it was given, mounts the disk, runs test programs there
// with FLATROOT_TEST=vm, and powers off. tests/vm/run.sh boots it and reads what it says.
//
// Test programs lie in /tests, one folder a package with the binary "test" and the package's testdata; the kernel's command
// line may hold run=REGEXP, for -test.run.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is where a disk with a file system is mounted, if the machine has one.
const disk = "/mnt"

func main() {
	code := 0
	if err := boot(); err != nil {
		say("%v", err)
		code = 1
	}
	say("exit %d", code)
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	say("power off: %v", err) // the time limit of run.sh ends it
}

// say prints one line for tests/vm/run.sh.
func say(format string, args ...any) {
	fmt.Printf("VM: "+format+"\n", args...)
}

func boot() error {
	if err := mountKernelFilesystems(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mountDisk(); err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	say("kernel %s", unix.ByteSliceToString(uts.Release[:]))
	return runTests()
}

func mountKernelFilesystems() error {
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

func loadModules(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.ko")) // sorted, and numbered in load order
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// mountDisk mounts /dev/vda, which appears a moment after its driver is loaded; a machine may have none.
func mountDisk() error {
	const device = "/dev/vda"
	present, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_blk/virtio*")
	if err != nil || len(present) == 0 {
		return err
	}
	for range 50 {
		if err = unix.Mount(device, disk, "ext4", 0, ""); !errors.Is(err, unix.ENOENT) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

func runTests() error {
	programs, err := filepath.Glob("/tests/*/test")
	if err != nil {
		return err
	}
	pattern, err := runPattern()
	if err != nil {
		return err
	}
	var failed []string
	for _, program := range programs {
		name := filepath.Base(filepath.Dir(program))
		say("=== %s", name)
		if err := runTest(program, pattern); err != nil {
			failed = append(failed, name+": "+err.Error())
		}
	}
	if len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, "; "))
	}
	return nil
}

// runPattern is what the kernel's command line says after run=, or nothing.
func runPattern() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if pattern, ok := strings.CutPrefix(word, "run="); ok {
			return pattern, nil
		}
	}
	return "", nil
}

func runTest(program, pattern string) error {
	cmd := exec.Command(program, "-test.v", "-test.run="+pattern)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), "FLATROOT_TEST=vm", "FLATROOT_NO_SKIP=1", "TMPDIR="+disk, "HOME="+disk, "PATH=/")
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	return errors.Join(relay(output), cmd.Wait())
}

// relay says each line of a program's output.
func relay(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		say("%s", lines.Text())
	}
	return lines.Err()
}
