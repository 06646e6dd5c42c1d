package mounts

import (
	"encoding/binary"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/tree"
)

// readerRecords are the records that a tree should have when it is mounted, by what our reader says of its image and by the
// objects. by are differences that not all modes have.
func readerRecords(m *erofs.Image, tr *tree.Tree, objects string, by []difference) []*record {
	known := map[string]string{}
	rs := treeRecords(tr, func(n tree.Node) string {
		payload := string(tr.Payload(n))
		switch {
		case payload == "" && tr.Attr(n).Size > 0:
			return noPath
		case payload == "":
			return digestOf(nil)
		case strings.Contains("/"+payload+"/", "//"):
			return badPath
		case known[payload] == "":
			known[payload] = objectDigest(filepath.Join(objects, payload))
		}
		return known[payload]
	})
	marked := whiteoutParents(rs)
	for _, r := range rs {
		if !m.HasACL() { // the mount has noacl, which takes away the ACLs' prefixes
			dropXattrs(r, isACLPrefixed)
		}
		if marked[r.path] {
			markParent(r, m.Version())
		}
		for _, d := range append(kernelDifferences[:len(kernelDifferences):len(kernelDifferences)], by...) {
			d.apply(r)
		}
	}
	return rs
}

// whiteoutParents are the directories that hold whiteouts, which the image says of them.
func whiteoutParents(rs []*record) map[string]bool {
	parents := map[string]bool{}
	for _, r := range rs {
		if r.isWhiteout() && !r.again {
			parents[path.Dir(r.path)] = true
		}
	}
	return parents
}

func (r *record) isWhiteout() bool { return r.is(tree.CharDevice) && r.attr.Rdev == 0 }

// markParent adds what tells an overlayfs that has the mount as its lower layer of the whiteouts in a directory.
func markParent(r *record, version int) {
	for _, space := range []string{"trusted.overlay.", "user.overlay."} {
		if version > 0 {
			r.xattrs[space+"opaque"] = "x"
		}
		r.xattrs[space+"whiteouts"] = ""
	}
}

// Contents of files that overlayfs does not get to open: the image has a digest but no path, or a path with nothing before,
// between or behind its slashes.
const (
	noPath  = "!nopath"
	badPath = "!badpath"
)

func objectDigest(path string) string {
	if st, err := os.Stat(path); err == nil && st.Size() > wholeMax {
		return objectEnds(path, st.Size())
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, unix.EISDIR): // overlayfs takes nothing but files
		return "!ENOENT"
	case err != nil:
		return failed(err)
	}
	return digestOf(b)
}

func objectEnds(path string, size int64) string {
	f, err := os.Open(path)
	if err != nil {
		return failed(err)
	}
	defer f.Close()
	return endsOf(f, size)
}

// difference is something that an image can hold and that is shown otherwise when it is mounted, or not at all.
type difference struct {
	name   string
	reason string
	apply  func(r *record) // makes of what is in the image what is seen
}

// kernelDifferences are there in each mode.
var kernelDifferences = []difference{
	{
		"whiteout of the image's input",
		"it is stored as an empty file with marks, for an overlayfs that has the mount as a layer",
		func(r *record) {
			if r.isWhiteout() {
				r.attr.Mode = r.attr.Mode&^tree.TypeMask | tree.Regular
				r.data = digestOf(nil)
				r.xattrs["trusted.overlay.whiteout"] = ""
				r.xattrs["user.overlay.whiteout"] = ""
			}
		},
	},
	{
		"xattr without handler",
		"EROFS knows the prefixes user., trusted., security., system.posix_acl_access and system.posix_acl_default; other names are not listed",
		func(r *record) { dropXattrs(r, func(name string) bool { return !hasHandler(name) }) },
	},
	{
		"name that only begins as an ACL's",
		"it is stored with the ACL's prefix, so it is listed, and the VFS finds no handler for it",
		func(r *record) {
			r.failXattrs("!ENOTSUP", func(name string) bool { return isACLPrefixed(name) && !isACL(name) })
		},
	},
	{
		"ACL of a symlink",
		"the VFS has no ACLs of symlinks",
		func(r *record) {
			r.failXattrs("!ENOTSUP", func(name string) bool { return isACL(name) && r.is(tree.Symlink) })
		},
	},
	{
		"ACL that the kernel can't read",
		"it reads the value (fs/posix_acl.c, posix_acl_from_xattr) and gives an error for what it doesn't understand",
		func(r *record) {
			for name, value := range r.xattrs {
				if isACL(name) && aclError(value) != "" {
					r.xattrs[name] = aclError(value)
				}
			}
		},
	},
	{
		"user xattr of what is neither file nor directory",
		"the VFS keeps these names for files and directories",
		func(r *record) {
			r.failXattrs("!ENODATA", func(name string) bool {
				return strings.HasPrefix(name, "user.") && !r.is(tree.Regular) && !r.is(tree.Directory)
			})
		},
	},
}

