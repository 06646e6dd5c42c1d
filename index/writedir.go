package index

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
)

// DirOptions are WriteDirTar's.
type DirOptions struct {
	// OneFileSystem leaves directories empty on which other file systems are mounted.
	OneFileSystem bool
	// Note is told what the tar does not have, or has from elsewhere. Paths begin with the directory's.
	Note func(path, what string)
	// Clone lends clones of files, which are read instead; nil: there are none.
	Clone oci.CloneFunc
}

var (
	errChanged  = errors.New("it changed while it was read")
	errWhiteout = errors.New("a name that begins with .wh. would be a whiteout in a layer, not a file")
)

// WriteDirTar writes a directory as a tar that depends on nothing but what is in it: PAX format, names in byte order,
// depth first, numeric owners, times in nanoseconds, extended attributes as SCHILY.xattr records. Of a file with several
// names the first holds the content, the others are hard links. Sockets are left out, holes are written as zeros.
//
// The tree may change meanwhile, or be hostile: no symlink is followed, nothing outside of dir is read, and a file that
// changes while it is read is an error.
func WriteDirTar(ctx context.Context, w io.Writer, dir string, o DirOptions) error {
	root, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	return newDirWriter(ctx, w, o).write(root)
}

func newDirWriter(ctx context.Context, w io.Writer, o DirOptions) *dirWriter {
	d := &dirWriter{DirOptions: o, ctx: ctx, first: map[inodeID]string{}}
	d.begin(w)
	if d.Note == nil {
		d.Note = func(string, string) {}
	}
	return d
}

// begin begins a tar, or goes on with one behind what was written.
func (d *dirWriter) begin(w io.Writer) { d.w = tar.NewWriter(io.MultiWriter(w, &d.at)) }

// write writes an open directory.
func (d *dirWriter) write(root *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", root.Name(), err)
	}
	if err := d.header(root, ".", "./", &st, ""); err != nil {
		return fmt.Errorf("%s: %w", root.Name(), err)
	}
	if err := d.children(root, "", st.Dev); err != nil {
		return err
	}
	return d.w.Close()
}

// OpenDirTar returns the tar that WriteDirTar writes. Nothing is done before it is read.
func OpenDirTar(ctx context.Context, dir string, o DirOptions) oci.FileBlob {
	t := &dirTar{o: o}
	t.r, t.w = io.Pipe()
	t.write = func() { t.w.CloseWithError(WriteDirTar(ctx, t.w, dir, t.o)) }
	return t
}

type dirTar struct {
	o     DirOptions
	r     *io.PipeReader
	w     *io.PipeWriter
	begin sync.Once
	write func()
}

func (t *dirTar) Through(clone oci.CloneFunc) { t.o.Clone = clone }

func (t *dirTar) Read(p []byte) (int, error) {
	t.begin.Do(func() { go t.write() })
	return t.r.Read(p)
}

func (t *dirTar) Close() error { return t.r.Close() }

type dirWriter struct {
	DirOptions
	ctx   context.Context
	w     *tar.Writer
	at    countWriter        // in the tar
	first map[inodeID]string // of files with several names: the one that was written
	buf   []byte             // extended attributes
	// omit does what writing the content of more than InlineMax bytes does, and the padding; nil: it is written.
	omit func(st *unix.Stat_t) error
}

// inodeID is what all names of a file have in common.
type inodeID struct{ dev, ino uint64 }

// children writes what is in an open directory, whose path in the tar is at.
func (d *dirWriter) children(dir *os.File, at string, dev uint64) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if err := d.entry(dir, name, path.Join(at, name), dev); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one name of an open directory, and all below it.
func (d *dirWriter) entry(dir *os.File, name, at string, dev uint64) error {
	shown := path.Join(dir.Name(), name)
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err != nil:
	case strings.HasPrefix(name, whiteoutPrefix):
		err = errWhiteout
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		d.Note(shown, "a socket, left out")
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return d.dir(dir, name, at, &st, dev)
	default:
		err = d.file(dir, name, at, &st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", shown, err)
	}
	return nil
}

