package chunk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/flatroot/flatroot/tree"
)

// FS has a tree read by way of io/fs, for readers of package databases. Symlinks are followed within the tree, as they would
// be if it were the root directory. Files can be read at any offset if content gives files that can.
func FS(t *tree.Tree, content Content) fs.FS { return &treeFS{t, content} }

type treeFS struct {
	t       *tree.Tree
	content Content
}

// linksMax bounds the symlinks that a path leads through (MAXSYMLINKS in the kernel's linux/namei.h).
const linksMax = 40

var errLinks = errors.New("too many symlinks")

// Open opens a file or directory.
func (f *treeFS) Open(name string) (fs.File, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

func (f *treeFS) open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	n, err := f.resolve(name)
	if err != nil {
		return nil, err
	}
	info := fileInfo{f.t, n, path.Base(name)}
	switch f.t.Mode(n) & tree.TypeMask {
	case tree.Directory:
		d := &openDir{fileInfo: info}
		for e := range f.t.Entries(n) {
			d.left = append(d.left, fs.FileInfoToDirEntry(fileInfo{f.t, e.Node, string(e.Name)}))
		}
		return d, nil
	case tree.Regular:
		return f.openFile(info)
	}
	return nil, errors.New("it is neither a file nor a directory")
}

func (f *treeFS) openFile(info fileInfo) (fs.File, error) {
	if content := f.t.Content(info.n); content != nil || f.t.Attr(info.n).Size == 0 {
		return &inlineFile{bytes.NewReader(content), info}, nil
	}
	r, err := f.content(info.n)
	if err != nil {
		return nil, err
	}
	if at, ok := r.(io.ReaderAt); ok {
		return &openFileAt{openFile{r, info}, at}, nil
	}
	return &openFile{r, info}, nil
}

// resolve follows a path.
func (f *treeFS) resolve(name string) (tree.Node, error) {
	at := []tree.Node{tree.Root}
	left, links := strings.Split(name, "/"), 0
	for len(left) > 0 {
		part := left[0]
		left = left[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		dir := at[len(at)-1]
		if !f.t.IsDir(dir) {
			return 0, fs.ErrNotExist
		}
		n, ok := f.t.Lookup(dir, []byte(part))
		if !ok {
			return 0, fs.ErrNotExist
		}
		if f.t.Mode(n)&tree.TypeMask != tree.Symlink {
			at = append(at, n)
			continue
		}
		if links++; links > linksMax {
			return 0, errLinks
		}
		target := string(f.t.Target(n))
		if strings.HasPrefix(target, "/") {
			at = at[:1]
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return at[len(at)-1], nil
}

type fileInfo struct {
	t    *tree.Tree
	n    tree.Node
	name string
}

func (i fileInfo) Stat() (fs.FileInfo, error) { return i, nil }
func (i fileInfo) Name() string               { return i.name }
func (i fileInfo) Size() int64                { return int64(i.t.Attr(i.n).Size) }
func (i fileInfo) IsDir() bool                { return i.t.IsDir(i.n) }
func (i fileInfo) Sys() any                   { return nil }

func (i fileInfo) ModTime() time.Time {
	a := i.t.Attr(i.n)
	return time.Unix(a.MtimeSec, int64(a.MtimeNsec)).UTC()
}

// Mode has the type and the permission bits.
func (i fileInfo) Mode() fs.FileMode {
	mode := fs.FileMode(i.t.Mode(i.n) & 0o777)
	switch i.t.Mode(i.n) & tree.TypeMask {
	case tree.Directory:
		mode |= fs.ModeDir
	case tree.Symlink:
		mode |= fs.ModeSymlink
	case tree.CharDevice:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case tree.BlockDevice:
		mode |= fs.ModeDevice
	case tree.FIFO:
		mode |= fs.ModeNamedPipe
	case tree.Socket:
		mode |= fs.ModeSocket
	}
	return mode
}

type openFile struct {
	io.ReadCloser
	fileInfo
}

type openFileAt struct {
	openFile
	io.ReaderAt
}

type inlineFile struct {
	*bytes.Reader
	fileInfo
}

func (f *inlineFile) Size() int64  { return f.fileInfo.Size() }
func (f *inlineFile) Close() error { return nil }

type openDir struct {
	fileInfo
	left []fs.DirEntry
}

func (d *openDir) Close() error { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("it is a directory")}
}

// ReadDir lists the directory, in byte order.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.left) {
		n = len(d.left)
	}
	list := d.left[:n:n]
	d.left = d.left[n:]
	return list, nil
}
