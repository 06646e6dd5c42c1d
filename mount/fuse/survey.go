package fuse

import (
	"runtime/debug"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/erofs/disk"
	"github.com/flatroot/flatroot/mount"
)

// surveyMax is the size in bytes of the largest image that is searched for xattrs. It would be some 300,000 inodes, which
// take a tenth of a second, beside the first requests.
const surveyMax = 64 << 20

// survey looks whether any inode has an xattr that the view shows. If not, GETXATTR is answered ENOSYS from then on, and the
// kernel asks no more: many trees have none, and it asks at each exec and for each line of ls -l. Who asks gets EOPNOTSUPP
// then instead of ENODATA. LISTXATTR is asked for less, and its EOPNOTSUPP would be seen: it goes on to give empty lists.
// Overlayfs needs those xattrs that it asks for.
func (s *Server) survey() {
	if s.view != mount.ViewPlain || len(s.mapped.b) == 0 || len(s.mapped.b) > surveyMax {
		return
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var found bool
	var err error
	func() {
		defer s.mapped.rescue(&err)
		found, err = (&surveyor{worker: s.newWorker(-1)}).run()
	}()
	if err == nil && !found && !s.stopping.Load() {
		s.noXattrs.Store(true)
	}
}

// surveyor goes through a tree until it finds what it looks for.
type surveyor struct {
	*worker
	dirs  []erofs.Nid // still to be searched
	bytes uint64      // sizes of those that were
	found bool
}

func (v *surveyor) run() (found bool, err error) {
	if err := v.look(v.img.Root()); err != nil {
		return false, err
	}
	for len(v.dirs) > 0 && !v.found && !v.s.stopping.Load() {
		dir := v.dirs[len(v.dirs)-1]
		v.dirs = v.dirs[:len(v.dirs)-1]
		if err := v.search(dir); err != nil {
			return false, err
		}
	}
	return v.found, nil
}

// search looks at all that is in a directory.
func (v *surveyor) search(dir erofs.Nid) error {
	var d erofs.Inode
	if err := v.img.Load(dir, &d); err != nil {
		return err
	}
	// Directories that lead to each other, as in no honest image, would be searched for ever.
	if v.bytes += d.Attr().Size; v.bytes > uint64(v.img.Size()) {
		return erofs.ErrCorrupt
	}
	var err error
	each := d.DirentsFrom(0, func(name []byte, nid erofs.Nid, _ disk.FileType, _ erofs.Cookie) bool {
		if !isDot(name) {
			err = v.look(nid)
		}
		return err == nil && !v.found
	})
	if err != nil {
		return err
	}
	return each
}

// look looks at an inode.
func (v *surveyor) look(nid erofs.Nid) error {
	if err := v.img.Load(nid, &v.node); err != nil {
		return err
	}
	if v.node.IsDir() {
		v.dirs = append(v.dirs, nid)
	}
	return v.eachName(func(string, []byte) { v.found = true })
}
