package mounts

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// nsFirst and nsSize are the users and groups that a user namespace of these tests has for its own from 0 on: as many as the
// random trees know, and none that the system knows.
const (
	nsFirst = 1_000_000
	nsSize  = 100_000
)

// inNamespace is a process that is root in user and mount namespaces of its own and nobody elsewhere.
func inNamespace(cmd *exec.Cmd) *exec.Cmd {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nsFirst, Size: nsSize}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	return cmd
}

// rootlessModes are those that a user namespace has.
func rootlessModes() []mode {
	list := slices.DeleteFunc(modes(), mode.passthrough)
	for i := range list {
		list[i].differ = slices.Concat(list[i].differ, namespaceDifferences)
		if !list[i].served {
			list[i].differ = slices.Concat(list[i].differ, userOverlayDifferences)
		}
	}
	return list
}

// namespaceDifferences are there where the superuser is only a namespace's.
var namespaceDifferences = []difference{{
	"trusted xattrs",
	"they are for the superuser of the system",
	func(r *record) {
		r.failXattrs("!ENODATA", func(name string) bool { return strings.HasPrefix(name, "trusted.") })
	},
}}

// userOverlayDifferences are there where overlayfs uses user xattrs.
var userOverlayDifferences = []difference{{
	"content without a path",
	"without the option metacopy, which userxattr excludes, it is refused instead of not found",
	func(r *record) {
		if slices.Equal(r.odd, []string{"stat=!EIO"}) {
			r.failStat("!EPERM")
		}
	},
}, {
	"trusted xattrs",
	"overlayfs doesn't list them either",
	func(r *record) { dropXattrs(r, func(name string) bool { return strings.HasPrefix(name, "trusted.") }) },
}}

// TestUserNamespace compares random trees that are mounted without rights outside of a user namespace.
func TestUserNamespace(t *testing.T) {
	needMounts(t)
	before := look(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir+"/..", 0o755))
	for seed := range uint64(times(12, randomTreesNightly)) {
		img := randomImage(t, dir, seed)
		m, tr := readImage(t, img)
		for _, mode := range rootlessModes() {
			want := readerRecords(m, tr, img.objects, mode.differ)
			got, err := walkInNamespace(mode.command(img, t.TempDir()))
			must(t, err)
			if diff := compareRecords("reader", want, mode.name, got); diff != "" {
				t.Fatalf("seed %d:\n%s", seed, diff)
			}
		}
		must(t, os.RemoveAll(img.objects))
	}
	before.same(t, "user namespaces")
}

// walkInNamespace mounts by the helper's command in namespaces, and walks.
func walkInNamespace(helper *exec.Cmd) ([]*record, error) {
	cmd := inNamespace(exec.Command("/proc/self/exe", helper.Args...))
	cmd.Env = append(os.Environ(), actVariable+"=walk")
	return recordsOf(cmd)
}

// recordsOf are those that a program prints.
func recordsOf(cmd *exec.Cmd) ([]*record, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%v: %w: %s", cmd.Args[1:], err, errs.String())
	}
	var rs []*record
	for line := range strings.Lines(out.String()) {
		rs = append(rs, parseRecord(strings.TrimSuffix(line, "\n")))
	}
	return rs, nil
}

// mountAndWalk is an act: it runs the helper that the arguments say, prints the records of the tree and unmounts.
func mountAndWalk(args []string) error {
	target := args[2]
	if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	defer unmountAnyhow(target)
	rs, err := walk(target)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for _, r := range rs {
		fmt.Fprintln(out, r)
	}
	return out.Flush()
}

// unmountAnyhow unmounts as whoever this process is can: by fusermount3 if it may not itself.
func unmountAnyhow(target string) {
	if unix.Unmount(target, 0) == unix.EPERM {
		exec.Command("fusermount3", "-u", target).Run()
	}
}

// TestPlainUser mounts as a user without any rights, who makes namespaces with nobody else in them.
func TestPlainUser(t *testing.T) {
	needMounts(t)
	before := look(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir+"/..", 0o755))
	img := writeSmall(t, dir, "plain")
	m, tr := readImage(t, img)
	for _, mode := range rootlessModes() {
		helper := mode.command(img, t.TempDir())
		cmd := exec.Command("/proc/self/exe", helper.Args...)
		cmd.Env = append(os.Environ(), actVariable+"=alone")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: alice, Gid: 100}}
		got, err := recordsOf(cmd)
		must(t, err)
		if diff := compareRecords("reader", readerRecords(m, tr, img.objects, mode.differ), mode.name, got); diff != "" {
			t.Error(diff)
		}
	}
	before.same(t, "a plain user's mounts")
}

// walkAlone is an act: mountAndWalk, in namespaces where this process's user is root.
func walkAlone(args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), actVariable+"=walk")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run()
}
