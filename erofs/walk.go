package erofs

import (
	"errors"
	"fmt"
	"iter"

	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// depthMax bounds how deep directories may lie. Paths of more names can't be opened in one go: PATH_MAX is 4096 bytes.
const depthMax = 4096

// visit is what a walk knows of a name.
type visit struct {
	dir   int    // the directory, numbered in the order in which the walk came to them; -1: the root has none
	name  string // "" for the root
	inode *Inode
	first bool // the walk has not seen the inode before
}

// walker goes through all that can be reached from the root, breadth first, the names of a directory in byte order. It is
// the order in which composefs numbers inodes.
type walker struct {
	img   *Image
	see   func(visit) error
	seen  nidSet
	queue []queued // directories
	bytes uint64   // sizes of the directories seen
}

type queued struct {
	nid, parent Nid
	depth       int
}

// walk calls see for the root and then for each name. A directory has one name, or the walk fails; no file is opened.
func (m *Image) walk(see func(visit) error) error {
	m = m.Buffered()
	root, err := m.Inode(m.Root())
	if err != nil {
		return err
	}
	w := &walker{img: m, see: see, queue: []queued{{nid: m.Root(), parent: m.Root()}}}
	w.seen.add(m.Root())
	if err := w.see(visit{dir: -1, inode: root, first: true}); err != nil {
		return err
	}
	for n := 0; n < len(w.queue); n++ {
		if err := w.directory(n); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) directory(number int) error {
	q := w.queue[number]
	dir, err := w.img.Inode(q.nid)
	if err != nil {
		return err
	}
	// Blocks belong to one directory, so all together can't be larger than the image. Where they overlap, a small image
	// could hold any number of names.
	if w.bytes += dir.attr.Size; dir.attr.Size > w.img.size || w.bytes > w.img.size {
		return corrupt("directories are larger than the image")
	}
	dots := 0
	err = dir.eachDirent(func(name []byte, d disk.Dirent) (bool, error) {
		if isDot(name) {
			dots++
			return true, q.checkDot(name, Nid(d.Nid))
		}
		return true, w.entry(number, string(name), d)
	})
	if err == nil && dots != 2 {
		err = corrupt("directory %d has no . or no ..", q.nid)
	}
	return err
}

func (q *queued) checkDot(name []byte, nid Nid) error {
	want := q.nid
	if string(name) == ".." {
		want = q.parent
	}
	if nid != want {
		return corrupt("%s leads to inode %d, not %d", name, nid, want)
	}
	return nil
}

func (w *walker) entry(number int, name string, d disk.Dirent) error {
	i, err := w.img.Inode(Nid(d.Nid))
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if d.Type.ModeType() != i.attr.Mode&tree.TypeMask && d.Type != disk.TypeUnknown {
		return corrupt("%q has type %d, but inode %d has mode %#o", name, d.Type, i.nid, i.attr.Mode)
	}
	first := w.seen.add(i.nid)
	if i.IsDir() {
		parent := w.queue[number]
		switch {
		case !first:
			return corrupt("%q leads to directory %d, which has another name", name, i.nid)
		case parent.depth == depthMax:
			return corrupt("%q lies more than %d directories deep", name, depthMax)
		}
		w.queue = append(w.queue, queued{i.nid, parent.nid, parent.depth + 1})
	}
	return w.see(visit{number, name, i, first})
}

// nidSet is a set of inodes. It takes memory for those that are in it, not for what their numbers are.
type nidSet struct {
	pages map[uint64]*[pageWords]uint64
}

const (
	pageWords = 64
	pageBits  = 64 * pageWords
)

// add puts n in and tells whether it was not yet there.
func (s *nidSet) add(n Nid) bool {
	if s.pages == nil {
		s.pages = map[uint64]*[pageWords]uint64{}
	}
	page := s.pages[uint64(n)/pageBits]
	if page == nil {
		page = new([pageWords]uint64)
		s.pages[uint64(n)/pageBits] = page
	}
	word, bit := &page[uint64(n)%pageBits/64], uint64(1)<<(n%64)
	was := *word&bit != 0
	*word |= bit
	return !was
}

// errStop ends a walk whose caller wants no more.
var errStop = errors.New("stop")

// Object is an object that holds a backed file's data, and the file's size in bytes.
type Object struct {
	Digest fsverity.Digest
	Size   int64
}

// Objects yields the objects that hold backed files' data: one for each such file, so some come several times. Where a
// file's object path is the one of another digest, that comes too. Files whose image has neither yield nothing. After an
// error there is nothing more.
func (m *Image) Objects() iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		err := m.walk(func(v visit) error {
			if !v.first {
				return nil
			}
			b, ok, err := v.inode.Backing()
			if err != nil || !ok {
				return err
			}
			size := int64(v.inode.attr.Size)
			if !b.Digest.IsZero() && !yield(Object{b.Digest, size}, nil) {
				return errStop
			}
			if d, err := fsverity.ParseObjectPath(b.Path); err == nil && d != b.Digest && !yield(Object{d, size}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Object{}, err)
		}
	}
}
