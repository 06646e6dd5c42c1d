package mounts

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// statCalls ask for attributes that the walker doesn't look at.
func statCalls() (list []call) {
	for _, path := range []string{"", "file", "inline", "nothing", "hole", "dir", "link", "null", "fifo", "bin/setuid", "acl/user"} {
		for name, show := range statxFields {
			list = append(list, call{fmt.Sprintf("statx: %s of /%s", name, path), "", func(g ground) string {
				var st unix.Statx_t
				err := unix.Statx(unix.AT_FDCWD, g.at(path), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL|statxMore, &st)
				return describe(err, "%s", show(&st))
			}})
		}
	}
	list = append(list, statfsCalls()...)
	return append(list,
		call{"stat: inode of hard links", "", func(g ground) string {
			return fmt.Sprintf("same %t, another's %t", inode(g, "file") == inode(g, "dir/again"), inode(g, "file") == inode(g, "inline"))
		}},
		call{"stat: inode stays the same", "", func(g ground) string {
			before := inode(g, "dir/file")
			enter(g.at("dir"))
			withDir(g, "dir", func(fd int) string { return listing(fd, 4096) })
			return fmt.Sprint(before == inode(g, "dir/file"), before > 0)
		}},
		call{"stat: one device for files and directories", "", func(g ground) string {
			var file, dir unix.Stat_t
			if err := unix.Stat(g.at("inline"), &file); err != nil {
				return came(err)
			}
			err := unix.Stat(g.at("dir"), &dir)
			return describe(err, "%t", file.Dev == dir.Dev)
		}},
		call{"stat: reading leaves times alone", "", func(g ground) string {
			withDir(g, "dir/sub", func(fd int) string { return listing(fd, 4096) })
			var st unix.Stat_t
			err := unix.Stat(g.at("dir/sub"), &st)
			return describe(err, "%d", st.Atim.Sec)
		}},
		call{"handle: name_to_handle_at", "", func(g ground) string { return nameToHandle(g, 0) }},
		call{"handle: AT_HANDLE_FID", "", func(g ground) string { return nameToHandle(g, unix.AT_REMOVEDIR) }}, // the same bit (linux/fcntl.h)
		ioctlCall("FIGETBSZ", 2), // _IO(0x00, 2) of linux/fs.h
		ioctlCall("FIONREAD", unix.TIOCINQ),
		ioctlCall("FS_IOC_GETFLAGS", unix.FS_IOC_GETFLAGS),
		ioctlCall("TCGETS", unix.TCGETS),
		ioctlCall("an unknown one", 0x5a5a),
	)
}

// statxMore asks for what STATX_ALL was fixed before.
const statxMore = unix.STATX_MNT_ID | unix.STATX_DIOALIGN

var statxFields = map[string]func(st *unix.Statx_t) string{
	"basics": func(st *unix.Statx_t) string {
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		return fmt.Sprint(st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Mtime, st.Rdev_major, st.Rdev_minor)
	},
	"mask":           func(st *unix.Statx_t) string { return fmt.Sprintf("%#x", st.Mask&unix.STATX_BASIC_STATS) },
	"birth":          func(st *unix.Statx_t) string { return fmt.Sprint(st.Mask&unix.STATX_BTIME != 0) },
	"attributes":     func(st *unix.Statx_t) string { return fmt.Sprintf("%#x", st.Attributes&^unix.STATX_ATTR_MOUNT_ROOT) },
	"mount root":     func(st *unix.Statx_t) string { return fmt.Sprint(st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0) },
	"block size":     func(st *unix.Statx_t) string { return fmt.Sprint(st.Blksize) },
	"blocks":         func(st *unix.Statx_t) string { return fmt.Sprint(st.Blocks) },
	"directory size": func(st *unix.Statx_t) string { return fmt.Sprint(st.Size) },
}

func statfsCalls() (list []call) {
	for name, show := range map[string]func(s *unix.Statfs_t) string{
		"type":        func(s *unix.Statfs_t) string { return fmt.Sprintf("%#x", s.Type) },
		"block size":  func(s *unix.Statfs_t) string { return fmt.Sprint(s.Bsize, s.Frsize) },
		"name length": func(s *unix.Statfs_t) string { return fmt.Sprint(s.Namelen) },
		"flags":       func(s *unix.Statfs_t) string { return fmt.Sprintf("%#x", s.Flags) },
		"space":       func(s *unix.Statfs_t) string { return fmt.Sprint(s.Bfree, s.Bavail, s.Ffree) },
		"used":        func(s *unix.Statfs_t) string { return fmt.Sprint(s.Blocks > 0) },
		"files":       func(s *unix.Statfs_t) string { return fmt.Sprint(s.Files) },
	} {
		list = append(list, call{"statfs: " + name, "", func(g ground) string {
			var s unix.Statfs_t
			err := unix.Statfs(g.at("dir"), &s)
			return describe(err, "%s", show(&s))
		}})
	}
	return list
}

func inode(g ground, path string) uint64 {
	var st unix.Stat_t
	if err := unix.Lstat(g.at(path), &st); err != nil {
		return 0
	}
	return st.Ino
}

func nameToHandle(g ground, flags int) string {
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, g.at("file"), flags)
	return came(err)
}

func ioctlCall(name string, request uintptr) call {
	return withFile("ioctl: "+name, "file", func(_ ground, fd int) string {
		var arg [256]byte
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return unix.ErrnoName(errno)
		}
		return fmt.Sprint(arg[:8])
	})
}

