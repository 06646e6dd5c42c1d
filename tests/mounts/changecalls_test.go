package mounts

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const erofsText = "EROFS"

// try is a call that must fail as any change of a read-only tree.
func try(name string, f func(g ground) error) call {
	return call{"change: " + name, erofsText, func(g ground) string { return came(f(g)) }}
}

// any is a call that must come out as on the native mount.
func anyway(name string, f func(g ground) error) call {
	return call{"change: " + name, "", func(g ground) string { return came(f(g)) }}
}

// open opens and closes again.
func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func changeCalls() []call {
	list := append(openChanges(), nameChanges()...)
	list = append(list, attrChanges()...)
	return append(list, throughFD()...)
}

func openChanges() []call {
	opening := func(name string, flags int) func(g ground) error {
		return func(g ground) error { return open(g.at(name), flags) }
	}
	return []call{
		try("open O_WRONLY", opening("file", unix.O_WRONLY)),
		try("open O_RDWR", opening("file", unix.O_RDWR)),
		try("open O_RDONLY|O_TRUNC", opening("file", unix.O_RDONLY|unix.O_TRUNC)),
		try("open O_WRONLY|O_APPEND", opening("inline", unix.O_WRONLY|unix.O_APPEND)),
		try("open O_CREAT", opening("new", unix.O_RDONLY|unix.O_CREAT)),
		try("open O_CREAT|O_EXCL", opening("new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)),
		try("open O_CREAT through a dangling symlink", opening("dangling", unix.O_WRONLY|unix.O_CREAT)),
		try("open O_TMPFILE", opening("dir", unix.O_WRONLY|unix.O_TMPFILE)),
		anyway("open O_CREAT of what is there", opening("file", unix.O_RDONLY|unix.O_CREAT)),
		anyway("open O_CREAT|O_EXCL of what is there", opening("file", unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL)),
		anyway("open O_CREAT below nothing", opening("nothing/new", unix.O_WRONLY|unix.O_CREAT)),
		anyway("open O_CREAT of a directory", opening("dir", unix.O_RDONLY|unix.O_CREAT)),
		anyway("open O_CREAT with a slash", opening("new/", unix.O_WRONLY|unix.O_CREAT)),
		anyway("open O_WRONLY of a directory", opening("dir", unix.O_WRONLY)),
		anyway("open O_RDWR of a fifo", opening("fifo", unix.O_RDWR)),
		anyway("open O_WRONLY of a fifo without a reader", opening("fifo", unix.O_WRONLY|unix.O_NONBLOCK)),
		anyway("open O_RDWR of a device", opening("null", unix.O_RDWR)),
		anyway("open O_WRONLY|O_PATH", opening("file", unix.O_WRONLY|unix.O_PATH)),
	}
}

func nameChanges() []call {
	const cwd = unix.AT_FDCWD
	rename := func(from, to string, flags uint) func(g ground) error {
		return func(g ground) error { return unix.Renameat2(cwd, g.at(from), cwd, g.at(to), flags) }
	}
	mknod := func(mode uint32) func(g ground) error {
		return func(g ground) error { return unix.Mknod(g.at("new"), mode|0o644, 0) }
	}
	return []call{
		try("mkdir", func(g ground) error { return unix.Mkdir(g.at("new"), 0o755) }),
		anyway("mkdir of what is there", func(g ground) error { return unix.Mkdir(g.at("dir"), 0o755) }),
		anyway("mkdir below nothing", func(g ground) error { return unix.Mkdir(g.at("none/new"), 0o755) }),
		try("rmdir", func(g ground) error { return unix.Rmdir(g.at("empty")) }),
		try("rmdir of one that isn't empty", func(g ground) error { return unix.Rmdir(g.at("dir")) }),
		anyway("rmdir of a file", func(g ground) error { return unix.Rmdir(g.at("file")) }),
		anyway("rmdir of nothing", func(g ground) error { return unix.Rmdir(g.at("none")) }),
		try("unlink", func(g ground) error { return unix.Unlink(g.at("file")) }),
		try("unlink of a symlink", func(g ground) error { return unix.Unlink(g.at("loop")) }),
		anyway("unlink of a directory", func(g ground) error { return unix.Unlink(g.at("dir")) }),
		anyway("unlink of nothing", func(g ground) error { return unix.Unlink(g.at("none")) }),
		try("rename", rename("file", "new", 0)),
		try("rename over a file", rename("file", "inline", 0)),
		try("rename of a directory", rename("dir", "new", 0)),
		try("exchange", rename("file", "inline", unix.RENAME_EXCHANGE)),
		anyway("rename without replacing", rename("file", "inline", unix.RENAME_NOREPLACE)),
		anyway("rename of nothing", rename("none", "new", 0)),
		anyway("rename into itself", rename("dir", "dir/sub/new", 0)),
		anyway("rename to elsewhere", func(g ground) error { return unix.Rename(g.at("file"), join(g.tmp, "new")) }),
		try("link", func(g ground) error { return unix.Link(g.at("file"), g.at("new")) }),
		anyway("link of a directory", func(g ground) error { return unix.Link(g.at("dir"), g.at("new")) }),
		try("symlink", func(g ground) error { return unix.Symlink("file", g.at("new")) }),
		anyway("symlink of what is there", func(g ground) error { return unix.Symlink("file", g.at("link")) }),
		try("mknod of a file", mknod(unix.S_IFREG)),
		try("mknod of a fifo", mknod(unix.S_IFIFO)),
		try("mknod of a socket", mknod(unix.S_IFSOCK)),
		try("mknod of a whiteout", mknod(unix.S_IFCHR)),
		try("bind of a socket", bindSocket),
	}
}

func bindSocket(g ground) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The address has room for 107 bytes, so the path goes through a descriptor.
	dir, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Bind(fd, &unix.SockaddrUnix{Name: fdPath(dir) + "/new"})
}

func attrChanges() []call {
	const cwd = unix.AT_FDCWD
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	some := []unix.Timespec{unix.NsecToTimespec(int64(time.Second)), unix.NsecToTimespec(0)}
	omit := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	times := func(name string, ts []unix.Timespec, flags int) func(g ground) error {
		return func(g ground) error { return unix.UtimesNanoAt(cwd, g.at(name), ts, flags) }
	}
	return []call{
		try("chmod", func(g ground) error { return unix.Chmod(g.at("file"), 0o600) }),
		try("chmod of a directory", func(g ground) error { return unix.Chmod(g.at("dir"), 0o700) }),
		try("chmod to what it is", func(g ground) error { return unix.Chmod(g.at("file"), 0o644) }),
		anyway("chmod of a symlink", func(g ground) error { return unix.Fchmodat(cwd, g.at("link"), 0o600, unix.AT_SYMLINK_NOFOLLOW) }),
		try("chown", func(g ground) error { return unix.Chown(g.at("file"), alice, staff) }),
		try("chown to nobody new", func(g ground) error { return unix.Chown(g.at("file"), -1, -1) }),
		try("lchown of a symlink", func(g ground) error { return unix.Lchown(g.at("link"), alice, staff) }),
		try("utimensat", times("file", some, 0)),
		try("utimensat to now", times("file", now, 0)),
		try("utimensat of a symlink", times("link", some, unix.AT_SYMLINK_NOFOLLOW)),
		anyway("utimensat of nothing", times("file", omit, 0)),
		try("truncate", func(g ground) error { return unix.Truncate(g.at("file"), 1) }),
		try("truncate to its size", func(g ground) error { return unix.Truncate(g.at("file"), int64(len(groundData))) }),
		anyway("truncate of a directory", func(g ground) error { return unix.Truncate(g.at("dir"), 1) }),
		anyway("truncate to a negative size", func(g ground) error { return unix.Truncate(g.at("file"), -1) }),
		try("setxattr", func(g ground) error { return unix.Setxattr(g.at("file"), "user.new", []byte("v"), 0) }),
		try("setxattr of what is there", func(g ground) error {
			return unix.Setxattr(g.at("xattrs"), "user.colour", []byte("red"), unix.XATTR_REPLACE)
		}),
		try("setxattr trusted", func(g ground) error { return unix.Setxattr(g.at("file"), "trusted.new", []byte("v"), 0) }),
		try("setxattr security", func(g ground) error { return unix.Setxattr(g.at("file"), "security.new", []byte("v"), 0) }),
		try("setxattr of a capability", func(g ground) error { return unix.Setxattr(g.at("file"), "security.capability", netRaw, 0) }),
		try("setxattr of an ACL", func(g ground) error { return unix.Setxattr(g.at("file"), aclAccess, (acl{user: 7}).encode(), 0) }),
		anyway("setxattr of an unknown kind", func(g ground) error { return unix.Setxattr(g.at("file"), "odd.new", []byte("v"), 0) }),
		try("lsetxattr of a symlink", func(g ground) error { return unix.Lsetxattr(g.at("link"), "trusted.new", []byte("v"), 0) }),
		try("removexattr", func(g ground) error { return unix.Removexattr(g.at("xattrs"), "user.colour") }),
		try("removexattr of none", func(g ground) error { return unix.Removexattr(g.at("file"), "user.none") }),
		try("removexattr of an ACL", func(g ground) error { return unix.Removexattr(g.at("acl/user"), aclAccess) }),
	}
}

// throughFD are changes by a descriptor that was opened for reading.
func throughFD() []call {
	through := func(name, want string, f func(fd int) error) call {
		return call{"change: " + name, want, func(g ground) string {
			fd, err := unix.Open(g.at("file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return came(err)
			}
			defer unix.Close(fd)
			return came(f(fd))
		}}
	}
	return []call{
		through("write", "", func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err }),
		through("ftruncate", "", func(fd int) error { return unix.Ftruncate(fd, 1) }),
		through("fallocate", "", func(fd int) error { return unix.Fallocate(fd, 0, 0, 4096) }),
		through("fchmod", erofsText, func(fd int) error { return unix.Fchmod(fd, 0o600) }),
		through("fchown", erofsText, func(fd int) error { return unix.Fchown(fd, alice, staff) }),
		through("fsetxattr", erofsText, func(fd int) error { return unix.Fsetxattr(fd, "user.new", []byte("v"), 0) }),
		through("fremovexattr", erofsText, func(fd int) error { return unix.Fremovexattr(fd, "user.none") }),
		through("futimens", erofsText, func(fd int) error { return unix.Futimes(fd, []unix.Timeval{{}, {}}) }),
		through("open it again for writing", erofsText, func(fd int) error { return open(procPath(fd), unix.O_WRONLY) }),
		through("set flags", "", func(fd int) error {
			return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, unix.STATX_ATTR_IMMUTABLE)
		}),
		through("fsync", "", unix.Fsync),
		through("fdatasync", "", unix.Fdatasync),
		through("syncfs", "", unix.Syncfs),
	}
}
