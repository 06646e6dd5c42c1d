package pkgdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxText bounds, in bytes, a text that tells of many packages or lists the files of one. dpkg's status has about 900
	// bytes a package, which makes 60 MB for all packages of Debian. Long lists of files have 4 MB.
	maxText = 128 << 20
	// maxEntry bounds, in bytes, a text that tells of one package. Long ones have 12 KB.
	maxEntry = 1 << 20
	// maxInMemory bounds, in bytes, a database that must be read into memory because its file has no ReadAt. Those of rpm
	// have about 85 KB a package: it is enough for 6,000 of them.
	maxInMemory = 512 << 20
	// maxPaths bounds, in bytes, the paths that are kept of all databases. A million of ordinary ones take a fifth of it.
	maxPaths = 512 << 20
	// pathCost is what a path takes beside its bytes: a string's header, and what allocations are rounded up by.
	pathCost = 32
	// maxPathRatio bounds the paths of rpm and apk, which have a directory once for all files in it, by the bytes that
	// they were read from. Real ones take as many bytes, since digest, mode and owner are told of each file too.
	maxPathRatio = 16
	// maxPath is how long a path can be on Linux, in bytes.
	maxPath = 4095
)

// tree is a root tree, with what may still be taken of it.
type tree struct {
	root       fs.FS
	paths      int64 // bytes
	changelogs int64 // bytes
}

func newTree(root fs.FS) *tree { return &tree{root: root, paths: maxPaths, changelogs: maxChangelogs} }

// missing tells whether an error of root means that there is no such file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// errNotRegular is about something that would have to be a file, and may block or never end.
var errNotRegular = errors.New("it is no regular file")

// errTooLong is about a file that is longer than any of its kind.
var errTooLong = errors.New("it is too long")

// file is a file of a tree that is read in place.
type file struct {
	io.ReaderAt
	size  int64
	close func() error
}

// inFile adds the name of a file to an error that is about what it has.
func inFile(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// openFile opens a file, which the caller closes. It is nil if there is none.
func (t *tree) openFile(name string) (*file, error) {
	in, size, err := t.open(name)
	if in == nil || err != nil {
		return nil, err
	}
	if r, ok := in.(io.ReaderAt); ok {
		return &file{r, size, in.Close}, nil
	}
	defer in.Close()
	b, err := readBounded(in, maxInMemory)
	return &file{bytes.NewReader(b), int64(len(b)), func() error { return nil }}, inFile(name, err)
}

// open opens a regular file. It is nil if there is none.
func (t *tree) open(name string) (fs.File, int64, error) {
	info, err := fs.Stat(t.root, name) // before it is opened: a pipe would block
	if err != nil && missing(err) {
		return nil, 0, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = inFile(name, errNotRegular)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := t.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// readText reads a file of at most limit bytes. ok: there is one.
func (t *tree) readText(name string, limit int64) (text []byte, ok bool, err error) {
	in, _, err := t.open(name)
	if in == nil || err != nil {
		return nil, false, err
	}
	defer in.Close()
	text, err = readBounded(in, limit)
	return text, err == nil, inFile(name, err)
}

// readBounded reads to the end. It takes memory for what is there, whatever size the file was said to have.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", errTooLong, limit)
	}
	return b, err
}

// names lists what is in a directory and is no directory itself, sorted. It is empty if there is no such directory.
func (t *tree) names(dir string) ([]string, error) {
	entries, err := fs.ReadDir(t.root, dir)
	if err != nil && !missing(err) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// absolute lists the same as paths of the tree.
func (t *tree) absolute(dir string) ([]string, error) {
	names, err := t.names(dir)
	for i, n := range names {
		names[i] = path.Join("/", dir, n)
	}
	return names, err
}

// at fills b from an offset on.
func (f *file) at(b []byte, off int64) error {
	if off < 0 || off > f.size-int64(len(b)) {
		return fmt.Errorf("%d bytes at %d are behind the end at %d", len(b), off, f.size)
	}
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil // with io.EOF too, at the very end
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than it was said to be
	}
	return fmt.Errorf("read at %d: %w", off, err)
}

// paths collects those of one package or text.
type paths struct {
	tree *tree
	left int64 // bytes that what they are read from accounts for
}

// pathsOf collects paths from size bytes.
func (t *tree) pathsOf(size int) *paths {
	return &paths{tree: t, left: int64(size)*maxPathRatio + maxPath}
}

// clean makes what a database has a path as Package.Paths have it.
func (p *paths) clean(name string) (string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("a path of %d bytes, or with a NUL: none can be in a tree", len(name))
	}
	if p.left -= int64(len(name)); p.left < 0 {
		return "", errors.New("the paths are far longer than what they are made from")
	}
	if p.tree.paths -= int64(len(name)) + pathCost; p.tree.paths < 0 {
		return "", fmt.Errorf("the paths of all packages have more than %d bytes", int64(maxPaths))
	}
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	return path.Clean(name), nil
}

// parseSeconds is a time as texts have it: in seconds since 1970.
func parseSeconds(b []byte) (time.Time, error) {
	const last = 253402300799 // of the year 9999: later ones can't be written down by most
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n < 0 || n > last {
		return time.Time{}, fmt.Errorf("%.40q are no seconds since 1970", b)
	}
	return time.Unix(n, 0).UTC(), nil
}

// lines calls yield for each line of a text, without its end, with numbers from 1 on. Errors name the line.
func lines(text []byte, yield func(n int, line []byte) error) error {
	for n := 1; len(text) > 0; n++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if err := yield(n, line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		text = rest
	}
	return nil
}
