package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// Mounted looks through all mount namespaces that a process or thread is in, and returns
// the digests of the images that are mounted there, as far as they are known: what was
// mounted by a name or a digest has it. It is complete if there can be no others. Where
// that isn't sure it is false: in a PID namespace of its own, where processes are hidden,
// or where a namespace is kept by a file alone and this process may not go there.
//
// What was unmounted lazily, and a namespace that only an open descriptor keeps, can't
// be seen.
func Mounted() (images map[fsverity.Digest]bool, complete bool, err error) {
	s := newSearch("/proc")
	if err := s.run(); err != nil {
		return nil, false, fmt.Errorf("look for mounts: %w", err)
	}
	return s.images, !s.unsure, nil
}

// search is one look through /proc.
type search struct {
	proc   string
	images map[fsverity.Digest]bool
	unsure bool // something may be mounted that was not seen

	tasks  map[string]bool // paths of those that were looked at
	missed bool            // in this pass one was gone before it was looked at, or had mounts that no other has
	views  map[view]bool
	ids    map[int]bool        // of all mounts that were listed
	within map[int]bool        // mounts that roots of tasks lie in
	spaces map[string]bool     // mount namespaces with tasks, "mnt:[INODE]"
	files  map[string]*os.File // of those that are mounted as files
}

func newSearch(proc string) *search {
	return &search{
		proc: proc, images: map[fsverity.Digest]bool{}, tasks: map[string]bool{}, views: map[view]bool{},
		ids: map[int]bool{}, within: map[int]bool{}, spaces: map[string]bool{}, files: map[string]*os.File{},
	}
}

// maxPasses bounds how often the tasks are listed, on a machine that starts new ones
// all the time.
const maxPasses = 16

// run looks at tasks until it missed none: one that ended or unmounted meanwhile may
// have left a child, in its namespace or with a copy of its mounts, that wasn't there
// when the tasks were listed.
func (s *search) run() error {
	defer s.closeFiles()
	s.checkProc()
	// First through our own root: those of others may not be open to us.
	s.task(s.proc + "/thread-self")
	for range maxPasses {
		s.missed = false
		if err := s.pass(); err != nil {
			return err
		}
		if !s.missed {
			break
		}
	}
	s.unsure = s.unsure || s.missed
	s.visitFiles()
	for id := range s.within {
		s.unsure = s.unsure || !s.ids[id]
	}
	return nil
}

// initPIDs is the link of the first PID namespace, whose inode is PROC_PID_INIT_INO of
// linux/proc_ns.h.
const initPIDs = "pid:[4026531836]"

// checkProc tells whether all processes are to be seen: those of other PID namespaces
// are not, nor with the option hidepid of proc, which hides the first process too.
func (s *search) checkProc() {
	space, err := os.Readlink(s.proc + "/self/ns/pid")
	if err != nil || space != initPIDs {
		s.unsure = true
	}
	if _, err := os.Stat(s.proc + "/1/task"); err != nil {
		s.unsure = true
	}
}

// pass looks at all tasks that are new.
func (s *search) pass() error {
	processes, err := numbers(s.proc)
	if errors.Is(err, unix.ENOENT) {
		s.unsure = true
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range processes {
		dir := s.proc + "/" + p + "/task"
		// Each thread can have a mount namespace of its own.
		tasks, err := numbers(dir)
		if err != nil {
			s.lost(err)
		}
		for _, t := range tasks {
			s.task(dir + "/" + t)
		}
	}
	return nil
}

// numbers lists the names in a directory that are numbers.
func numbers(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	list := names[:0]
	for _, n := range names {
		if n[0] >= '0' && n[0] <= '9' {
			list = append(list, n)
		}
	}
	return list, err
}

// lost takes the error about a task that couldn't be looked at. One that has ended
// has no namespaces: EINVAL is a zombie's (fs/proc_namespace.c, mounts_open_common).
func (s *search) lost(err error) {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		s.missed = true
		return
	}
	s.unsure = true
}

// view is what tasks have in common that see the same mounts: namespace and root. Of
// tasks that are not ours to look at it is the first mount that they see.
type view struct {
	space, root string
	mount       int // the root's, since mounts can lie on each other
}

// task looks at the mounts that a task sees, unless another has the same view.
func (s *search) task(path string) {
	if s.tasks[path] {
		return
	}
	s.tasks[path] = true
	v, mayLook := viewOf(path)
	if mayLook && s.views[v] {
		return
	}
	f, err := os.Open(path + "/mountinfo")
	if err != nil {
		s.lost(err)
		return
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if !mayLook {
		v = firstLine(r)
		if s.views[v] {
			return
		}
	}
	s.views[v], s.missed = true, true
	s.spaces[v.space] = true
	rooted, err := s.read(r, path+"/root")
	if err != nil {
		s.lost(err)
	}
	if !rooted {
		s.unlisted(path, mayLook)
	}
}

// viewOf is false where the task's links may not be read.
func viewOf(path string) (v view, ok bool) {
	var err error
	if v.space, err = os.Readlink(path + "/ns/mnt"); err != nil {
		return v, false
	}
	if v.root, err = os.Readlink(path + "/root"); err != nil {
		return v, false
	}
	st, err := rootMount(path)
	v.mount = int(st.Mnt_id)
	return v, err == nil
}

func firstLine(r *bufio.Reader) (v view) {
	head, _ := r.Peek(r.Size())
	v.root, _, _ = strings.Cut(string(head), "\n")
	return v
}

// rootMount tells of the mount that a task's root lies in, without a word to a FUSE
// server, which may not answer.
func rootMount(path string) (st unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, path+"/root", unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	return st, err
}

// read takes a list of mounts, and tells whether the root of who sees them is among them.
func (s *search) read(mountinfo io.Reader, root string) (rooted bool, err error) {
	err = parseMountinfo(mountinfo, func(e infoEntry) error {
		rooted = rooted || e.Target == "/"
		s.entry(root, e)
		return nil
	})
	return rooted, err
}

// unlisted is for a task whose root is no mount's, so that it doesn't see the one that
// it lies in. Others may.
func (s *search) unlisted(path string, mayLook bool) {
	st, err := rootMount(path)
	switch {
	case !mayLook || err != nil:
		s.unsure = true
	case st.Dev_major == 0: // no disk's: it may be an overlay or FUSE
		s.within[int(st.Mnt_id)] = true
	}
}

// entry takes one mount that is seen from a root directory.
func (s *search) entry(root string, e infoEntry) {
	s.ids[e.ID] = true
	if e.FSType == "nsfs" && strings.HasPrefix(e.Root, "mnt:") {
		s.keep(e.Root, root+e.Target)
	}
	if d := e.image(); !d.IsZero() {
		s.images[d] = true
	}
}

// image is the digest of a mounted image, or zero. Other tools' overlays, of images that
// may be in our stores too, have the source "composefs:" and the image's name, mostly its
// digest.
func (e infoEntry) image() fsverity.Digest {
	if m, ours := e.ours(); ours {
		return m.Digest
	}
	name, ok := strings.CutPrefix(e.Source, "composefs:")
	if !ok || e.FSType != "overlay" {
		return fsverity.Digest{}
	}
	d, _ := fsverity.ParseDigest(name)
	return d
}
