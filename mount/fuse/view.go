package fuse

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/mount"
)

// Prefixes of xattr names. What follows the first two is for overlayfs, with or without the option userxattr; what follows
// one more "overlay." has been escaped, by composefs or for a nested overlayfs, and belongs to the tree itself.
const (
	trustedOverlay = "trusted.overlay."
	userOverlay    = "user.overlay."
	escape         = "overlay."

	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// The views differ in what they make of xattrs. An image has (composefs escapes trusted.overlay. names alone):
//
//	stored                       plain                overlay   useroverlay
//	trusted.overlay.X            not shown            the same  user.overlay.X
//	trusted.overlay.overlay.X    trusted.overlay.X    the same  trusted.overlay.X
//	user.overlay.X               the same             the same  user.overlay.overlay.X
//	any other                    the same             the same  the same
//
// In the last column overlayfs takes user.overlay.X as its own and shows user.overlay.overlay.X as user.overlay.X, so a mount
// above shows what the tree has, and the tree's own user.overlay.* can't be taken for what composefs wrote. That a tree has
// trusted.overlay.X means nothing to overlayfs there.

// storedName is the name in the image of the xattr that the view shows by a name. It may be built in buf.
func storedName(v mount.View, buf, name []byte) []byte {
	if rest, overlay := bytes.CutPrefix(name, []byte(trustedOverlay)); overlay && v != mount.ViewOverlay {
		return join(buf, trustedOverlay+escape, rest)
	}
	rest, overlay := bytes.CutPrefix(name, []byte(userOverlay))
	if !overlay || v != mount.ViewUserOverlay {
		return name
	}
	if own, escaped := bytes.CutPrefix(rest, []byte(escape)); escaped {
		return join(buf, userOverlay, own)
	}
	return join(buf, trustedOverlay, rest)
}

// shownName is the name by which the view shows a stored xattr: prefix and rest. It is not ok if it shows none.
func shownName(v mount.View, stored []byte) (prefix string, rest []byte, ok bool) {
	if rest, overlay := bytes.CutPrefix(stored, []byte(trustedOverlay)); overlay && v != mount.ViewOverlay {
		if own, escaped := bytes.CutPrefix(rest, []byte(escape)); escaped {
			return trustedOverlay, own, true
		}
		return userOverlay, rest, v == mount.ViewUserOverlay
	}
	if rest, overlay := bytes.CutPrefix(stored, []byte(userOverlay)); overlay && v == mount.ViewUserOverlay {
		return userOverlay + escape, rest, true
	}
	return "", stored, true
}

func join(buf []byte, prefix string, rest []byte) []byte {
	return append(append(buf[:0], prefix...), rest...)
}

// namespaces are the beginnings of names for which EROFS in the kernel has handlers, besides ACLs. What an image has of other
// names is never shown.
var namespaces = [...]string{"user.", "trusted.", "security."}

// checkName gives the error of a native mount for names that no xattr can have there.
func checkName(name []byte, acl bool) error {
	if string(name) == aclAccess || string(name) == aclDefault {
		if !acl {
			return unix.ENODATA // as through overlayfs: to it a layer without ACLs has none (fs/overlayfs/inode.c, ovl_get_acl_path)
		}
		return nil
	}
	for _, n := range namespaces {
		if rest, ok := bytes.CutPrefix(name, []byte(n)); ok {
			if len(rest) == 0 {
				return unix.EINVAL
			}
			return nil
		}
	}
	return unix.EOPNOTSUPP
}

// listed tells whether a native mount lists a stored xattr, by the prefix of its name. Those that only begin like ACLs' are
// listed, though nobody can read them.
func listed(prefix string, acl bool) bool {
	if acl && (prefix == aclAccess || prefix == aclDefault) {
		return true
	}
	for _, n := range namespaces {
		if len(prefix) >= len(n) && prefix[:len(n)] == n {
			return true
		}
	}
	return false
}
