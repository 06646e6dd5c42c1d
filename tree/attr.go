package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// Attr returns a node's attributes.
func (t *Tree) Attr(n Node) Attr {
	d := t.node(n)
	a := Attr{
		Mode: uint32(d.mode), Nlink: d.nlink, UID: d.uid, GID: d.gid,
		Size: d.size, MtimeSec: d.mtime, MtimeNsec: d.nsec,
	}
	if d.isDevice() {
		a.Rdev = d.a
	}
	return a
}

// Mode returns a node's type and permission bits.
func (t *Tree) Mode(n Node) uint32 { return uint32(t.node(n).mode) }

// IsDir tells whether a node is a directory.
func (t *Tree) IsDir(n Node) bool { return t.node(n).fileType() == Directory }

// SetAttr replaces a node's attributes but its type, which can't be changed.
func (t *Tree) SetAttr(n Node, a Attr) error {
	d := t.node(n)
	if uint16(a.Mode)&TypeMask != d.fileType() {
		return fmt.Errorf("%w: a node's type can't be changed", ErrType)
	}
	d.setAttr(a)
	return nil
}

func (t *Tree) ofType(n Node, typ uint16, what string) (*node, error) {
	d := t.node(n)
	if d.fileType() != typ {
		return nil, fmt.Errorf("%w: %s has no place here", ErrType, what)
	}
	return d, nil
}

// SetContent makes b, of at most ContentMax bytes, a regular file's inline content. It takes the place of an object.
// An empty content is none. The size stays as it is.
func (t *Tree) SetContent(n Node, b []byte) error {
	d, err := t.ofType(n, Regular, "inline content")
	if err != nil {
		return err
	}
	if len(b) > ContentMax {
		return fmt.Errorf("%w: inline content of %d bytes, at most %d are possible", ErrValue, len(b), ContentMax)
	}
	d.flags &^= flagContent | flagPath | flagPayload
	if len(b) == 0 {
		return nil
	}
	s, err := t.data.put(b)
	d.a, d.len = s.addr, uint16(s.len)
	d.flags |= flagContent
	return err
}

// Content is a regular file's inline content; nil: none. It must not be changed.
func (t *Tree) Content(n Node) []byte {
	d := t.node(n)
	if d.fileType() != Regular || d.flags&flagContent == 0 {
		return nil
	}
	return t.data.get(text{d.a, uint32(d.len)})
}

// SetTarget sets a symlink's target, 1 to TargetMax bytes without NUL, and its size.
func (t *Tree) SetTarget(n Node, b []byte) error {
	d, err := t.ofType(n, Symlink, "a symlink's target")
	if err != nil {
		return err
	}
	if len(b) == 0 || len(b) > TargetMax {
		return fmt.Errorf("%w: symlink target of %d bytes, 1 to %d are possible", ErrValue, len(b), TargetMax)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return fmt.Errorf("%w: NUL byte in a symlink's target", ErrValue)
	}
	s, err := t.data.put(b)
	d.a, d.len, d.size = s.addr, uint16(s.len), uint64(s.len)
	return err
}

// Target is a symlink's target. It must not be changed.
func (t *Tree) Target(n Node) []byte {
	d := t.node(n)
	if d.fileType() != Symlink {
		return nil
	}
	return t.data.get(text{d.a, uint32(d.len)})
}

// SetDigest sets the fs-verity digest of a regular file's object; the zero digest takes it away.
func (t *Tree) SetDigest(n Node, digest fsverity.Digest) error {
	d, err := t.ofType(n, Regular, "a digest")
	if err != nil {
		return err
	}
	if digest.IsZero() {
		d.digest = 0
		return nil
	}
	id, err := t.digestID(digest)
	d.digest = id + 1
	return err
}

func (t *Tree) digestID(digest fsverity.Digest) (uint32, error) {
	if digest.Algorithm() != t.alg {
		return 0, fmt.Errorf("%w: %s digest in a tree of %s", ErrValue, digest.Algorithm(), t.alg)
	}
	var b [64]byte
	return t.digests.id(digest.AppendTo(b[:0]))
}

