package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// placeOf describes the file system of the object directory that comes last,
// which is the store's.
func placeOf(dirs []*os.File, f mount.Features) doctorStore {
	if len(dirs) == 0 || len(f.Objects) != len(dirs) {
		return doctorStore{}
	}
	last := len(dirs) - 1
	kind, device := fileSystemOf(dirs[last])
	s := doctorStore{Type: kind, Verity: f.Objects[last].CanVerity}
	if !s.Verity {
		s.Advice = verityAdvice(kind, device, kernelVerity())
	}
	return s
}

// verityAdvice says how fs-verity could be had.
func verityAdvice(kind, device string, inKernel bool) string {
	switch {
	case kind == "ext4" && inKernel:
		return "`tune2fs -O verity " + device + "` switches it on (while it is not mounted, or by a kernel that knows it)"
	case kind == "btrfs" || kind == "f2fs" || kind == "ext4":
		return "the kernel lacks it (CONFIG_FS_VERITY)"
	}
	return "ext4, btrfs and f2fs can have it; keep the store there"
}

// kernelVerity tells whether the kernel has fs-verity: ext4, the one that shows
// it, lists what it can do whether or not it is in use (fs/ext4/sysfs.c).
func kernelVerity() bool {
	_, err := os.Stat("/sys/fs/ext4/features/verity")
	return err == nil
}

// fileSystemOf is the type of the file system that an open file is on and the
// device below it, as the mount namespace shows them; empty if it doesn't.
func fileSystemOf(f *os.File) (kind, device string) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return "", ""
	}
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	defer info.Close()
	return findMount(info, st.Mnt_id)
}

// findMount finds a mount by its id in mountinfo (proc_pid_mountinfo(5)).
func findMount(mountinfo io.Reader, id uint64) (kind, device string) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		number, _, _ := strings.Cut(before, " ")
		if f := strings.Fields(after); found && len(f) >= 2 && number == strconv.FormatUint(id, 10) {
			return f[0], f[1]
		}
	}
	return "", ""
}

// namespacesForbidden returns the setting that would let users have user
// namespaces, if one keeps them from it. sys is /proc/sys.
func namespacesForbidden(sys string) string {
	for _, s := range []struct{ path, forbids, allow string }{
		{"user/max_user_namespaces", "0", "user.max_user_namespaces=15000"},
		{"kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},                         // Debian's, Arch's
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"}, // Ubuntu's
	} {
		b, err := os.ReadFile(filepath.Join(sys, s.path))
		if err == nil && strings.TrimSpace(string(b)) == s.forbids {
			return s.allow
		}
	}
	return ""
}
