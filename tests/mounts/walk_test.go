package mounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
)

// walker reads a mounted tree through directory descriptors, since paths may be longer than the kernel takes.
type walker struct {
	records []*record
	buf     []byte // for directories and content
	xattr   []byte
}

// walk returns a record for each name of the tree mounted at root. Errors of single files are in their records.
func walk(root string) ([]*record, error) {
	w := &walker{buf: make([]byte, 1<<20), xattr: make([]byte, 1<<16)}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(fd)
	if err := w.look(fd, ".", "/", nil); err != nil {
		return nil, err
	}
	if err := w.directory(fd, ""); err != nil {
		return nil, err
	}
	return finish(w.records), nil
}

// entry is what a directory says of a name.
type entry struct {
	name     string
	inode    uint64
	fileType uint8 // DT_ of dirent.h
}

// entries reads a directory with a buffer of the given size in bytes.
func entries(fd int, buf []byte) ([]entry, error) {
	var list []entry
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return list, err
		}
		for b := buf[:n]; len(b) > 0; {
			e, rest, err := parseDirent(b)
			if err != nil {
				return nil, err
			}
			list, b = append(list, e), rest
		}
	}
}

// parseDirent reads a struct linux_dirent64: ino, off, reclen, type, name.
func parseDirent(b []byte) (e entry, rest []byte, err error) {
	const head = 8 + 8 + 2 + 1
	if len(b) < head {
		return e, nil, errors.New("dirent is cut short")
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < head || size > len(b) {
		return e, nil, fmt.Errorf("dirent of %d bytes", size)
	}
	name, _, _ := strings.Cut(string(b[head:size]), "\x00")
	return entry{name, binary.NativeEndian.Uint64(b), b[18]}, b[size:], nil
}

func (w *walker) directory(fd int, path string) error {
	list, err := entries(fd, w.buf)
	if err != nil {
		return fmt.Errorf("list %s/: %w", path, err)
	}
	dots := 0
	for _, e := range list {
		if e.name == "." || e.name == ".." {
			dots++
			continue
		}
		p := path + "/" + e.name
		if err := w.look(fd, e.name, p, &e); err != nil {
			return err
		}
		if !w.records[len(w.records)-1].is(tree.Directory) {
			continue
		}
		sub, err := unix.Openat(fd, e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", p, err)
		}
		err = w.directory(sub, p)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	if dots != 2 {
		return fmt.Errorf("list %s/: %d of the names . and ..", path, dots)
	}
	return nil
}

// look makes the record of a name in the directory fd; e is what the directory says of it.
func (w *walker) look(fd int, name, path string, e *entry) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		w.records = append(w.records, &record{path: path, odd: []string{"stat=" + failed(err)}})
		return nil
	}
	r := &record{path: path, inode: st.Ino, attr: tree.Attr{
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		MtimeSec: int64(st.Mtim.Sec), MtimeNsec: uint32(st.Mtim.Nsec),
	}}
	w.records = append(w.records, r)
	if e != nil && uint32(e.fileType) != st.Mode&tree.TypeMask>>12 {
		r.odd = append(r.odd, fmt.Sprintf("d_type=%d", e.fileType))
	}
	if st.Atim != st.Mtim || st.Ctim != st.Mtim {
		r.odd = append(r.odd, fmt.Sprintf("atime=%d.%d,ctime=%d.%d", st.Atim.Sec, st.Atim.Nsec, st.Ctim.Sec, st.Ctim.Nsec))
	}
	switch {
	case r.is(tree.Regular):
		r.attr.Size = uint64(st.Size)
		r.data = w.content(fd, name, st.Size)
	case r.is(tree.Symlink):
		r.attr.Size = uint64(st.Size)
		r.target = w.target(fd, name)
	case r.is(tree.CharDevice), r.is(tree.BlockDevice):
		device(unix.Major(st.Rdev), unix.Minor(st.Rdev))(&r.attr)
	}
	r.xattrs = w.attributes(fmt.Sprintf("/proc/thread-self/fd/%d/%s", fd, name))
	return nil
}

func (w *walker) target(fd int, name string) string {
	n, err := unix.Readlinkat(fd, name, w.buf)
	if err != nil {
		return failed(err)
	}
	return string(w.buf[:n])
}

// wholeMax is up to which size in bytes content is read as a whole. The few larger files are sparse, to petabytes.
const wholeMax = 32 << 20

// content is the digest of a file's content, of a huge one's beginning and end.
func (w *walker) content(fd int, name string, size int64) string {
	h, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed(err)
	}
	f := os.NewFile(uintptr(h), name)
	defer f.Close()
	if size > wholeMax {
		return endsOf(f, size)
	}
	sum := fsverity.NewHasher(fsverity.SHA256)
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, w.buf)
	if err != nil {
		return failed(err)
	}
	if n != size {
		return fmt.Sprintf("!%d bytes", n)
	}
	return sum.Sum().String()
}

// endsOf is of what a record tells of a file that is too large to be read.
func endsOf(f io.ReaderAt, size int64) string {
	text := "ends"
	b := make([]byte, 4000)
	for _, off := range []int64{0, size/2 + 1, size - 1000} {
		n, err := f.ReadAt(b[:min(int64(len(b)), size-off)], off)
		if err != nil {
			return failed(err)
		}
		text += ":" + digestOf(b[:n])[:16]
	}
	return text
}

func (w *walker) attributes(path string) map[string]string {
	xs := map[string]string{}
	n, err := unix.Llistxattr(path, w.xattr)
	if err != nil {
		xs["list"] = failed(err)
		return xs
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(w.xattr[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if _, twice := xs[name]; twice {
			xs[name+"#2"] = ""
			continue
		}
		if n, err := unix.Lgetxattr(path, name, w.buf); err != nil {
			xs[name] = failed(err)
		} else {
			xs[name] = string(w.buf[:n])
		}
	}
	return xs
}
