package erofs

import (
	"fmt"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// ReadOptions are ReadTree's. Only images that are not composefs look at more than the algorithm.
type ReadOptions struct {
	// Algorithm is that of the tree if no file of the image has a digest. Zero: SHA-256.
	Algorithm fsverity.Algorithm
	// InlineMax is the size in bytes of the largest file whose content the tree gets; larger ones become the digests of
	// their data. Zero: 64, as mkcomposefs has it.
	InlineMax int
	// DataMax is how many bytes of data may be hashed in all, holes not counted. Zero: 1 TiB.
	DataMax int64
}

func (o ReadOptions) fill() ReadOptions {
	if o.Algorithm == 0 {
		o.Algorithm = fsverity.SHA256
	}
	if o.InlineMax == 0 {
		o.InlineMax = 64
	}
	if o.DataMax == 0 {
		o.DataMax = 1 << 40
	}
	return o
}

// ReadTree reads the tree that an image was made from. Of a composefs image the xattrs for overlayfs are interpreted and
// what every image gets is left out: the root's whiteouts 00 to ff and its opaque mark. Written again in the same version,
// the tree gives the same image. Three things images don't have: the digest of a file that is empty or inline, the size of
// a device, and which of its names an inode had as home, where all of them give the same image.
//
// Of other images names, attributes and xattrs are taken as they are; large files are read and hashed.
func ReadTree(m *Image, o ReadOptions) (*tree.Tree, error) {
	r := &treeReader{img: m, o: o.fill(), links: map[Nid]*linked{}, marked: map[tree.Node]*markedDir{}}
	survey := func() error { return m.walk(r.survey) }
	take := func() error { return m.walk(r.take) }
	for _, step := range []func() error{survey, take, r.addLinked, r.remark} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
	}
	return r.t, nil
}

// treeReader builds a tree in two walks: inodes with several names must be known before the first name is taken.
type treeReader struct {
	img    *Image
	o      ReadOptions
	t      *tree.Tree
	dirs   []tree.Node // by the walk's numbers
	hashed int64       // bytes of data, of all files
	buf    []byte      // for hashing
	marked map[tree.Node]*markedDir

	links map[Nid]*linked // inodes of several names
	order []*linked       // in the order of their first names
	next  uint32          // number that composefs gives the next inode
	last  Nid             // the inode that got the number before
}

// survey is the first walk: it finds the algorithm of the digests and the inodes with several names.
func (r *treeReader) survey(v visit) error {
	if !v.first {
		if r.links[v.inode.nid] == nil {
			r.links[v.inode.nid] = &linked{inode: v.inode}
		}
		return nil
	}
	b, ok, err := v.inode.Backing()
	if ok && !b.Digest.IsZero() {
		r.o.Algorithm = b.Digest.Algorithm()
	}
	return err
}

// take is the second walk: it adds each name to the tree, or keeps it for later if its inode has others.
func (r *treeReader) take(v visit) error {
	if v.dir < 0 {
		return r.addRoot(v.inode)
	}
	dir := r.dirs[v.dir]
	if l := r.links[v.inode.nid]; l != nil {
		r.keep(l, dir, v.name)
		return nil
	}
	r.count(v.inode)
	if r.isGenerated(dir, v) {
		return nil
	}
	_, err := r.add(dir, v.name, v.inode)
	return err
}

func (r *treeReader) addRoot(i *Inode) error {
	r.t = tree.New(r.o.Algorithm, i.attr)
	r.dirs = append(r.dirs, tree.Root)
	r.count(i)
	_, err := r.setXattrs(tree.Root, i)
	return err
}

// count follows composefs's numbers: each inode has the next one, where the walk meets its home.
func (r *treeReader) count(i *Inode) {
	r.next++
	r.last = i.nid
}

// isGenerated tells whether a name is one of the whiteouts that versions 0 and 1 put in every root. They have no other
// whiteouts: the input's become files.
func (r *treeReader) isGenerated(dir tree.Node, v visit) bool {
	return dir == tree.Root && r.escapes() && isDevice0(v.inode) && len(v.name) == 2 &&
		strings.Trim(v.name, "0123456789abcdef") == ""
}

// escapes tells whether whiteouts of the input are stored as marked files.
func (r *treeReader) escapes() bool { return r.img.version == 0 || r.img.version == 1 }