// Digest is that of a regular file's object; zero: none is known.
func (t *Tree) Digest(n Node) fsverity.Digest {
	raw := t.RawDigest(n)
	if raw == nil {
		return fsverity.Digest{}
	}
	d, _ := fsverity.NewDigest(t.alg, raw) // its length was right when it came in
	return d
}

// RawDigest is Digest as bytes that must not be changed; nil: none.
func (t *Tree) RawDigest(n Node) []byte {
	if d := t.node(n); d.fileType() == Regular && d.digest != 0 {
		return t.digests.get(d.digest - 1)
	}
	return nil
}

// DigestID is a number below NumDigests that equal digests of the tree have in common; -1: no digest.
func (t *Tree) DigestID(n Node) int {
	if d := t.node(n); d.fileType() == Regular {
		return int(d.digest) - 1
	}
	return -1
}

// DigestByID is the digest that DigestID numbered. It must not be changed.
func (t *Tree) DigestByID(id int) []byte { return t.digests.get(uint32(id)) }

// NumDigests bounds DigestID and, for payloads that are a digest's path, PayloadID.
func (t *Tree) NumDigests() int { return t.digests.len() }

// SetPayload sets the path of a regular file's object below the object directories, at most TargetMax bytes; empty: none.
func (t *Tree) SetPayload(n Node, b []byte) error {
	d, err := t.ofType(n, Regular, "an object path")
	if err != nil {
		return err
	}
	if len(b) > TargetMax {
		return fmt.Errorf("%w: object path of %d bytes, at most %d are possible", ErrValue, len(b), TargetMax)
	}
	d.flags &^= flagContent | flagPath | flagPayload
	if len(b) == 0 {
		return nil
	}
	if len(b) == 2*t.alg.Size()+1 {
		if digest, bad := fsverity.ParseObjectPath(b); bad == nil {
			d.a, err = t.digestID(digest)
			d.flags |= flagPath
			return err
		}
	}
	d.a, err = t.payloads.id(b)
	d.flags |= flagPayload
	return err
}

// SetObject sets a regular file's digest, and as its object path the one at which stores keep it. The zero digest takes
// both away.
func (t *Tree) SetObject(n Node, digest fsverity.Digest) error {
	if digest.IsZero() {
		return errors.Join(t.SetDigest(n, digest), t.SetPayload(n, nil))
	}
	if err := t.SetDigest(n, digest); err != nil {
		return err
	}
	d := t.node(n)
	d.a = d.digest - 1
	d.flags = d.flags&^(flagContent|flagPayload) | flagPath
	return nil
}

// Payload is the path of a regular file's object below the object directories; nil: none.
func (t *Tree) Payload(n Node) []byte { return t.AppendPayload(nil, n) }

// AppendPayload appends what Payload gives.
func (t *Tree) AppendPayload(b []byte, n Node) []byte {
	if id := t.PayloadID(n); id >= 0 {
		return t.AppendPayloadByID(b, id)
	}
	return b
}

