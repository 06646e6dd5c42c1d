package fuse

import (
	"io/fs"
	"math"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/mount/fuse/wire"
)

// valid is how long the kernel may keep entries and attributes, in seconds: 34 years.
const valid = 1 << 30

// lowNid marks the node IDs of the nids 0 and 1, where these are not the root's: 0 means no node, and 1 the root. A nid never
// has this bit, since it is less than an image's size.
const lowNid = 1 << 63

// nodeID is the node ID of an inode. Nothing else must be known to answer requests for it.
func (s *Server) nodeID(n erofs.Nid) uint64 {
	switch {
	case n == s.img.Root():
		return wire.RootID
	case n <= wire.RootID:
		return uint64(n) | lowNid
	}
	return uint64(n)
}

// nid takes what nodeID made.
func (s *Server) nid(id uint64) erofs.Nid {
	if id == wire.RootID {
		return s.img.Root()
	}
	return erofs.Nid(id &^ lowNid)
}

// load reads the inode that a request is about into w.node.
func (w *worker) load(h *wire.InHeader) error {
	return w.img.Load(w.s.nid(h.NodeID), &w.node)
}

func (w *worker) lookup(h *wire.InHeader, body []byte) (int, error) {
	name, ok := wire.Name(body)
	switch {
	case !ok:
		return 0, unix.EINVAL
	case len(name) > disk.NameMax: // the kernel lets names of FUSE be longer
		return 0, unix.ENAMETOOLONG
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	e := wire.EntryOut{EntryValid: valid, AttrValid: valid}
	nid, err := w.find(name)
	if err == nil {
		err = w.img.Load(nid, &w.child)
	}
	switch {
	case err == fs.ErrNotExist || err == nil && w.hidden(&w.child):
		// Stays without a node, which the kernel keeps too; ENOENT it would not.
	case err != nil:
		return 0, err
	default:
		w.entry(&e, &w.child)
	}
	e.Encode(w.space(wire.EntryOutSize))
	return wire.EntryOutSize, nil
}

// find looks a name up in w.node. The kernel asks for . where it has a node from a file handle alone, of any type.
func (w *worker) find(name []byte) (erofs.Nid, error) {
	if string(name) == "." {
		return w.node.Nid(), nil
	}
	if !w.node.IsDir() {
		return 0, unix.ENOTDIR
	}
	return w.node.LookupBytes(name)
}

// hidden tells whether the view leaves out an inode: whiteouts are none of the tree's.
func (w *worker) hidden(i *erofs.Inode) bool {
	a := i.Attr()
	return w.s.view == mount.ViewPlain && a.Mode&unix.S_IFMT == unix.S_IFCHR && a.Rdev == 0
}

func (w *worker) entry(e *wire.EntryOut, i *erofs.Inode) {
	*e = wire.EntryOut{NodeID: w.s.nodeID(i.Nid()), EntryValid: valid, AttrValid: valid}
	w.attr(&e.Attr, i)
}

// attr gives the attributes as EROFS in the kernel does.
func (w *worker) attr(a *wire.Attr, i *erofs.Inode) {
	t := i.Attr()
	sec := uint64(t.MtimeSec)
	*a = wire.Attr{
		Ino: uint64(i.Nid()), Size: t.Size, Blocks: w.blocks(i),
		Atime: sec, Mtime: sec, Ctime: sec, AtimeNsec: t.MtimeNsec, MtimeNsec: t.MtimeNsec, CtimeNsec: t.MtimeNsec,
		Mode: t.Mode, Nlink: t.Nlink, UID: t.UID, GID: t.GID, Rdev: t.Rdev, Blksize: uint32(w.img.BlockSize()),
	}
}

const statBlock = 512 // unit of st_blocks, stat(2)

// blocks is st_blocks: of whole blocks, as EROFS has it for all that is in the image.
func (w *worker) blocks(i *erofs.Inode) uint64 {
	block := uint64(w.img.BlockSize())
	return (i.Attr().Size + block - 1) / block * (block / statBlock)
}

func (w *worker) getattr(h *wire.InHeader) (int, error) {
	if err := w.load(h); err != nil {
		return 0, err
	}
	a := wire.AttrOut{AttrValid: valid}
	w.attr(&a.Attr, &w.node)
	a.Encode(w.space(wire.AttrOutSize))
	return wire.AttrOutSize, nil
}

func (w *worker) readlink(h *wire.InHeader) (int, error) {
	if err := w.load(h); err != nil {
		return 0, err
	}
	if w.node.Attr().Mode&unix.S_IFMT != unix.S_IFLNK {
		return 0, unix.EINVAL
	}
	target, err := w.node.Target()
	if err != nil {
		return 0, err
	}
	return copy(w.space(len(target)), target), nil
}

// readdir answers READDIR and READDIRPLUS with as many entries as have room.
func (w *worker) readdir(h *wire.InHeader, body []byte) (int, error) {
	var r wire.ReadIn
	if !r.Decode(body) {
		return 0, unix.EINVAL
	}
	if err := w.load(h); err != nil {
		return 0, err
	}
	if !w.node.IsDir() {
		return 0, unix.ENOTDIR
	}
	l := listing{w: w, b: w.space(int(min(r.Size, maxReply))), plus: h.Opcode == wire.OpReaddirplus}
	err := w.node.DirentsFrom(erofs.Cookie(r.Offset), func(name []byte, nid erofs.Nid, t disk.FileType, next erofs.Cookie) bool {
		return l.add(name, nid, t, next)
	})
	if l.n > 0 {
		err = nil // comes again with the next request, which begins where it happened
	}
	return l.n, err
}

// listing is a reply with entries of a directory.
type listing struct {
	w    *worker
	b    []byte
	n    int // bytes of b that are used
	plus bool
}

// add appends an entry, and tells whether it had room. One whose inode can't be read has no node ID: it is listed, and the
// error comes when somebody looks it up.
func (l *listing) add(name []byte, nid erofs.Nid, t disk.FileType, next erofs.Cookie) bool {
	d := wire.Dirent{Ino: uint64(nid), Off: uint64(next), NameLen: uint32(len(name)), Type: t.ModeType() >> 12}
	var e wire.EntryOut
	if l.plus || t == disk.TypeCharDevice || t == disk.TypeUnknown {
		if err := l.w.img.Load(nid, &l.w.child); err == nil {
			if l.w.hidden(&l.w.child) {
				return true
			}
			d.Type = l.w.child.Attr().Mode & unix.S_IFMT >> 12
			if !isDot(name) { // the kernel takes no notice of these
				l.w.entry(&e, &l.w.child)
			}
		}
	}
	size := wire.DirentLen(len(name))
	if l.plus {
		size += wire.EntryOutSize
	}
	if size > len(l.b)-l.n {
		return false
	}
	b := l.b[l.n:][:size]
	l.n += size
	if l.plus {
		e.Encode(b)
		b = b[wire.EntryOutSize:]
	}
	d.Encode(b)
	clear(b[wire.DirentSize+copy(b[wire.DirentSize:], name):])
	return true
}

func isDot(name []byte) bool { return string(name) == "." || string(name) == ".." }

// statfs gives the numbers that EROFS in the kernel does.
func (w *worker) statfs() (int, error) {
	block := uint32(w.img.BlockSize())
	st := wire.StatfsOut{
		Blocks: uint64(w.img.Blocks()), Bsize: block, Frsize: block, NameLen: disk.NameMax,
		Files: math.MaxUint64, Ffree: math.MaxUint64 - w.img.Inodes(),
	}
	st.Encode(w.space(wire.StatfsOutSize))
	return wire.StatfsOutSize, nil
}
