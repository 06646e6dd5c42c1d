package erofs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/tree"
)

// Names that overlayfs gives a meaning, and the escaped forms in which a lower layer's own are shown through.
const (
	overlayPrefix = "trusted.overlay."
	escapePrefix  = overlayPrefix + "overlay."

	xattrMetacopy = overlayPrefix + "metacopy"
	xattrRedirect = overlayPrefix + "redirect"
	xattrOpaque   = overlayPrefix + "opaque"

	escapedWhiteout  = escapePrefix + "whiteout"
	escapedWhiteouts = escapePrefix + "whiteouts"
	escapedOpaque    = escapePrefix + "opaque"
	userWhiteout     = "user.overlay.whiteout"
	userWhiteouts    = "user.overlay.whiteouts"
	userOpaque       = "user.overlay.opaque"

	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	selinux    = "security.selinux"
)

// sharedMax is how many references to shared xattrs an inode has at most. What it has more is stored with it.
const sharedMax = 128

// pair is the number of a name and value. The tree's own pairs come first, then the few that marking whiteouts adds, then
// metacopy without a digest, metacopy of each digest, redirect of each payload.
type pair = uint32

// xattrPlan knows the xattrs that every inode of the image has, and which pairs of name and value several have in common:
// those are stored once, in a table of their own.
type xattrPlan struct {
	t     *tree.Tree
	first handle

	own       []ownPair // the tree's and the added ones
	added     map[string]pair
	noDigest  pair
	metacopy  pair // of digest 0
	redirect  pair // of payload 0
	pairCount pair

	sets    [][]pair         // by the tree's numbers of sets: escaped, and in the order of the new names
	special map[handle][]int // inodes whose xattrs differ from their set's: pairs added, in any order
	refs    []uint32         // by pair: how many inodes have it; once the table is laid out its offset / 4 + 1, 0 not shared
	table   []pair           // shared pairs in the order of the table

	tableSize int64 // bytes
	list      []pair
}

type ownPair struct {
	name, value []byte
}

func newXattrPlan(p *plan) *xattrPlan {
	x := &xattrPlan{t: p.t, first: p.first, special: map[handle][]int{}, added: map[string]pair{}}
	x.addOwn()
	x.addSpecial(p)
	x.noDigest = pair(len(x.own))
	x.metacopy = x.noDigest + 1
	x.redirect = x.metacopy + pair(p.t.NumDigests())
	x.pairCount = x.redirect + pair(p.t.NumPayloads())
	x.addSets()
	x.count(p)
	x.layOut()
	return x
}

// addOwn takes the tree's pairs, those that mean something to overlayfs under their escaped names.
func (x *xattrPlan) addOwn() {
	x.own = make([]ownPair, x.t.NumXattrPairs())
	for i := range x.own {
		name, value := x.t.XattrPair(i)
		if rest, ok := bytes.CutPrefix(name, []byte(overlayPrefix)); ok {
			name = append([]byte(escapePrefix), rest...)
		}
		x.own[i] = ownPair{name, value}
	}
}

// addedPair is the number of a pair that this package adds. The tree may have the same one.
func (x *xattrPlan) addedPair(name, value string) int {
	key := name + "=" + value
	if i, ok := x.added[key]; ok {
		return int(i)
	}
	i := slices.IndexFunc(x.own, func(o ownPair) bool { return string(o.name) == name && string(o.value) == value })
	if i < 0 {
		i = len(x.own)
		x.own = append(x.own, ownPair{[]byte(name), []byte(value)})
	}
	x.added[key] = pair(i)
	return i
}

// addSpecial finds the inodes to which more than their own xattrs belong: whiteouts of the input and the directories that
// hold them, the root, and the generated whiteouts, which take over the root's SELinux label.
func (x *xattrPlan) addSpecial(p *plan) {
	for dir := range p.marked {
		x.add(dir, escapedWhiteouts, "")
		x.add(dir, userWhiteouts, "")
		if p.version >= 1 {
			x.add(dir, escapedOpaque, "x")
			x.add(dir, userOpaque, "x")
		}
		for e := range p.t.Entries(tree.Node(dir)) {
			if !e.Link && isWhiteout(p.t, e.Node) {
				x.add(handle(e.Node), escapedWhiteout, "")
				x.add(handle(e.Node), userWhiteout, "")
			}
		}
	}
	x.add(handle(tree.Root), xattrOpaque, "y")
	if set := p.t.XattrSet(tree.Root); set >= 0 {
		for _, i := range p.t.XattrPairs(set) {
			if string(x.own[i].name) == selinux {
				for h := x.first; h < x.first+generated; h++ {
					x.special[h] = append(x.special[h], i)
				}
			}
		}
	}
}