// AppendPayloadByID appends the payload that PayloadID numbered.
func (t *Tree) AppendPayloadByID(b []byte, id int) []byte {
	if id >= t.digests.len() {
		return append(b, t.payloads.get(uint32(id-t.digests.len()))...)
	}
	const digits = "0123456789abcdef"
	for i, c := range t.digests.get(uint32(id)) {
		if i == 1 {
			b = append(b, '/')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// PayloadID is a number that equal payloads of the tree have in common: below NumDigests if the payload is the path of a
// digest, from there on otherwise; -1: no payload.
func (t *Tree) PayloadID(n Node) int {
	d := t.node(n)
	switch {
	case d.fileType() != Regular:
		return -1
	case d.flags&flagPath != 0:
		return int(d.a)
	case d.flags&flagPayload != 0:
		return t.digests.len() + int(d.a)
	}
	return -1
}

// NumPayloads bounds PayloadID.
func (t *Tree) NumPayloads() int { return t.digests.len() + t.payloads.len() }

// Xattr is an extended attribute with its full name.
type Xattr struct {
	Name  string
	Value []byte
}

// XattrMax is the number of bytes that all of a node's extended attributes may cost together: 12, and for each 7 and the
// lengths of its name and value. C composefs refuses more, and counts the same way.
const XattrMax = 32767

const (
	xattrNameMax  = 255   // XATTR_NAME_MAX
	xattrValueMax = 65535 // 16 bits on disk
)

// SetXattrs replaces all of a node's extended attributes. Of several with one name the last counts.
func (t *Tree) SetXattrs(n Node, xs []Xattr) error {
	d := t.node(n)
	if len(xs) == 0 {
		d.xattrs = 0
		return nil
	}
	sorted := lastOfEachName(xs)
	cost := 12
	set := make([]byte, 0, 4*len(sorted))
	var pair []byte
	for _, x := range sorted {
		if len(x.Name) == 0 || len(x.Name) > xattrNameMax || len(x.Value) > xattrValueMax {
			return fmt.Errorf("%w: xattr %q of %d bytes; names have 1 to %d bytes, values up to %d",
				ErrValue, x.Name, len(x.Value), xattrNameMax, xattrValueMax)
		}
		if cost += 7 + len(x.Name) + len(x.Value); cost > XattrMax {
			return fmt.Errorf("%w: xattrs of more than %d bytes, counting 7 more for each", ErrValue, XattrMax)
		}
		pair = append(pair[:0], byte(len(x.Name)))
		pair = append(append(pair, x.Name...), x.Value...)
		id, err := t.pairs.id(pair)
		if err != nil {
			return err
		}
		set = binary.LittleEndian.AppendUint32(set, id)
	}
	id, err := t.sets.id(set)
	d.xattrs = id + 1
	return err
}

func lastOfEachName(xs []Xattr) []Xattr {
	if len(xs) < 2 {
		return xs
	}
	s := slices.Clone(xs)
	slices.SortStableFunc(s, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	out := s[:0]
	for i, x := range s {
		if i+1 == len(s) || s[i+1].Name != x.Name {
			out = append(out, x)
		}
	}
	return out
}

// Xattrs returns a node's extended attributes in byte order of their names. The values must not be changed.
func (t *Tree) Xattrs(n Node) []Xattr {
	id := t.XattrSet(n)
	if id < 0 {
		return nil
	}
	pairs := t.XattrPairs(id)
	xs := make([]Xattr, len(pairs))
	for i, p := range pairs {
		name, value := t.XattrPair(p)
		xs[i] = Xattr{string(name), value}
	}
	return xs
}

// XattrSet is a number below NumXattrSets that nodes with equal extended attributes have in common; -1: none.
func (t *Tree) XattrSet(n Node) int { return int(t.node(n).xattrs) - 1 }

// CopyXattrs gives dst the extended attributes that src has.
func (t *Tree) CopyXattrs(dst, src Node) { t.node(dst).xattrs = t.node(src).xattrs }

// NumXattrSets bounds XattrSet.
func (t *Tree) NumXattrSets() int { return t.sets.len() }

// XattrPairs lists the numbers of a set's pairs, in the byte order of their names.
func (t *Tree) XattrPairs(set int) []int {
	b := t.sets.get(uint32(set))
	pairs := make([]int, len(b)/4)
	for i := range pairs {
		pairs[i] = int(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return pairs
}

// XattrPair is a name and value, by the number that XattrPairs gave. They must not be changed.
func (t *Tree) XattrPair(i int) (name, value []byte) {
	b := t.pairs.get(uint32(i))
	n := 1 + int(b[0])
	return b[1:n], b[n:]
}

// NumXattrPairs bounds the numbers of pairs.
func (t *Tree) NumXattrPairs() int { return t.pairs.len() }
