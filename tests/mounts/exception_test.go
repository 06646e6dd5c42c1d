package mounts

import (
	"fmt"
	"slices"
	"strings"
)

// exception is a difference between the outcomes of calls on the native mount and on a mode's.
type exception struct {
	calls  string // the beginning of their names
	modes  func(m mode) bool
	allow  func(native, got string) bool
	reason string
}

func every(mode) bool           { return true }
func served(m mode) bool        { return m.served }
func whatever(_, _ string) bool { return true }

// exceptions are all that may differ. One that nothing needs any more is an error.
var exceptions = []exception{
	{
		"statx: mask of ", every,
		func(native, got string) bool { return number(got) == number(native)|0x20 },
		"EROFS keeps no times of access and says so (STATX_ATIME); FUSE has no way to",
	},
	{
		"statx: attributes of ", every,
		func(native, got string) bool { return number(got) == number(native)&^0x10 },
		"EROFS says STATX_ATTR_IMMUTABLE of all its files; FUSE has no way to",
	},
	{
		"statx: blocks of /hole", served, whatever,
		"overlayfs asks the object; the server tells the file's size, as EROFS does for what it has itself",
	},
	{
		"seek: SEEK_", served,
		func(_, got string) bool { return number(got) == 100_000 || number(got) == len(holeData) },
		"the server says nothing of holes, so all is data (linux/fs.h allows it)",
	},
	{
		"statfs: type", served, whatever,
		"the file system is another",
	},
	{
		"dir: / end", served,
		func(native, got string) bool { return native == "EINVAL" && got == "ok" },
		"overlayfs reads its root, which could be merged of several layers, in another way than other directories",
	},
	{
		"handle: name_to_handle_at", served,
		func(native, got string) bool { return native == "ENOTSUP" && got == "ok" },
		"overlayfs exports nothing without nfs_export=on; FUSE does",
	},
	{
		"ioctl: FIGETBSZ", served,
		func(native, got string) bool { return native == "EINVAL" },
		"an overlayfs that is made of several file systems has no block size for it",
	},
	{
		"xattr: size of the list of ", served,
		func(native, got string) bool { return number(got) < number(native) },
		"overlayfs counts its own names, which it then leaves out; the size is a bound",
	},
	{
		"xattr: list of file into 3 bytes", served,
		func(native, got string) bool { return native == "ERANGE" && got == "0" },
		"the same: a list that would have room is refused",
	},
	{
		"names: ", served,
		func(native, got string) bool { return withoutTrusted(got) == native },
		"names of trusted xattrs are listed for all: requests don't tell who asks (FUSE_ALLOW_IDMAP). Values are root's alone",
	},
}

// number is a decimal or hexadecimal outcome; -1: none.
func number(s string) int {
	n := -1
	fmt.Sscanf(s, "%v", &n)
	return n
}

// withoutTrusted takes the names of trusted xattrs out of what namesOf gave.
func withoutTrusted(list string) string {
	names := strings.Split(strings.Trim(list, "[]"), " ")
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, `"trusted.`) })
	return "[" + strings.Join(names, " ") + "]"
}

// judge says what is wrong with a call's outcome; empty: nothing. It notes which exceptions were needed.
func (m mode) judge(c call, native, got string, needed map[string]bool) string {
	if got == native {
		return ""
	}
	for _, e := range exceptions {
		if strings.HasPrefix(c.name, e.calls) && e.modes(m) && e.allow(native, got) {
			needed[e.calls] = true
			return ""
		}
	}
	return fmt.Sprintf("%s, native %s", got, native)
}