func (x *xattrPlan) add(h handle, name, value string) {
	x.special[h] = append(x.special[h], x.addedPair(name, value))
}

func (x *xattrPlan) addSets() {
	x.sets = make([][]pair, x.t.NumXattrSets())
	for i := range x.sets {
		numbers := x.t.XattrPairs(i)
		pairs := make([]pair, len(numbers))
		for j, n := range numbers {
			pairs[j] = pair(n)
		}
		slices.SortFunc(pairs, x.byName)
		x.sets[i] = pairs
	}
}

func (x *xattrPlan) byName(a, b pair) int { return bytes.Compare(x.name(a), x.name(b)) }

// pairs lists an inode's pairs in byte order of their names. The list is good until the next call.
func (x *xattrPlan) pairs(h handle) []pair {
	list := x.list[:0]
	if h >= x.first {
		list = x.setAll(list, x.special[h])
		x.list = list
		return list
	}
	n := tree.Node(h)
	if set := x.t.XattrSet(n); set >= 0 {
		list = append(list, x.sets[set]...)
	}
	if x.isSpecial(h) {
		list = x.setAll(list, x.special[h])
	}
	if x.isBacked(n) {
		list = x.setBacking(list, n)
	}
	x.list = list
	return list
}

// isSpecial spares most inodes the look into a map. The root and directories are few, and so are whiteouts.
func (x *xattrPlan) isSpecial(h handle) bool {
	switch x.t.Mode(tree.Node(h)) & tree.TypeMask {
	case tree.Directory, tree.CharDevice:
		return true
	}
	return false
}

// setBacking puts in where a backed file's content is.
func (x *xattrPlan) setBacking(list []pair, n tree.Node) []pair {
	metacopy := x.noDigest
	if digest := x.t.DigestID(n); digest >= 0 {
		metacopy = x.metacopy + pair(digest)
	}
	list = x.set(list, metacopy)
	if payload := x.t.PayloadID(n); payload >= 0 {
		list = x.set(list, x.redirect+pair(payload))
	}
	return list
}

func (x *xattrPlan) setAll(list []pair, add []int) []pair {
	for _, i := range add {
		list = x.set(list, pair(i))
	}
	return list
}

func (x *xattrPlan) isBacked(n tree.Node) bool {
	return x.t.Mode(n)&tree.TypeMask == tree.Regular && x.t.Content(n) == nil && x.t.Attr(n).Size > 0
}

// set puts a pair in its place, instead of one with the same name.
func (x *xattrPlan) set(list []pair, i pair) []pair {
	if len(list) == 0 || x.byName(list[len(list)-1], i) < 0 {
		return append(list, i)
	}
	at, found := slices.BinarySearchFunc(list, i, x.byName)
	if found {
		list[at] = i
		return list
	}
	return slices.Insert(list, at, i)
}

// count counts the inodes that have each pair, and looks for ACLs.
func (x *xattrPlan) count(p *plan) {
	x.refs = make([]uint32, x.pairCount)
	for _, h := range p.order {
		for _, i := range x.pairs(h) {
			x.refs[i]++
		}
	}
	for i, o := range x.own {
		if x.refs[i] > 0 && (string(o.name) == aclAccess || string(o.name) == aclDefault) {
			p.acl = true
		}
	}
}

// layOut orders the shared pairs: names descending; of equal names the longer value first, then values descending.
func (x *xattrPlan) layOut() {
	for i, n := range x.refs {
		if n >= 2 {
			x.table = append(x.table, pair(i))
		}
		x.refs[i] = 0
	}
	var va, vb []byte
	slices.SortFunc(x.table, func(a, b pair) int {
		if c := bytes.Compare(x.name(b), x.name(a)); c != 0 {
			return c
		}
		if da, db := x.digest(a), x.digest(b); da != nil && db != nil {
			return bytes.Compare(db, da) // as their text in redirects compares, too
		}
		va, vb = x.appendValue(va[:0], a), x.appendValue(vb[:0], b)
		return cmp.Or(cmp.Compare(len(vb), len(va)), bytes.Compare(vb, va))
	})
	for _, i := range x.table {
		x.refs[i] = uint32(x.tableSize/disk.XattrRefSize) + 1
		x.tableSize += x.entrySize(i)
	}
}

// digest is the digest that a pair's value is made of; nil: it isn't.
func (x *xattrPlan) digest(i pair) []byte {
	digests := pair(x.t.NumDigests())
	switch {
	case i >= x.redirect && i-x.redirect < digests:
		return x.t.DigestByID(int(i - x.redirect))
	case i >= x.metacopy && i < x.redirect:
		return x.t.DigestByID(int(i - x.metacopy))
	}
	return nil
}

func (x *xattrPlan) name(i pair) []byte {
	switch {
	case i < x.noDigest:
		return x.own[i].name
	case i < x.redirect:
		return metacopyName
	}
	return redirectName
}