// emptyACL is the value of an ACL that is stored as nothing.
const emptyACL = "!empty"

// erofsDifferences are there where the kernel reads the image.
var erofsDifferences = []difference{{
	"empty ACL",
	"EROFS has it read as any other, and it is too short",
	func(r *record) { r.failXattrs("!EINVAL", r.hasEmptyACL) },
}}

// fuseDifferences are there where a FUSE server reads the image.
var fuseDifferences = []difference{{
	"empty ACL",
	"to FUSE it is as none (fs/fuse/acl.c, __fuse_get_acl)",
	func(r *record) { r.failXattrs("!ENODATA", r.hasEmptyACL) },
}}

func (r *record) hasEmptyACL(name string) bool { return r.xattrs[name] == emptyACL }

// overlayDifferences are there where overlayfs opens the objects.
var overlayDifferences = []difference{
	{
		"path with an empty component",
		"overlayfs takes no such redirect (fs/overlayfs/namei.c, ovl_get_redirect_xattr)",
		func(r *record) {
			if r.data == badPath {
				r.failStat("!EINVAL")
			}
		},
	},
	{
		"content without a path",
		"overlayfs finds no object for it and fails the lookup",
		func(r *record) {
			if r.data == noPath {
				r.failStat("!EIO")
			}
		},
	},
}

// servedDifferences are there where a FUSE server reads the objects: it opens them when they are read.
var servedDifferences = []difference{
	{
		"content that isn't there",
		"whatever is wrong with path or object, the file can be looked up and opened, and then not be read",
		func(r *record) {
			if strings.HasPrefix(r.data, "!") {
				r.data = "!EIO"
			}
		},
	},
}

// verifiedDifferences are there where content is checked.
var verifiedDifferences = []difference{
	{
		"content without a digest",
		"there is nothing to check it with, so it isn't shown",
		func(r *record) {
			if r.unchecked {
				r.data = "!EIO"
			}
		},
	},
}

func hasHandler(name string) bool {
	for _, prefix := range []string{"user.", "trusted.", "security.", aclAccess, aclDefault} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func isACL(name string) bool { return name == aclAccess || name == aclDefault }

func isACLPrefixed(name string) bool {
	return strings.HasPrefix(name, aclAccess) || strings.HasPrefix(name, aclDefault)
}

// aclError is the error that the kernel gives for an ACL; empty: none.
func aclError(value string) string {
	const head, entrySize, version = 4, 8, 2
	switch {
	case strings.HasPrefix(value, "!E"): // an error already
		return ""
	case value == "":
		return emptyACL
	case len(value) < head:
		return "!EINVAL"
	case binary.LittleEndian.Uint32([]byte(value)) != version:
		return "!ENOTSUP"
	case (len(value)-head)%entrySize != 0:
		return "!EINVAL"
	}
	return ""
}

// failStat makes the record one of a name of which stat(2) only gives an error.
func (r *record) failStat(err string) { *r = record{path: r.path, odd: []string{"stat=" + err}} }

func dropXattrs(r *record, which func(name string) bool) {
	for name := range r.xattrs {
		if which(name) {
			delete(r.xattrs, name)
		}
	}
}

// failXattrs makes the value of each attribute of some names an error.
func (r *record) failXattrs(err string, which func(name string) bool) {
	for name := range r.xattrs {
		if which(name) {
			r.xattrs[name] = err
		}
	}
}
