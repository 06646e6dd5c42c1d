package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/bench/kit"
)

// side is a way to mount a tree.
type side struct {
	name string
	// command mounts the image on the target: until it ends, if it stays, else for good.
	command func(d *data, i image, target string) []string
	stays   bool
	full    bool // wants the EROFS image that has all data, so it can mount the tree alone
	native  bool // nothing but the kernel at work
}

// The names of sides that goals and rows speak of.
const (
	native      = "native"
	hybrid      = "hybrid"
	pure        = "fuse"
	verified    = "fuse verified"
	passthrough = "passthrough"
	cfsFuse     = "cfs-fuse"
	erofsFuse   = "erofsfuse"
	composefsC  = "mount.composefs" // started only: once mounted it is native
)

// allSides lists them in the order of the report; of our modes that have a server, there is one more for another build of it.
func (s *settings) allSides() []side {
	list := []side{{name: native, command: ours(s.helper, "mode=native,verity=off"), native: true}}
	for _, mode := range []struct{ name, options string }{
		{hybrid, "mode=hybrid,verity=off"},
		{pure, "mode=fuse,verity=off"},
		{verified, "mode=fuse,verity=require"},
		{passthrough, "mode=fuse,verity=off,passthrough"},
	} {
		list = append(list, side{name: mode.name, command: ours(s.helper, mode.options)})
		if s.other != "" {
			list = append(list, side{name: mode.name + otherMark, command: ours(s.other, mode.options)})
		}
	}
	return append(list, peerSides()...)
}

// otherMark is added to the names of the sides that run the other build.
const otherMark = "′"

func peerSides() []side {
	return []side{
		{name: cfsFuse, stays: true, command: func(d *data, i image, target string) []string {
			return append(kit.Native(d.settings.peerRoot(), "cfs-fuse"),
				"-f", "-o", "source="+i.path+",basedir="+d.objects+",allow_other", target)
		}},
		{name: erofsFuse, stays: true, full: true, command: func(d *data, i image, target string) []string {
			return append(kit.Native(d.settings.peerRoot(), "erofsfuse"), "-f", d.full, target)
		}},
		{name: composefsC, native: true, command: func(d *data, i image, target string) []string {
			return append(kit.Native(filepath.Join(d.settings.peers, "root"), "mount.composefs"), "-o", "basedir="+d.objects, i.path, target)
		}},
	}
}

// peerRoot is where tests/bench/mount/peers.sh unpacked them.
func (s *settings) peerRoot() string { return filepath.Join(s.peers, "fuse", "root") }

func ours(helper, options string) func(d *data, i image, target string) []string {
	return func(d *data, i image, target string) []string {
		o := options + ",basedir=" + d.objects
		if strings.Contains(o, "verity=require") {
			o += ",digest=" + i.digest
		}
		return []string{helper, i.path, target, "-o", o}
	}
}

// mounted is a mount and the processes that serve it.
type mounted struct {
	target  string
	servers []int
	took    time.Duration // from the start of the command to the first lstat that succeeded
}

// mount returns when a path deep in the image can be seen. What the command said is in the error.
func (s side) mount(d *data, i image) (*mounted, error) {
	m := &mounted{target: d.target()}
	args := s.command(d, i, m.target)
	cmd := exec.Command(args[0], args[1:]...)
	said, err := os.CreateTemp(d.settings.work, "said")
	if err != nil {
		return nil, err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	// A file, not a pipe: servers keep it open, and Wait would wait for them.
	cmd.Stdout, cmd.Stderr = said, said
	start := time.Now()
	if err = cmd.Start(); err == nil && !s.stays {
		err = cmd.Wait()
	}
	if err == nil {
		err = s.await(filepath.Join(m.target, i.deep))
	}
	m.took = time.Since(start)
	if err == nil {
		m.servers, err = others()
	}
	if err != nil {
		text, _ := os.ReadFile(said.Name())
		return nil, errors.Join(fmt.Errorf("mount %s: %w\n%s", s.name, err, bytes.TrimSpace(text)), m.unmount())
	}
	return m, nil
}

// await is the first stat. A server in the foreground doesn't say when it is ready, so its path is tried for up to ten seconds.
func (s side) await(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	for end := time.Now().Add(10 * time.Second); err != nil && s.stays && time.Now().Before(end); {
		time.Sleep(50 * time.Microsecond)
		err = unix.Lstat(path, &st)
	}
	if err != nil {
		return fmt.Errorf("first stat of %s: %w", path, err)
	}
	return nil
}

// unmount leaves neither the mount nor a process of it. A server that doesn't end by itself is an error, and killed.
func (m *mounted) unmount() error {
	if err := detach(m.target); err != nil {
		return err
	}
	left, err := others()
	for end := time.Now().Add(5 * time.Second); err == nil && len(left) > 0 && time.Now().Before(end); {
		reap(left)
		time.Sleep(time.Millisecond)
		left, err = others()
	}
	for _, pid := range left {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		err = errors.Join(err, fmt.Errorf("process %d did not end when %s was unmounted", pid, m.target))
	}
	return err
}

// detach unmounts whatever is on the directory. Something may still hold it for a moment.
func detach(target string) error {
	for tries := 0; ; {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL):
			return nil // no mount is left
		case errors.Is(err, unix.EBUSY) && tries < 200:
			tries++
			time.Sleep(time.Millisecond)
		case errors.Is(err, unix.EBUSY):
			return errors.Join(fmt.Errorf("unmount %s: %w", target, err), unix.Unmount(target, unix.MNT_DETACH))
		case err != nil:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// reap takes what ended. All orphans are this process's children, the first one of its PID namespace.
func reap(pids []int) {
	for _, pid := range pids {
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// others lists the processes of this PID namespace but this one: between the jobs those that serve the mount.
func others() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}
