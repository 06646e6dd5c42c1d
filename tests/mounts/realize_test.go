package mounts

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// realizer gives the files of a random tree content that exists: the trees of erofstest name objects by random digests.
type realizer struct {
	r       *rand.Rand
	tree    *tree.Tree
	objects *objects
	made    map[place]*object
}

// place is where a random tree says that an object is; usual: where its digest says as well.
type place struct {
	payload string
	usual   bool
}

// object is what was made for a place.
type object struct {
	size    int
	digest  fsverity.Digest
	missing bool
}

// realize changes a tree so that most of what it names is there, and puts that into objects. Equal payloads stay equal.
func realize(tr *tree.Tree, o *objects, seed uint64) {
	z := &realizer{rand.New(rand.NewPCG(seed, 0x6d6f756e)), tr, o, map[place]*object{}}
	for n := range tree.Node(tr.Len()) {
		if tr.Mode(n)&tree.TypeMask == tree.Regular {
			z.file(n)
		}
		z.acls(n)
	}
}

func (z *realizer) one(in int) bool { return z.r.IntN(in) == 0 }

// file gives a file with an object one that is there, but for a few, whose object is missing.
func (z *realizer) file(n tree.Node) {
	a := z.tree.Attr(n)
	at := place{payload: string(z.tree.Payload(n))}
	if at.payload == "" || a.Size == 0 {
		return
	}
	digest := z.tree.Digest(n)
	at.usual = !digest.IsZero() && at.payload == digest.ObjectPath()
	if z.made[at] == nil {
		z.made[at] = z.make(at)
	}
	o := z.made[at]
	a.Size = uint64(o.size)
	must(z.objects.t, z.tree.SetAttr(n, a))
	switch {
	case at.usual:
		must(z.objects.t, z.tree.SetObject(n, o.digest))
	case !digest.IsZero():
		must(z.objects.t, z.tree.SetDigest(n, o.digest))
	}
}

// make writes the object for a place: under its digest, or under that very path.
func (z *realizer) make(at place) *object {
	b := make([]byte, z.size())
	var seed [32]byte
	binary.NativeEndian.PutUint64(seed[:], z.r.Uint64())
	rand.NewChaCha8(seed).Read(b)
	o := &object{size: len(b), digest: fsverity.Sum(fsverity.SHA256, b), missing: z.one(40)}
	switch {
	case o.missing:
	case len(at.payload) == 2: // it would be in the way of directories such as 00
		o.missing = true
	case at.usual:
		z.objects.put(b)
	default:
		// Some can't be made: a name is too long, or leads through a file.
		o.missing = z.objects.putAt(at.payload, b) != nil
	}
	return o
}

// size is one of the sizes at which something changes, or any small one, or seldom a large one.
func (z *realizer) size() int {
	switch z.r.IntN(12) {
	case 0:
		edges := []int{1, 63, 64, 65, 4095, 4096, 4097, 8192, 65535, 65536, 131071, 131072, 131073}
		return edges[z.r.IntN(len(edges))]
	case 1:
		if z.one(6) {
			return 1 + z.r.IntN(4<<20)
		}
	}
	return 1 + z.r.IntN(20000)
}

// acls makes most ACLs of a node such as the kernel understands. Of others even the superuser is refused the file, if it
// isn't their own, and anybody a directory.
func (z *realizer) acls(n tree.Node) {
	xs := z.tree.Xattrs(n)
	changed, own := false, z.tree.Attr(n).UID == 0 && !z.tree.IsDir(n)
	for i, x := range xs {
		if (x.Name == aclAccess || x.Name == aclDefault) && (!own || !z.one(8)) {
			a := z.acl()
			xs[i].Value = a.encode()
			changed = true
			if x.Name == aclAccess {
				z.agree(n, a)
			}
		}
	}
	if changed {
		must(z.objects.t, z.tree.SetXattrs(n, xs))
	}
}

// agree makes the mode say what the ACL says, as chmod(2) and setfacl(1) do: where it doesn't, overlayfs refuses to execute
// what the ACL alone allows, since it asks for root's right to the file below too.
func (z *realizer) agree(n tree.Node, a acl) {
	attr := z.tree.Attr(n)
	attr.Mode = attr.Mode&^0o777 | uint32(a.user<<6|a.mask<<3|a.other)
	must(z.objects.t, z.tree.SetAttr(n, attr))
}

// acl is a random one with a few users and groups.
func (z *realizer) acl() acl {
	a := acl{user: z.perm(), group: z.perm(), mask: z.perm(), other: z.perm()}
	for id := range uint32(z.r.IntN(4)) {
		a.users = append(a.users, aclEntry{1000 + id, z.perm()})
	}
	for id := range uint32(1 + z.r.IntN(3)) {
		a.groups = append(a.groups, aclEntry{2000 + id, z.perm()})
	}
	return a
}

func (z *realizer) perm() uint16 { return uint16(z.r.IntN(8)) }
