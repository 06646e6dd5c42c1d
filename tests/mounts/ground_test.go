package mounts

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/tree"
)

// Users and groups of the ground.
const (
	alice   = 1000
	bob     = 1001
	staff   = 2000
	helpers = 2001
)

// How many names the ground's directory big has: so many that no reader gets them at once, or few.
const (
	bigEntries = 10_000
	fewEntries = 10
)

var (
	// groundData is the content of the ground's file, over more than one read of 128 KiB.
	groundData = randomBytes(300_001, 1)
	// holeData is that of the file whose object has a hole between two pieces of data.
	holeData = append(append(randomBytes(8192, 2), make([]byte, 1<<20)...), randomBytes(8192, 3)...)

	longName   = strings.Repeat("n", 255)
	longTarget = strings.Repeat("t/", 2047) + "t" // 4,095 bytes, the most
)

func randomBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// writeGround makes the image that calls are tried on, in dir, with so many entries in its largest directory.
func writeGround(t testing.TB, dir string, entries int) image {
	t.Helper()
	o := newObjects(t, filepath.Join(dir, "objects"))
	b := newBuilder(t, o)
	groundFiles(b)
	groundLinks(b)
	groundPrograms(b)
	groundOwned(b)
	groundWithACLs(b)
	groundXattrs(b)
	b.dir("/big", 0o755)
	for i := range entries {
		b.file(fmt.Sprintf("/big/%s-%05d", strings.Repeat("e", i%60), i), 0o644, nil)
	}
	b.tree.Canonicalize()
	punchHole(t, o, b)
	return writeImage(t, dir, "ground", b.tree, o, erofs.Format1)
}

func groundFiles(b *builder) {
	b.file("/file", 0o644, groundData)
	b.file("/hole", 0o644, holeData)
	b.file("/inline", 0o644, []byte("hello"))
	b.file("/nothing", 0o644, nil)
	b.file("/"+longName, 0o644, []byte("long"))
	b.dir("/dir", 0o755)
	b.file("/dir/file", 0o644, groundData[:5000])
	b.link("/dir/again", b.find("/file"))
	b.dir("/dir/sub", 0o755)
	b.dir("/empty", 0o755)
	b.add("/fifo", unix.S_IFIFO|0o666)
	b.add("/socket", unix.S_IFSOCK|0o666)
	b.add("/null", unix.S_IFCHR|0o666, device(1, 3))
	b.add("/block", unix.S_IFBLK|0o666, device(7, 1000))
}

func groundLinks(b *builder) {
	for path, target := range map[string]string{
		"/link": "file", "/dangling": "nowhere", "/loop": "loop", "/loop-a": "loop-b", "/loop-b": "loop-a",
		"/dirlink": "dir", "/slashlink": "dir/", "/filelink": "file/", "/uplink": "../../../../../etc", "/rootlink": "/",
		"/dir/back": "../file", "/long": longTarget, "/" + longName[1:]: longName,
	} {
		b.symlink(path, target)
	}
	// The kernel follows at most 40, and counts those again that it followed before it had to begin anew.
	for i := range 45 {
		b.symlink(fmt.Sprintf("/dir/sub/%d", i), fmt.Sprintf("%d", i+1))
	}
	b.file("/dir/sub/45", 0o644, []byte("end"))
}

// groundPrograms are several times cat(1), and a script.
func groundPrograms(b *builder) {
	path, err := exec.LookPath("cat")
	must(b.t, err)
	exe, err := os.ReadFile(path)
	must(b.t, err)
	b.dir("/bin", 0o755)
	b.file("/bin/plain", 0o755, exe)
	b.file("/bin/setuid", unix.S_ISUID|0o755, exe, owner(alice, 0))
	b.file("/bin/setgid", unix.S_ISGID|0o755, exe, owner(0, staff))
	b.file("/bin/none", 0o644, exe)
	b.file("/bin/script", 0o755, []byte("#!/bin/sh\nexit 7\n"))
	b.xattrs(b.file("/bin/capable", 0o755, exe), tree.Xattr{Name: "security.capability", Value: netRaw})
}

