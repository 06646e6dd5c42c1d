package mounts

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// procPath is a path that leads to what is behind a descriptor of this process.
func procPath(fd int) string { return fmt.Sprintf("/proc/thread-self/fd/%d", fd) }

func fdPath(f *os.File) string { return procPath(int(f.Fd())) }

// pathCalls resolve good and bad paths in several ways.
func pathCalls() (list []call) {
	paths := map[string]string{
		"ENOENT":                   "none",
		"ENOENT below nothing":     "none/more",
		"ENOTDIR":                  "file/more",
		"ENOTDIR by a slash":       "file/",
		"ENOTDIR by two dots":      "file/..",
		"ENOTDIR below a fifo":     "fifo/more",
		"ENOTDIR by a symlink":     "filelink",
		"ELOOP":                    "loop",
		"ELOOP of two":             "loop-a/more",
		"ELOOP of too many":        "dir/sub/0",
		"ten symlinks":             "dir/sub/35",
		"dangling":                 "dangling",
		"ENAMETOOLONG":             longName + "n",
		"ENAMETOOLONG in between":  longName + "n/more",
		"longest name":             longName,
		"longest name, not there":  strings.Repeat("m", 255),
		"ENAMETOOLONG of the path": strings.Repeat("./", 2048) + "file",
		"long target":              "long",
		"symlink":                  "link",
		"symlink to a directory":   "dirlink/sub/45",
		"symlink with a slash":     "dirlink/",
		"symlink to one with it":   "slashlink/file",
		"symlink up":               "dir/back",
		"symlink to the root":      "rootlink/",
		"symlink out of the tree":  "uplink/passwd/none",
		"dots":                     "dir/./sub/../file",
		"slashes":                  "dir///sub//45",
		"empty name":               "",
		"name of odd bytes":        "\x01\xff\xfe \n",
		"directory":                "dir",
		"directory with a slash":   "dir/",
		"device":                   "null",
		"device nobody has":        "block",
		"socket":                   "socket",
		"case matters":             "FILE",
		"prefix of a name":         "fil",
		"name with something more": "file-",
		"whiteouts of the root":    "00",
		"last whiteout":            "ff",
	}
	for name, path := range paths {
		list = append(list,
			call{"path: stat, " + name, "", func(g ground) string {
				var st unix.Stat_t
				err := unix.Stat(g.at(path), &st)
				return describe(err, "%o", st.Mode)
			}},
			call{"path: lstat, " + name, "", func(g ground) string {
				var st unix.Stat_t
				err := unix.Lstat(g.at(path), &st)
				return describe(err, "%o", st.Mode)
			}},
			opened(name, path, "O_RDONLY", unix.O_NONBLOCK),
			opened(name, path, "O_PATH", unix.O_PATH),
			opened(name, path, "O_NOFOLLOW", unix.O_NOFOLLOW|unix.O_NONBLOCK),
			opened(name, path, "O_DIRECTORY", unix.O_DIRECTORY),
			opened(name, path, "O_PATH|O_NOFOLLOW", unix.O_PATH|unix.O_NOFOLLOW),
			call{"path: readlink, " + name, "", func(g ground) string {
				b := make([]byte, 8192)
				n, err := unix.Readlink(g.at(path), b)
				return describe(err, "%.60q of %d", b[:max(n, 0)], n)
			}},
			call{"path: chdir, " + name, "", func(g ground) string { return came(enter(g.at(path))) }},
		)
	}
	return append(list, moreOpens()...)
}

func opened(name, path, how string, flags int) call {
	return call{"path: open " + how + ", " + name, "", func(g ground) string { return came(open(g.at(path), flags)) }}
}

// enter changes to a directory and back, where the process was.
func enter(path string) error {
	old, err := unix.Open(".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := unix.Chdir(path); err != nil {
		return err
	}
	return unix.Fchdir(old)
}