func (d *dirWriter) dir(parent *os.File, name, at string, st *unix.Stat_t, dev uint64) error {
	f, err := openSame(parent, name, st, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.header(parent, name, at+"/", st, ""); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	switch {
	case st.Dev != dev && d.OneFileSystem:
		d.Note(f.Name(), "another file system, left empty")
		return nil
	case st.Dev != dev:
		d.Note(f.Name(), "another file system, taken along")
	}
	return d.children(f, at, st.Dev)
}

// openSame opens a name without following a symlink, and makes sure that it is still the file that was looked at.
func openSame(parent *os.File, name string, st *unix.Stat_t, flags int) (*os.File, error) {
	shown := path.Join(parent.Name(), name)
	// Not to wait for a writer, should a FIFO have taken its place.
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := unix.Openat(int(parent.Fd()), name, flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: shown, Err: err}
	}
	f := os.NewFile(uintptr(fd), shown)
	var now unix.Stat_t
	if err = unix.Fstat(fd, &now); err == nil && !unchanged(st, &now) {
		err = errChanged
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", shown, err)
	}
	return f, nil
}

// fileState is what tells that a file is still as it was.
type fileState struct {
	inodeID
	mode  uint32
	size  int64
	mtime unix.Timespec
}

func stateOf(st *unix.Stat_t) fileState {
	return fileState{inodeID{st.Dev, st.Ino}, st.Mode, st.Size, st.Mtim}
}

func unchanged(a, b *unix.Stat_t) bool { return stateOf(a) == stateOf(b) }

// file writes what is no directory.
func (d *dirWriter) file(dir *os.File, name, at string, st *unix.Stat_t) error {
	id := inodeID{st.Dev, st.Ino}
	if st.Nlink > 1 {
		if first, ok := d.first[id]; ok {
			return d.w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: at, Linkname: first, Format: tar.FormatPAX})
		}
		d.first[id] = at
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return d.regular(dir, name, at, st)
	case unix.S_IFLNK:
		target, err := readlinkat(dir, name)
		if err != nil {
			return err
		}
		return d.header(dir, name, at, st, target)
	}
	return d.header(dir, name, at, st, "")
}

func readlinkat(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", errors.New("the target of the symlink is too long")
	}
	return string(buf[:n]), nil
}

func (d *dirWriter) regular(dir *os.File, name, at string, st *unix.Stat_t) error {
	if d.omit != nil && st.Size > InlineMax {
		if err := d.header(dir, name, at, st, ""); err != nil {
			return err
		}
		return d.omit(st)
	}
	f, err := openSame(dir, name, st, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.header(dir, name, at, st, ""); err != nil {
		return err
	}
	n, err := d.content(f, st.Size)
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return err
	}
	if n != st.Size || !unchanged(st, &now) {
		return errChanged
	}
	return nil
}

// content writes a file's content, of which the header has been written, and returns how much there was.
func (d *dirWriter) content(f *os.File, size int64) (int64, error) {
	if d.Clone != nil {
		if clone := d.Clone(f, d.at.n, size); clone != nil {
			defer clone.Close()
			f = clone
		}
	}
	return io.Copy(d.w, io.LimitReader(f, size))
}

// header writes the header of anything but a hard link.
func (d *dirWriter) header(dir *os.File, name, at string, st *unix.Stat_t, target string) error {
	h := &tar.Header{
		Typeflag: typeflags[st.Mode&unix.S_IFMT], Name: at, Linkname: target, Mode: int64(st.Mode &^ unix.S_IFMT),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch h.Typeflag {
	case tar.TypeReg:
		h.Size = st.Size
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case 0:
		return fmt.Errorf("unknown file type %o", st.Mode&unix.S_IFMT)
	}
	var err error
	if h.PAXRecords, err = d.xattrs(dir, name); err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	return d.w.WriteHeader(h)
}

var typeflags = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock, unix.S_IFIFO: tar.TypeFifo,
}

// xattrs reads the extended attributes of a name in an open directory. Only a path leads to those of symlinks and
// devices; one through /proc begins in the very directory that was opened.
func (d *dirWriter) xattrs(dir *os.File, name string) (map[string]string, error) {
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	if d.buf == nil {
		d.buf = make([]byte, 64<<10) // XATTR_LIST_MAX and XATTR_SIZE_MAX
	}
	n, err := unix.Llistxattr(at, d.buf)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	records := map[string]string{}
	for key := range bytes.SplitSeq(bytes.Clone(d.buf[:n]), []byte{0}) {
		if len(key) == 0 {
			continue
		}
		n, err := unix.Lgetxattr(at, string(key), d.buf)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if n == 0 { // a record without a value takes back what an earlier one said
			d.Note(path.Join(dir.Name(), name), fmt.Sprintf("extended attribute %s is empty, left out", key))
			continue
		}
		records[paxXattrPrefix+string(key)] = string(d.buf[:n])
	}
	return records, nil
}