func isDevice0(i *Inode) bool {
	return i.attr.Mode&tree.TypeMask == tree.CharDevice && i.attr.Rdev == 0
}

// add adds an inode under its home.
func (r *treeReader) add(dir tree.Node, name string, i *Inode) (tree.Node, error) {
	n, err := r.addNode(dir, name, i)
	if err != nil {
		return n, fmt.Errorf("%s: %w", joinPath(r.t.Path(dir), name), err)
	}
	return n, nil
}

func joinPath(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

func (r *treeReader) addNode(dir tree.Node, name string, i *Inode) (tree.Node, error) {
	a := i.attr
	if r.escapes() && isDevice0(i) {
		return tree.None, corrupt("a whiteout that is not escaped")
	}
	wh, err := r.isEscaped(dir, i)
	if err != nil {
		return tree.None, err
	}
	if wh {
		r.marked[dir].holds = true
		a.Mode = a.Mode&^tree.TypeMask | tree.CharDevice
	}
	n, err := r.t.Add(dir, []byte(name), a)
	if err != nil {
		return n, err
	}
	if i.IsDir() {
		r.dirs = append(r.dirs, n)
	}
	backing, err := r.setXattrs(n, i)
	if err != nil || wh {
		return n, err
	}
	return n, r.setData(n, i, backing)
}

// setData gives a node its target, content or object.
func (r *treeReader) setData(n tree.Node, i *Inode, b *Backing) error {
	switch i.attr.Mode & tree.TypeMask {
	case tree.Symlink:
		target, err := i.Target()
		if err != nil {
			return err
		}
		return r.t.SetTarget(n, target)
	case tree.Regular:
		if b != nil {
			return r.setBacking(n, i, b)
		}
		return r.setContent(n, i)
	}
	return nil
}

func (r *treeReader) setBacking(n tree.Node, i *Inode, b *Backing) error {
	if i.attr.Size == 0 {
		return corrupt("metacopy on an empty file")
	}
	if err := r.t.SetDigest(n, b.Digest); err != nil {
		return err
	}
	return r.t.SetPayload(n, b.Path)
}

// setContent takes content as it is, if it is small, or hashes it.
func (r *treeReader) setContent(n tree.Node, i *Inode) error {
	limit := min(r.o.InlineMax, tree.ContentMax)
	if r.img.composefs() {
		limit = tree.ContentMax
	}
	if i.attr.Size <= uint64(limit) {
		b := make([]byte, i.attr.Size)
		if err := i.readData(b, 0); err != nil {
			return err
		}
		return r.t.SetContent(n, b)
	}
	if r.img.composefs() {
		return corrupt("inline content of %d bytes", i.attr.Size)
	}
	d, err := r.hash(i)
	if err != nil {
		return err
	}
	return r.t.SetObject(n, d)
}

// hash computes the digest of a file's data. Holes cost next to nothing.
func (r *treeReader) hash(i *Inode) (fsverity.Digest, error) {
	h := fsverity.NewHasher(r.o.Algorithm)
	for pos := uint64(0); pos < i.attr.Size; {
		e, err := i.extent(pos)
		if err != nil {
			return fsverity.Digest{}, err
		}
		pos += e.n
		if e.hole {
			h.WriteZeros(int64(e.n))
		} else if err := r.hashExtent(h, e); err != nil {
			return fsverity.Digest{}, err
		}
	}
	return h.Sum(), nil
}

// Enough that reading is not a call for each block.
const hashBuffer = 128 << 10

func (r *treeReader) hashExtent(h *fsverity.Hasher, e extent) error {
	if err := r.img.checkRange(e.off, e.n); err != nil {
		return err
	}
	if r.hashed += int64(e.n); r.hashed > r.o.DataMax {
		return fmt.Errorf("files have more than %d bytes of data to hash", r.o.DataMax)
	}
	if r.buf == nil {
		r.buf = make([]byte, hashBuffer)
	}
	for end := e.off + e.n; e.off < end; {
		b := r.buf[:min(uint64(len(r.buf)), end-e.off)]
		if err := r.img.read(b, e.off); err != nil {
			return err
		}
		if _, err := h.Write(b); err != nil {
			return err
		}
		e.off += uint64(len(b))
	}
	return nil
}
