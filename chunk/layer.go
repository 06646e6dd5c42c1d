package chunk

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tree"
)

// Content opens a regular file's content. It is not asked for what is inline: that is in the tree already.
type Content func(n tree.Node) (io.ReadCloser, error)

// WriteLayer writes the tar of a layer: the nodes that has names, each with all of its names, and the directories above
// them. Every layer has the same metadata for a directory, so that layers can be put together in any order.
//
// The tar depends on nothing else: names in byte order, depth first, a directory before what is in it, PAX format, numeric
// owners, times in nanoseconds, extended attributes as SCHILY.xattr records. Of a node with several names the first is the
// file, the others are hard links. The root, "./", is in every layer.
//
// The layers of a tree may be written at the same time once Claim has divided it: then all directories are in order, and as
// long as nobody changes the tree it can be read by several goroutines.
//
// What a layer can't hold is an error that names the path, and so is content whose length is not the tree's. What was written
// until then is worth nothing. Contents are asked for in the order of the tar, and not hashed here: who publishes a layer reads
// it back and compares the digests of what is in it with the tree's, so that each is hashed once.
func WriteLayer(ctx context.Context, w io.Writer, t *tree.Tree, has func(tree.Node) bool, content Content) error {
	l := newLayerWriter(ctx, w, t)
	l.open = content
	return l.write(has)
}

const (
	// whiteoutPrefix begins the names of whiteouts (OCI image specification, layer.md).
	whiteoutPrefix = ".wh."
	paxXattrPrefix = "SCHILY.xattr."
	layerBuffer    = 1 << 20 // bytes; fewer make hashing slower, more are of no use
)

// What a layerWriter notes of a node.
const (
	isIn    = 1 << iota // the layer has it, be it as a parent
	isMulti             // it has several names
)

type layerWriter struct {
	ctx    context.Context
	t      *tree.Tree
	open   Content
	hidden map[tree.Node][]string // names of whiteouts by directory

	out   *bufio.Writer
	tar   *tar.Writer
	path  []byte // of the entry, without a slash at its beginning
	marks []uint8
	first map[tree.Node]string // of nodes with several names: the one that was written
	buf   []byte
}

func newLayerWriter(ctx context.Context, w io.Writer, t *tree.Tree) *layerWriter {
	out := bufio.NewWriterSize(w, layerBuffer)
	return &layerWriter{
		ctx: ctx, t: t, out: out, tar: tar.NewWriter(out), marks: make([]uint8, t.Len()),
		first: map[tree.Node]string{},
	}
}

func (l *layerWriter) write(has func(tree.Node) bool) error {
	l.mark(tree.Root, has)
	if err := l.named(l.header(tree.Root, "./")); err != nil {
		return err
	}
	if err := l.dir(tree.Root); err != nil {
		return err
	}
	if err := l.tar.Close(); err != nil {
		return err
	}
	return l.out.Flush()
}

// mark notes what the layer has of a directory, and tells whether that is anything, the directory itself included.
func (l *layerWriter) mark(dir tree.Node, has func(tree.Node) bool) bool {
	in := has(dir)
	for e := range l.t.Entries(dir) {
		switch {
		case l.t.IsDir(e.Node):
			in = l.mark(e.Node, has) || in
		case l.marks[e.Node] != 0:
			l.marks[e.Node] |= isMulti
			in = true
		case has(e.Node):
			l.marks[e.Node] = isIn
			in = true
		}
	}
	if in {
		l.marks[dir] = isIn
	}
	return in
}

// dir writes what the layer has below a directory, whose path is l.path.
func (l *layerWriter) dir(dir tree.Node) error {
	for _, name := range l.hidden[dir] {
		if err := l.whiteout(name); err != nil {
			return err
		}
	}
	end := len(l.path)
	defer func() { l.path = l.path[:end] }()
	for e := range l.t.Entries(dir) {
		if l.marks[e.Node] == 0 {
			continue
		}
		l.path = append(l.path[:end], e.Name...)
		if err := l.named(l.entry(e)); err != nil {
			return err
		}
		if l.t.IsDir(e.Node) {
			l.path = append(l.path, '/')
			if err := l.dir(e.Node); err != nil {
				return err
			}
		}
	}
	return nil
}

// named says of which path an error is.
func (l *layerWriter) named(err error) error {
	if err != nil {
		return fmt.Errorf("write layer: /%s: %w", l.path, err)
	}
	return nil
}

var (
	errWhiteoutName = errors.New("a name that begins with .wh. would be a whiteout in a layer, not a file")
	errSocket       = errors.New("it is a socket, which a layer can't have: leave it out of the image")
	errPathLength   = fmt.Errorf("its path has more than %d bytes, which no layer can have", tree.TargetMax)
)

