package mounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// directoryCalls read directories in all the ways in which libraries do.
func directoryCalls() (list []call) {
	for _, dir := range []string{"", "dir", "empty", "big", "acl"} {
		// Less than the longest name takes, an odd size, a page, and what holds thousands of entries.
		for _, size := range []int{24, 48, 100, 1000, 4096, 32768, 1 << 20} {
			list = append(list, call{fmt.Sprintf("dir: /%s by %d bytes", dir, size), "", func(g ground) string {
				return withDir(g, dir, func(fd int) string { return listing(fd, size) })
			}})
		}
		for name, f := range map[string]func(fd int) string{
			"rewound": rewound, "continued at each offset": seeked, "after its end": afterEnd, "by two at once": twice,
			"from an offset that nobody gave": offTheTrack, "end": seekEnd,
		} {
			list = append(list, call{fmt.Sprintf("dir: /%s %s", dir, name), "", func(g ground) string { return withDir(g, dir, f) }})
		}
	}
	return append(list,
		call{"dir: read(2) of one", "", func(g ground) string {
			return withDir(g, "dir", func(fd int) string { _, err := unix.Read(fd, make([]byte, 100)); return came(err) })
		}},
		call{"dir: getdents of a file", "", func(g ground) string {
			fd, err := unix.Open(g.at("file"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return came(err)
			}
			defer unix.Close(fd)
			_, err = unix.Getdents(fd, make([]byte, 1000))
			return came(err)
		}},
		call{"dir: types as lstat has them", "", typesAgree},
		call{"dir: fsync of one", "", func(g ground) string { return withDir(g, "dir", func(fd int) string { return came(unix.Fsync(fd)) }) }},
	)
}

func withDir(g ground, dir string, f func(fd int) string) string {
	fd, err := unix.Open(g.at(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return came(err)
	}
	defer unix.Close(fd)
	return f(fd)
}

// place is an entry and the offset behind it.
type located struct {
	name string
	next int64
}

// read reads entries with one call, none at the end.
func readSome(fd, size int) (list []located, err error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	for b := buf[:max(n, 0)]; len(b) > 0 && err == nil; {
		var e entry
		next := int64(binary.NativeEndian.Uint64(b[8:]))
		if e, b, err = parseDirent(b); err == nil {
			list = append(list, located{e.name, next})
		}
	}
	return list, err
}

func readAll(fd, size int) (list []located, err error) {
	for {
		some, err := readSome(fd, size)
		if err != nil || len(some) == 0 {
			return list, err
		}
		list = append(list, some...)
	}
}

// summary tells of names in short, and of those that are there twice.
func summary(list []located) string {
	var names []string
	for _, e := range list {
		names = append(names, e.name)
	}
	slices.Sort(names)
	all := len(names)
	names = slices.Compact(names)
	return fmt.Sprintf("%d names, %d twice, %.16s", all, all-len(names), digestOf([]byte(strings.Join(names, "/"))))
}

func listing(fd, size int) string {
	list, err := readAll(fd, size)
	return describe(err, "%s", summary(list))
}

func rewound(fd int) string {
	if _, err := readSome(fd, 1000); err != nil {
		return came(err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return came(err)
	}
	return listing(fd, 4096)
}

// seeked goes back to the offsets of some entries, in no order, and finds what came next the first time.
func seeked(fd int) string {
	list, err := readAll(fd, 4096)
	if err != nil {
		return came(err)
	}
	for i := range min(len(list), 500) {
		k := i * 7919 % len(list)
		if off, err := unix.Seek(fd, list[k].next, unix.SEEK_SET); err != nil || off != list[k].next {
			return fmt.Sprintf("lseek to %d: %d, %v", list[k].next, off, err)
		}
		some, err := readSome(fd, 600)
		switch {
		case err != nil:
			return came(err)
		case k == len(list)-1 && len(some) > 0:
			return fmt.Sprintf("%q behind the last", some[0].name)
		case k < len(list)-1 && (len(some) == 0 || some[0].name != list[k+1].name):
			return fmt.Sprintf("behind %q something else than %q", list[k].name, list[k+1].name)
		}
	}
	return "each followed by the same"
}

func afterEnd(fd int) string {
	if _, err := readAll(fd, 4096); err != nil {
		return came(err)
	}
	for range 3 {
		if some, err := readSome(fd, 4096); err != nil || len(some) > 0 {
			return fmt.Sprintf("%d more, %v", len(some), err)
		}
	}
	return "nothing"
}

// twice reads by two descriptors in turn.
func twice(fd int) string {
	other, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return came(err)
	}
	defer unix.Close(other)
	var lists [2][]located
	for more := true; more; {
		more = false
		for i, h := range []int{fd, other} {
			some, err := readSome(h, 500+200*i)
			if err != nil {
				return came(err)
			}
			lists[i] = append(lists[i], some...)
			more = more || len(some) > 0
		}
	}
	return summary(lists[0]) + "; " + summary(lists[1])
}

// offTheTrack seeks to offsets that no entry had; whatever is read there must be names of the directory, and end.
func offTheTrack(fd int) string {
	list, err := readAll(fd, 4096)
	if err != nil {
		return came(err)
	}
	known := map[string]bool{}
	for _, e := range list {
		known[e.name] = true
	}
	for _, off := range []int64{1, 3, 4097, 1 << 20, 1<<32 - 1, 1 << 33, 1 << 62, 1<<63 - 1} {
		if _, err := unix.Seek(fd, off, unix.SEEK_SET); errors.Is(err, unix.EINVAL) {
			continue
		} else if err != nil {
			return came(err)
		}
		some, err := readAll(fd, 4096)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Sprintf("at %d: %v", off, err)
		}
		if len(some) > len(list) || slices.ContainsFunc(some, func(e located) bool { return !known[e.name] }) {
			return fmt.Sprintf("at %d: names that aren't there, or too many", off)
		}
	}
	_, err = unix.Seek(fd, -1, unix.SEEK_SET)
	return "only its names; before its beginning: " + came(err)
}

func seekEnd(fd int) string {
	_, err := unix.Seek(fd, 0, unix.SEEK_END)
	return came(err)
}

func typesAgree(g ground) string {
	checked := 0
	for _, dir := range []string{"", "dir", "dir/sub", "owned", "bin"} {
		bad := withDir(g, dir, func(fd int) string {
			list, err := entries(fd, make([]byte, 8192))
			if err != nil {
				return came(err)
			}
			for _, e := range list {
				var st unix.Stat_t
				if err := unix.Fstatat(fd, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					return came(err)
				}
				if uint32(e.fileType) != st.Mode>>12 {
					return fmt.Sprintf("%s/%s: %d, %o", dir, e.name, e.fileType, st.Mode)
				}
				checked++
			}
			return ""
		})
		if bad != "" {
			return bad
		}
	}
	return fmt.Sprint(checked)
}
