package keeper

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// starterVariable makes the test program a command that mounts: the image, objects
// and directory that it holds, and "foreground", "background" or "switch".
const starterVariable = "FLATROOT_KEEPER_TEST_STARTER"

// starter is that command. It says on standard output when the mount is there.
func starter(arguments string) int {
	a := strings.Split(arguments, ":")
	foreground := a[3] == "foreground"
	l := NewLauncher(Options{Foreground: foreground})
	err := starterMount(l, a[0], a[1], a[2])
	if err == nil {
		fmt.Println(l.PID())
		err = Notify("READY=1")
	}
	switch {
	case err == nil && foreground:
		err = l.Wait()
	case err == nil && a[3] == "switch":
		s := &sample{image: a[0], content: map[string][]byte{"f00": content(0)}}
		err = afterSwitch(s, a[2], l.PID())
	case err == nil:
		time.Sleep(time.Hour) // to be killed
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func starterMount(l *Launcher, imagePath, objectsPath, dir string) error {
	image, err := mount.OpenImage(imagePath)
	if err != nil {
		return err
	}
	defer image.Close()
	objects, err := mount.OpenObjects(objectsPath)
	if err != nil {
		return err
	}
	r := mount.Request{Image: image, Objects: objects, Target: dir, Mode: mount.ModeFUSE, Start: l.Start}
	f, err := mount.Probe(r)
	if err != nil {
		return err
	}
	p, err := mount.NewPlan(r, f)
	if err != nil {
		return err
	}
	return p.Do(context.Background())
}

// command is a starter that has mounted.
type command struct {
	*sample
	cmd    *exec.Cmd
	dir    string
	keeper int // its process ID
	stderr bytes.Buffer
}

func runStarter(t *testing.T, how string) *command {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c := &command{sample: newSample(t), cmd: exec.CommandContext(ctx, "/proc/self/exe"), dir: t.TempDir()}
	c.cmd.Env = append(os.Environ(), starterVariable+"="+strings.Join([]string{c.image, c.objects, c.dir, how}, ":"))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if how == "switch" {
		c.cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	}
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	t.Cleanup(func() {
		unix.Unmount(c.dir, unix.MNT_FORCE|unix.MNT_DETACH)
		unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
		waitGone(t, c.keeper)
		if t.Failed() {
			t.Logf("starter said: %s", c.stderr.String())
		}
	})
	if _, err := fmt.Fscan(out, &c.keeper); err != nil {
		t.Fatalf("starter: %v", err)
	}
	return c
}

func (c *command) read() error {
	return readUncached(filepath.Join(c.dir, "f03"), make([]byte, sampleSize), c.content["f03"])
}

// TestBackground: nothing that becomes of the starter, of its process group or its
// descriptors concerns the keeper.
func TestBackground(t *testing.T) {
	needSessions(t)
	c := runStarter(t, "background")
	must(t, unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL))
	c.cmd.Wait()
	must(t, c.read())
	must(t, unix.Unmount(c.dir, 0))
	waitGone(t, c.keeper)
}

// TestForeground: the starter says what happens, and ends with the session.
func TestForeground(t *testing.T) {
	needSessions(t)
	path := filepath.Join(t.TempDir(), "notify")
	manager := listen(t, path)
	t.Setenv("NOTIFY_SOCKET", path)
	c := runStarter(t, "foreground")
	b := make([]byte, 100)
	if n, err := manager.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("service manager got %q, %v", b[:n], err)
	}
	server := children(c.keeper)
	must(t, unix.Kill(server[0], unix.SIGKILL))
	must(t, c.read())
	must(t, unix.Unmount(c.dir, 0))
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("starter: %v", err)
	}
	if want := "flatroot: the FUSE server ended: signal 9 (killed); another takes over\n"; c.stderr.String() != want {
		t.Errorf("starter said %q, want %q", c.stderr.String(), want)
	}
}