// lockCalls take locks on one file by two descriptors.
func lockCalls() []call {
	two := func(name string, f func(a, b int) []error) call {
		return withFile("lock: "+name, "file", func(g ground, a int) string {
			b, err := unix.Open(g.at("file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return came(err)
			}
			defer unix.Close(b)
			var all []string
			for _, err := range f(a, b) {
				all = append(all, came(err))
			}
			return strings.Join(all, " ")
		})
	}
	record := func(fd, command int, kind int16) error {
		return unix.FcntlFlock(uintptr(fd), command, &unix.Flock_t{Type: kind, Len: 10})
	}
	return []call{
		two("flock, shared by two", func(a, b int) []error { return []error{unix.Flock(a, unix.LOCK_SH), unix.Flock(b, unix.LOCK_SH)} }),
		two("flock, exclusive", func(a, b int) []error {
			return []error{unix.Flock(a, unix.LOCK_EX), unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.Flock(a, unix.LOCK_UN), unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB)}
		}),
		two("fcntl for reading", func(a, _ int) []error { return []error{record(a, unix.F_SETLK, unix.F_RDLCK)} }),
		two("fcntl for writing", func(a, _ int) []error { return []error{record(a, unix.F_SETLK, unix.F_WRLCK)} }),
		two("descriptions' for reading", func(a, b int) []error {
			return []error{record(a, unix.F_OFD_SETLK, unix.F_RDLCK), record(b, unix.F_OFD_SETLK, unix.F_RDLCK)}
		}),
		two("lease for reading", func(a, _ int) []error {
			_, err := unix.FcntlInt(uintptr(a), unix.F_SETLEASE, unix.F_RDLCK)
			return []error{err}
		}),
		two("lease for writing", func(a, _ int) []error {
			_, err := unix.FcntlInt(uintptr(a), unix.F_SETLEASE, unix.F_WRLCK)
			return []error{err}
		}),
		two("open file flags", func(a, _ int) []error {
			_, err := unix.FcntlInt(uintptr(a), unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND|unix.O_NOATIME)
			return []error{err}
		}),
	}
}

// xattrCalls read extended attributes with good and bad buffers and names.
func xattrCalls() (list []call) {
	for _, path := range []string{"xattrs", "xattrs.d", "xattrs.l", "file", "acl/user", "acl/user.d", "bin/capable", "null", "fifo"} {
		list = append(list,
			call{"xattr: list of " + path, "", func(g ground) string { return namesOf(g.at(path)) }},
			call{"xattr: size of the list of " + path, "", func(g ground) string {
				n, err := unix.Llistxattr(g.at(path), nil)
				return describe(err, "%d", n)
			}},
			call{"xattr: list of " + path + " into 3 bytes", "", func(g ground) string {
				n, err := unix.Llistxattr(g.at(path), make([]byte, 3))
				return describe(err, "%d", n)
			}})
		for _, name := range []string{
			"user.colour", "user.empty", "user.long", "user.none", "trusted.mine", "security.mine", "security.selinux", "security.capability",
			"trusted.overlay.opaque", "trusted.overlay.overlay.opaque", "trusted.overlay.metacopy", "trusted.overlay.redirect", "user.overlay.redirect",
			aclAccess, aclDefault, "system.none", "odd", "user.", "lustre.x", "user." + strings.Repeat("n", 250), "user." + strings.Repeat("n", 251),
		} {
			for _, size := range []int{0, 2, 8192} {
				list = append(list, call{fmt.Sprintf("xattr: %.40s (%d) of %s by %d bytes", name, len(name), path, size), "", func(g ground) string {
					b := make([]byte, size)
					n, err := unix.Lgetxattr(g.at(path), name, b)
					return describe(err, "%d %.40q", n, b[:min(max(n, 0), size)])
				}})
			}
		}
	}
	return list
}

func namesOf(path string) string {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(path, b)
	names := strings.Split(strings.TrimSuffix(string(b[:max(n, 0)]), "\x00"), "\x00")
	slices.Sort(names)
	return describe(err, "%q", names)
}

// watchCalls have the kernel tell of what happens to files.
func watchCalls() []call {
	watch := func(name, path string, act func(g ground)) call {
		return call{"inotify: " + name, "", func(g ground) string {
			fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
			if err != nil {
				return came(err)
			}
			defer unix.Close(fd)
			if _, err := unix.InotifyAddWatch(fd, g.at(path), unix.IN_ALL_EVENTS); err != nil {
				return came(err)
			}
			act(g)
			return eventsOf(fd)
		}}
	}
	return []call{
		watch("file read", "inline", func(g ground) { objectDigest(g.at("inline")) }),
		watch("file read in a directory", "dir", func(g ground) { objectDigest(g.at("dir/file")) }),
		watch("directory listed", "dir", func(g ground) { withDir(g, "dir", func(fd int) string { return listing(fd, 4096) }) }),
		watch("change refused", "file", func(g ground) { unix.Chmod(g.at("file"), 0o600) }),
	}
}

// eventsOf are the events that are there to read.
func eventsOf(fd int) string {
	b := make([]byte, 65536)
	n, err := unix.Read(fd, b)
	if err != nil {
		return came(err)
	}
	var all []string
	for b = b[:n]; len(b) >= unix.SizeofInotifyEvent; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := unix.SizeofInotifyEvent + int(e.Len)
		name, _, _ := strings.Cut(string(b[unix.SizeofInotifyEvent:end]), "\x00")
		all = append(all, fmt.Sprintf("%#x %s", e.Mask, name))
		b = b[end:]
	}
	return strings.Join(all, ", ")
}
