package index

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/tree"
)

// DirTree is a directory's tree, of whose files nothing was read that is not inline: for those who are going to read each
// content once anyhow. Open may be called concurrently.
type DirTree struct {
	// Tree is that which Build would make of the directory's tar by the rules Faithful1, but files of more than InlineMax bytes
	// have no digests.
	Tree *tree.Tree

	root *os.File
	seen map[tree.Node]fileState // those files, as they were found
}

// ReadDir reads a directory as WriteDirTar does, but no contents.
func ReadDir(ctx context.Context, a fsverity.Algorithm, dir string, d DirOptions, l Limits) (*DirTree, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	t := &DirTree{root: root}
	found, err := t.read(ctx, a, d, l)
	if err == nil {
		err = t.note(found)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", dir, err), root.Close())
	}
	return t, nil
}

// note notes how the files were found: nodes come in the order of the tar.
func (t *DirTree) note(found []fileState) error {
	files, _ := t.unread()
	t.seen = make(map[tree.Node]fileState, len(files))
	for i, n := range files {
		if len(files) != len(found) || !found[i].is(t.Tree.Attr(n)) {
			return fmt.Errorf("%s is in the tree otherwise than it was found (this is an error of flatroot's)", t.Tree.Path(n))
		}
		t.seen[n] = found[i]
	}
	return nil
}

func (s fileState) is(a tree.Attr) bool {
	sec, nsec := s.mtime.Unix()
	return s.mode == a.Mode && uint64(s.size) == a.Size && sec == a.MtimeSec && nsec == int64(a.MtimeNsec)
}

// read reads the tree, and how its files of more than InlineMax bytes are found.
func (t *DirTree) read(ctx context.Context, a fsverity.Algorithm, d DirOptions, l Limits) (found []fileState, err error) {
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		err := t.writeHeaders(ctx, w, d, &found)
		w.CloseWithError(err)
		return err
	})
	layer, err := readHeaders(a, r, l.withDefaults())
	r.CloseWithError(err)
	written := g.Wait()
	if err != nil && errors.Is(written, err) { // the writer has only heard of it, at another file
		return nil, err
	}
	if err := cmp.Or(written, err); err != nil { // the first of them knows the path
		return nil, err
	}
	t.Tree, err = Flatten(ctx, []*Layer{layer}, FlattenOptions{Rules: Faithful1, Algorithm: a, MaxEntries: l.MaxImageEntries})
	return found, err
}

// writeHeaders writes the directory's tar without the contents of more than InlineMax bytes, and tells as what it has found those
// files.
func (t *DirTree) writeHeaders(ctx context.Context, w io.Writer, o DirOptions, found *[]fileState) error {
	buffer := bufio.NewWriterSize(w, inlineMax)
	d := newDirWriter(ctx, buffer, o)
	d.omit = func(st *unix.Stat_t) error {
		*found = append(*found, stateOf(st))
		d.begin(buffer) // a writer that has written a header would wait for as many bytes as that says
		_, err := buffer.Write(make([]byte, -st.Size&(tarBlock-1)))
		return err
	}
	return cmp.Or(d.write(t.root), buffer.Flush())
}

// readHeaders reads what writeHeaders writes.
func readHeaders(a fsverity.Algorithm, r io.Reader, l Limits) (*Layer, error) {
	layer, b := newLayer(a, ""), newBounds(l)
	_, err := parseTar(headers{bufio.NewReaderSize(r, inlineMax)}, l, func(e *Entry) error {
		return b.keep(layer.entries.add(e))
	})
	return layer, err
}

// headers is a tar whose larger contents are left out.
type headers struct{ io.Reader }

func (headers) External(int64) (int, error) { return -1, nil }

func (headers) Sparse(int64, []segment, int64) (int, []byte, error) {
	return -1, nil, errors.New("a sparse file, where none is written")
}

// Close releases the directory.
func (t *DirTree) Close() error { return t.root.Close() }