var (
	metacopyName = []byte(xattrMetacopy)
	redirectName = []byte(xattrRedirect)
)

func (x *xattrPlan) appendValue(b []byte, i pair) []byte {
	switch {
	case i < x.noDigest:
		return append(b, x.own[i].value...)
	case i == x.noDigest:
		return b
	case i < x.redirect:
		// struct ovl_metacopy: version 0, length, flags 0, the digest's algorithm.
		digest := x.t.DigestByID(int(i - x.metacopy))
		b = append(b, 0, byte(4+len(digest)), 0, byte(x.t.Algorithm()))
		return append(b, digest...)
	}
	return x.t.AppendPayloadByID(append(b, '/'), int(i-x.redirect))
}

func (x *xattrPlan) valueSize(i pair) int {
	switch {
	case i < x.noDigest:
		return len(x.own[i].value)
	case i == x.noDigest:
		return 0
	case i < x.redirect:
		return 4 + x.t.Algorithm().Size()
	case int(i-x.redirect) < x.t.NumDigests():
		return 2 + 2*x.t.Algorithm().Size() // slashes before and in the path
	}
	return 1 + len(x.t.AppendPayloadByID(nil, int(i-x.redirect)))
}

// entry is a pair's head, and the name without the prefix that the head stands for.
func (x *xattrPlan) entry(i pair) (disk.XattrEntry, []byte) {
	index, rest := splitName(x.name(i))
	return disk.XattrEntry{NameLen: uint8(len(rest)), Index: index, ValueSize: uint16(x.valueSize(i))}, rest
}

func (x *xattrPlan) entrySize(i pair) int64 {
	e, _ := x.entry(i)
	return int64(e.Size())
}

// areaSize is the number of bytes that an inode's xattrs take behind it.
func (x *xattrPlan) areaSize(h handle) int64 {
	pairs := x.pairs(h)
	if len(pairs) == 0 {
		return 0
	}
	size, shared := int64(disk.XattrHeaderSize), 0
	for _, i := range pairs {
		if x.refs[i] != 0 && shared < sharedMax {
			shared++
			size += 4
		} else {
			size += x.entrySize(i)
		}
	}
	return size
}

// appendArea appends an inode's xattrs: name filter, references to shared ones, the others.
func (x *xattrPlan) appendArea(b []byte, h handle, metaEnd int64) []byte {
	pairs := x.pairs(h)
	if len(pairs) == 0 {
		return b
	}
	head := disk.XattrHeader{NameFilter: disk.XattrFilterEmpty}
	for _, i := range pairs {
		head.NameFilter &^= 1 << x.filterBit(i)
		if x.refs[i] != 0 && head.SharedCount < sharedMax {
			head.SharedCount++
		}
	}
	b = head.AppendTo(b)
	left := head.SharedCount
	for _, i := range pairs {
		if x.refs[i] != 0 && left > 0 {
			left--
			// From the start of the block that the superblock's xattr_blkaddr names.
			ref := uint32(metaEnd%blockSize/disk.XattrRefSize) + x.refs[i] - 1
			b = binary.LittleEndian.AppendUint32(b, ref)
		}
	}
	left = head.SharedCount
	for _, i := range pairs {
		if x.refs[i] != 0 && left > 0 {
			left--
			continue
		}
		b = x.appendEntry(b, i)
	}
	return b
}

func (x *xattrPlan) appendEntry(b []byte, i pair) []byte {
	e, rest := x.entry(i)
	end := len(b) + e.Size()
	b = append(e.AppendTo(b), rest...)
	b = x.appendValue(b, i)
	return append(b, zeros[:end-len(b)]...)
}

// filterBit is the bit of the name filter that a name clears.
func (x *xattrPlan) filterBit(i pair) uint32 {
	switch {
	case i < x.noDigest:
		return filterBit(x.own[i].name)
	case i < x.redirect:
		return metacopyBit
	}
	return redirectBit
}

var (
	metacopyBit = filterBit(metacopyName)
	redirectBit = filterBit(redirectName)
)

func filterBit(name []byte) uint32 {
	index, rest := splitName(name)
	return xxh32(rest, disk.XattrFilterSeed+uint32(index)) % disk.XattrFilterBits
}

// splitName cuts the prefix off that an index stands for. They are tried in the order of their numbers; C composefs never
// uses the one for lustre.
func splitName(name []byte) (index disk.XattrIndex, rest []byte) {
	for i := disk.XattrUser; i <= disk.XattrSecurity; i++ {
		p, _ := i.Prefix()
		if i != disk.XattrLustre && len(name) >= len(p) && string(name[:len(p)]) == p {
			return i, name[len(p):]
		}
	}
	return disk.XattrNone, name
}