// netRaw is CAP_NET_RAW, effective and permitted: struct vfs_ns_cap_data of linux/capability.h, revision 2.
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// groundPerms and groundOwners are what the files below owned have, each with each.
var (
	groundPerms  = []uint32{0, 0o400, 0o040, 0o004, 0o640, 0o604, 0o064, 0o700, 0o070, 0o007, 0o755, 0o1777}
	groundOwners = [][2]uint32{{0, 0}, {alice, staff}, {bob, helpers}}
)

// groundACLs are those of the files below acl: they give more than the mode, or less, or what the mask takes away again.
func groundACLs() map[string]acl {
	return map[string]acl{
		"user":   {user: 6, users: []aclEntry{{alice, 4}}, mask: 4},
		"denied": {user: 6, users: []aclEntry{{alice, 0}}, mask: 7, other: 4},
		"masked": {user: 6, users: []aclEntry{{alice, 7}}, mask: 0, other: 4},
		"group":  {user: 6, groups: []aclEntry{{staff, 4}, {helpers, 1}}, mask: 5},
		"exec":   {user: 7, users: []aclEntry{{alice, 5}, {bob, 1}}, mask: 5},
	}
}

// groundOwned has files and directories of each owner with permissions that tell the owner, the group and others apart.
func groundOwned(b *builder) {
	b.dir("/owned", 0o755)
	for _, perm := range groundPerms {
		for _, who := range groundOwners {
			name := fmt.Sprintf("/owned/%04o-%d-%d", perm, who[0], who[1])
			b.file(name, perm, groundData[:100], owner(who[0], who[1]))
			b.dir(name+".d", perm, owner(who[0], who[1]))
			b.file(name+".d/file", 0o644, []byte("inside"))
		}
	}
}

func groundWithACLs(b *builder) {
	b.dir("/acl", 0o755)
	for name, a := range groundACLs() {
		// The group's bits of a mode with an ACL are its mask.
		mode := uint32(a.user<<6 | a.mask<<3 | a.other)
		x := tree.Xattr{Name: aclAccess, Value: a.encode()}
		b.xattrs(b.file("/acl/"+name, mode, groundData[:200]), x)
		b.xattrs(b.dir("/acl/"+name+".d", mode), x, tree.Xattr{Name: aclDefault, Value: a.encode()})
		b.file("/acl/"+name+".d/file", 0o644, []byte("inside"))
	}
}

func groundXattrs(b *builder) {
	xs := []tree.Xattr{
		{Name: "user.colour", Value: []byte("green")},
		{Name: "user.empty"},
		{Name: "user.long", Value: bytes.Repeat([]byte("value"), 800)},
		{Name: "trusted.mine", Value: []byte("root's")},
		{Name: "security.mine", Value: []byte("anybody's")},
		{Name: "trusted.overlay.opaque", Value: []byte("y")}, // escaped in the image
		{Name: "user.overlay.redirect", Value: []byte("/elsewhere")},
	}
	b.xattrs(b.file("/xattrs", 0o644, groundData[:300]), xs...)
	b.xattrs(b.file("/xattrs-private", 0o600, groundData[:300]), xs...)
	b.xattrs(b.dir("/xattrs.d", 0o755), xs...)
	b.xattrs(b.symlink("/xattrs.l", "file"), xs[3:5]...)
}

// punchHole writes the object of the file hole again, without the zeros.
func punchHole(t testing.TB, o *objects, b *builder) {
	t.Helper()
	path := filepath.Join(o.dir, b.tree.Digest(b.find("/hole")).ObjectPath())
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for _, part := range [][2]int{{0, 8192}, {len(holeData) - 8192, len(holeData)}} {
		_, err = f.WriteAt(holeData[part[0]:part[1]], int64(part[0]))
		must(t, err)
	}
}