// moreOpens have flags that matter only to some files, and uses of O_PATH descriptors.
func moreOpens() []call {
	flags := func(name, path string, flags int) call {
		return call{"open: " + name, "", func(g ground) string { return came(open(g.at(path), flags)) }}
	}
	return []call{
		flags("O_DIRECT", "file", unix.O_DIRECT),
		flags("O_NOATIME", "file", unix.O_NOATIME),
		flags("O_SYNC", "file", unix.O_SYNC),
		flags("O_APPEND", "file", unix.O_APPEND),
		flags("O_ASYNC", "file", unix.O_ASYNC),
		flags("O_LARGEFILE", "file", unix.O_LARGEFILE),
		flags("O_RDONLY|O_DIRECTORY of the root", "", unix.O_DIRECTORY),
		withPath("fstat by O_PATH", "file", func(fd int) string {
			var st unix.Stat_t
			err := unix.Fstat(fd, &st)
			return describe(err, "%o %d", st.Mode, st.Size)
		}),
		withPath("read by O_PATH", "file", func(fd int) string { _, err := unix.Read(fd, make([]byte, 1)); return came(err) }),
		withPath("open again by O_PATH", "file", func(fd int) string { return came(open(procPath(fd), unix.O_RDONLY)) }),
		withPath("xattr by O_PATH", "xattrs", func(fd int) string {
			_, err := unix.Fgetxattr(fd, "user.colour", make([]byte, 100))
			return came(err)
		}),
		withPath("readlink of a symlink's own descriptor", "link", func(fd int) string {
			b := make([]byte, 100)
			n, err := unix.Readlinkat(fd, "", b)
			return describe(err, "%q", b[:max(n, 0)])
		}),
		withPath("fchdir by O_PATH", "dir", func(fd int) string { return came(enter(procPath(fd))) }),
		withPath("getdents by O_PATH", "dir", func(fd int) string { _, err := unix.Getdents(fd, make([]byte, 1000)); return came(err) }),
		withPath("openat by O_PATH", "dir", func(fd int) string {
			h, err := unix.Openat(fd, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(h)
			}
			return came(err)
		}),
		withPath("name that /proc shows", "dir/sub", func(fd int) string {
			name, err := os.Readlink(procPath(fd))
			return describe(err, "%s", name[max(0, len(name)-8):])
		}),
	}
}

// withPath does something with an O_PATH descriptor, of a symlink itself.
func withPath(name, path string, f func(fd int) string) call {
	return call{"open: " + name, "", func(g ground) string {
		fd, err := unix.Open(g.at(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return came(err)
		}
		defer unix.Close(fd)
		return f(fd)
	}}
}

// resolveCached is RESOLVE_CACHED of linux/openat2.h.
const resolveCached = 0x20

// resolveCalls are openat2(2)'s restrictions.
func resolveCalls() (list []call) {
	restrictions := map[string]uint64{
		"no symlinks": unix.RESOLVE_NO_SYMLINKS, "beneath": unix.RESOLVE_BENEATH, "in root": unix.RESOLVE_IN_ROOT,
		"no xdev": unix.RESOLVE_NO_XDEV, "no magic links": unix.RESOLVE_NO_MAGICLINKS,
	}
	for name, resolve := range restrictions {
		for _, path := range []string{
			"file", "link", "dirlink/file", "uplink/passwd", "rootlink/none", "../none", "dir/../../none", "dir/../file", "loop",
			"none", "file/more", "dangling", "dir/sub/35", "slashlink",
		} {
			list = append(list, call{"openat2 " + name + ": " + path, "", func(g ground) string {
				return beneath(g, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: resolve})
			}})
		}
	}
	return append(list, call{"openat2 cached: of what was just looked up", "", func(g ground) string {
		unix.Stat(g.at("dir/file"), new(unix.Stat_t))
		return beneath(g, "dir/file", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	}})
}

func beneath(g ground, path string, how *unix.OpenHow) string {
	dir, err := unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return came(err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, how)
	if err == nil {
		unix.Close(fd)
	}
	return came(err)
}