// Open opens the content of a regular file that has more than InlineMax bytes: below the directory, and through no symlink.
// If the file is not as it was found, or has changed when its end is read, that is an error.
func (t *DirTree) Open(n tree.Node) (io.ReadCloser, error) {
	path := t.Tree.Path(n)
	fd, err := openBelow(int(t.root.Fd()), path[1:])
	path = filepath.Join(t.root.Name(), path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := &dirFile{os.NewFile(uintptr(fd), path), t.seen[n]}
	if err := f.check(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openBelow opens a file below a directory, and follows no symlink. A FIFO that has taken the file's place is not waited for.
func openBelow(root int, path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	switch err {
	case unix.ENOSYS, unix.EPERM, unix.EAGAIN: // before Linux 5.6; some sandboxes; something was renamed meanwhile
		return openAlong(root, path, flags)
	}
	return fd, err
}

// openAlong is openBelow by one name after the other.
func openAlong(root int, path string, flags int) (fd int, err error) {
	for dir := root; ; dir = fd {
		name, rest, isDir := strings.Cut(path, "/")
		how := flags
		if isDir {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err = unix.Openat(dir, name, how, 0)
		if dir != root {
			unix.Close(dir)
		}
		if err != nil || !isDir {
			return fd, err
		}
		path = rest
	}
}

// dirFile is a file that must not change while it is read. It is no os.File, which would be read past Read.
type dirFile struct {
	file  *os.File
	found fileState
}

func (f *dirFile) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.file.Name(), err)
	}
	if stateOf(&st) != f.found {
		return fmt.Errorf("%s: %w", f.file.Name(), errChanged)
	}
	return nil
}

func (f *dirFile) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	if err == io.EOF {
		if changed := f.check(); changed != nil {
			err = changed
		}
	}
	return n, err
}

func (f *dirFile) ReadAt(p []byte, at int64) (int, error) { return f.file.ReadAt(p, at) }

func (f *dirFile) Close() error { return f.file.Close() }

// Hash reads all contents, several at once, and gives the tree their digests.
func (t *DirTree) Hash(ctx context.Context, p Progress) error {
	files, size := t.unread()
	tell := p.Start(Reading, oci.Layer{Descriptor: ocispec.Descriptor{
		Size: size, Annotations: map[string]string{ocispec.AnnotationTitle: "contents"},
	}})
	if tell == nil {
		tell = func(int64) {}
	}
	defer tell(0)
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan tree.Node)
	g.Go(func() error {
		defer close(todo)
		for _, n := range files {
			select {
			case todo <- n:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	var mu sync.Mutex // of the tree's digests
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := make([]byte, wholeMax)
			for n := range todo {
				d, err := t.hash(ctx, n, buf, tell)
				if err != nil {
					return err
				}
				mu.Lock()
				err = t.Tree.SetObject(n, d)
				mu.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// unread lists the files whose content was not read, and how many bytes they have together.
func (t *DirTree) unread() (files []tree.Node, size int64) {
	for n := range tree.Node(t.Tree.Len()) {
		if a := t.Tree.Attr(n); a.Mode&tree.TypeMask == tree.Regular && a.Size > InlineMax {
			files, size = append(files, n), size+int64(a.Size)
		}
	}
	return files, size
}

func (t *DirTree) hash(ctx context.Context, n tree.Node, buf []byte, tell func(int64)) (d fsverity.Digest, err error) {
	f, err := t.Open(n)
	if err != nil {
		return d, err
	}
	defer f.Close()
	r := &heedful{ctx, f, tell}
	got, err := io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fsverity.Sum(t.Tree.Algorithm(), buf[:got]), nil
	}
	if err != nil {
		return d, err
	}
	h := fsverity.NewHasher(t.Tree.Algorithm())
	h.Write(buf)
	if _, err := io.CopyBuffer(h, r, buf); err != nil {
		return d, err
	}
	return h.Sum(), nil
}

// heedful is a file that may be large: how far it was read is told, and who gives up need not wait for its end.
type heedful struct {
	ctx  context.Context
	r    io.Reader
	tell func(int64)
}

func (h *heedful) Read(p []byte) (int, error) {
	if h.ctx.Err() != nil {
		return 0, context.Cause(h.ctx)
	}
	n, err := h.r.Read(p)
	if n > 0 {
		h.tell(int64(n))
	}
	return n, err
}
