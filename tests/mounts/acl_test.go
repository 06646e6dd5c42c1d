package mounts

import "encoding/binary"

// Names of the xattrs that hold ACLs (linux/xattr.h).
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// acl is a POSIX ACL; users and groups are in ascending order of their ids.
type acl struct {
	user, group, mask, other uint16
	users, groups            []aclEntry
}

type aclEntry struct {
	id   uint32
	perm uint16
}

// encode is the ACL as an xattr's value (linux/posix_acl_xattr.h): a version, then of each entry tag, permissions and id.
func (a acl) encode() []byte {
	const (
		version = 2
		noID    = ^uint32(0)

		tagUserObj, tagUser, tagGroupObj, tagGroup, tagMask, tagOther = 1, 2, 4, 8, 16, 32
	)
	b := binary.LittleEndian.AppendUint32(nil, version)
	add := func(tag, perm uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	add(tagUserObj, a.user, noID)
	for _, u := range a.users {
		add(tagUser, u.perm, u.id)
	}
	add(tagGroupObj, a.group, noID)
	for _, g := range a.groups {
		add(tagGroup, g.perm, g.id)
	}
	if len(a.users)+len(a.groups) > 0 {
		add(tagMask, a.mask, noID)
	}
	add(tagOther, a.other, noID)
	return b
}
