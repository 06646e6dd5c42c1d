//go:build linux

// Command guest is /init of a virtual machine: it loads the modules it was given, mounts the disk, runs test programs there
// with FLATROOT_TEST=vm, and powers off. tests/vm/run.sh boots it and prints what it says.
//
// Test programs lie in /tests, a folder for each package: the binary "test", the package's testdata, and three files of one
// line each, "package" with the import path, "run" and "skip" with the regular expressions for -test.run and -test.skip.
package main

import (
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

const (
	// report is what run.sh listens to. The kernel's messages go to a serial port.
	report = "/dev/hvc0"
	// disk is where the first disk is mounted, if the machine has one.
	disk = "/mnt"
	// packageTime is what a package's tests may take. On a quiet machine none takes more than two.
	packageTime = 10 * time.Minute
	// silence is how long a test may go on without a line; run.sh switches the machine off after 90 s.
	silence = 60 * time.Second
)

func main() {
	if os.Getpid() == 1 {
		fmt.Fprintln(os.Stderr, reap())
		powerOff(os.Stderr) // nothing is left that could say why
		return
	}
	out, code := io.Writer(os.Stderr), 0
	err := boot(&out)
	if err == nil {
		err = runTests(out)
	}
	if err != nil {
		fmt.Fprintln(out, err)
		code = 1
	}
	fmt.Fprintln(out, "exit", code)
	powerOff(out)
}

// powerOff ends the machine.
func powerOff(out io.Writer) {
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(out, "power off:", err) // the time limit of run.sh ends it
}

// reap is what process 1 has to do: it runs this program a second time, and takes note of the end of every process whose
// parent is gone. Servers of FUSE mounts are such; tests that count processes would else find them for ever, as zombies.
func reap() error {
	// /proc isn't mounted yet, and the kernel starts /init under its own name.
	worker, err := os.StartProcess("/init", []string{"/init"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == worker.Pid:
			return errors.New("the worker ended without powering off")
		}
	}
}

// boot makes the machine usable, and sets out to the port as soon as there is one.
func boot(out *io.Writer) error {
	if err := mountKernelFilesystems(); err != nil {
		return err
	}
	port, err := os.OpenFile(report, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	*out = port
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
	_, err = fmt.Fprintln(port, "kernel", unix.ByteSliceToString(uts.Release[:]))
	return err
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

func runTests(out io.Writer) error {
	programs, err := filepath.Glob("/tests/*/test")
	if err != nil {
		return err
	}
	var failed []string
	for _, program := range programs {
		name, err := line(program, "package")
		if err == nil {
			err = runTest(out, program, name)
		}
		if err != nil {
			failed = append(failed, name+": "+err.Error())
		}
	}
	if len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, "; "))
	}
	return nil
}

// line reads a file of one line beside a test program.
func line(program, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(program), name))
	return strings.TrimSpace(string(b)), err
}

// runTest runs one test program, and ends with a line like go test's. Tests that only take long in an emulated machine look
// at -test.short.
func runTest(out io.Writer, program, name string) error {
	run, err := line(program, "run")
	if err != nil {
		return err
	}
	skip, err := line(program, "skip")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "=== PACKAGE", name)
	cmd := exec.Command(program, "-test.v", "-test.short", "-test.timeout="+packageTime.String(), "-test.run="+run, "-test.skip="+skip)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), "FLATROOT_TEST=vm", "FLATROOT_NO_SKIP=1", "TMPDIR="+disk, "HOME="+disk, "PATH=/bin")
	w := &watch{out: out}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = time.Second // for what a test left running with its output
	start := time.Now()
	err = cmd.Start()
	if err == nil {
		w.start(cmd.Process)
		err = cmd.Wait()
		w.stop()
	}
	word := "ok  "
	if err != nil {
		word = "FAIL"
	}
	fmt.Fprintf(out, "%s\t%s\t%.3fs\n", word, name, time.Since(start).Seconds())
	return err
}