// entry writes one name.
func (l *layerWriter) entry(e tree.Entry) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(string(e.Name), whiteoutPrefix):
		return errWhiteoutName
	case len(l.path) > tree.TargetMax:
		return errPathLength
	case l.t.IsDir(e.Node):
		return l.header(e.Node, string(l.path)+"/")
	}
	name := string(l.path)
	if l.marks[e.Node]&isMulti != 0 {
		if first, ok := l.first[e.Node]; ok {
			return l.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX})
		}
		l.first[e.Node] = name
	}
	if err := l.header(e.Node, name); err != nil {
		return err
	}
	if l.t.Mode(e.Node)&tree.TypeMask == tree.Regular {
		return l.content(e.Node)
	}
	return nil
}

// header writes the header of anything but a hard link.
func (l *layerWriter) header(n tree.Node, name string) error {
	a := l.t.Attr(n)
	h := &tar.Header{
		Name: name, Linkname: string(l.t.Target(n)), Mode: int64(a.Mode &^ tree.TypeMask), Uid: int(a.UID), Gid: int(a.GID),
		ModTime: time.Unix(a.MtimeSec, int64(a.MtimeNsec)), Format: tar.FormatPAX,
	}
	if h.ModTime.IsZero() {
		return errors.New("its time is the first second of the year 1, which tar writers take for none")
	}
	switch a.Mode & tree.TypeMask {
	case tree.Regular:
		if a.Size > math.MaxInt64 {
			return fmt.Errorf("a size of %d bytes", a.Size)
		}
		h.Typeflag, h.Size = tar.TypeReg, int64(a.Size)
	case tree.Directory:
		h.Typeflag = tar.TypeDir
	case tree.Symlink:
		h.Typeflag = tar.TypeSymlink
	case tree.CharDevice:
		h.Typeflag = tar.TypeChar
	case tree.BlockDevice:
		h.Typeflag = tar.TypeBlock
	case tree.FIFO:
		h.Typeflag = tar.TypeFifo
	case tree.Socket:
		return errSocket
	default:
		return fmt.Errorf("unknown file type %o", a.Mode&tree.TypeMask)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(a.Rdev))), int64(unix.Minor(uint64(a.Rdev)))
	}
	var err error
	if h.PAXRecords, err = l.xattrs(n); err != nil {
		return err
	}
	return l.tar.WriteHeader(h)
}

// xattrs are a node's extended attributes as PAX records, in which not all can be said.
func (l *layerWriter) xattrs(n tree.Node) (map[string]string, error) {
	set := l.t.XattrSet(n)
	if set < 0 {
		return nil, nil
	}
	records := map[string]string{}
	for _, p := range l.t.XattrPairs(set) {
		name, value := l.t.XattrPair(p)
		switch {
		case len(value) == 0: // a record without a value takes back what an earlier one said
			return nil, fmt.Errorf("extended attribute %q is empty, which a layer can't say", name)
		case strings.ContainsAny(string(name), "=\x00"):
			return nil, fmt.Errorf("extended attribute %q has a name that a layer can't say", name)
		}
		records[paxXattrPrefix+string(name)] = string(value)
	}
	return records, nil
}

// content writes a regular file's content, of which the header has been written.
func (l *layerWriter) content(n tree.Node) error {
	size, inline := int64(l.t.Attr(n).Size), l.t.Content(n)
	switch {
	case inline != nil:
		if int64(len(inline)) != size {
			return fmt.Errorf("the tree has %d bytes of content and a size of %d", len(inline), size)
		}
		_, err := l.tar.Write(inline)
		return err
	case size == 0:
		return nil
	}
	r, err := l.open(n)
	if err != nil {
		return err
	}
	err = l.copy(r, size)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return err
}

// copy writes size bytes, and makes sure that there are no more.
func (l *layerWriter) copy(r io.Reader, size int64) error {
	if l.buf == nil {
		l.buf = make([]byte, layerBuffer)
	}
	if size >= layerBuffer { // then it goes past the buffer, uncopied
		if err := l.out.Flush(); err != nil {
			return err
		}
	}
	for left := size; left > 0; {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, l.buf[:min(left, layerBuffer)])
		left -= int64(n)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return fmt.Errorf("content ends after %d bytes, the tree has %d", size-left, size)
		case err != nil:
			return err
		}
		if _, err := l.tar.Write(l.buf[:n]); err != nil {
			return err
		}
	}
	switch _, err := io.ReadFull(r, l.buf[:1]); {
	case err == nil:
		return fmt.Errorf("content is longer than the %d bytes that the tree has", size)
	case err != io.EOF:
		return err
	}
	return nil
}

// whiteout writes a whiteout into the directory whose path is l.path. It looks as those of common builders do.
func (l *layerWriter) whiteout(name string) error {
	return l.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: string(l.path) + name, Format: tar.FormatPAX})
}
