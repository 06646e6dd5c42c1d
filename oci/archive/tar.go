package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/files"
)

// Bounds of an archive. An image has three files for each layer at most, and
// their names are of some 70 or 80 bytes.
var (
	maxEntries = 1 << 17
	maxName    = 1 << 10  // bytes
	maxNames   = 32 << 20 // bytes of all names and targets
	maxLinks   = 8        // from one name to the next
)

// tarFiles are the files of a tar by their names. It implements files.FS.
type tarFiles struct {
	tar     io.ReaderAt
	closer  io.Closer // nil: there is nothing to close
	entries map[string]entry
}

var _ files.FS = (*tarFiles)(nil)

// entry is a file, a link, or something that is neither.
type entry struct {
	kind         kind
	offset, size int64  // of a file's content
	target       string // name that a link leads to
}

type kind byte

const (
	isFile kind = iota
	isLink
	isDir
	isOther
)

// openTar reads the headers of an archive, after inflating it if it is
// compressed. The file stays the caller's.
func openTar(ctx context.Context, f *os.File, inflating func(int64) func(int64)) (*tarFiles, error) {
	tmp, err := inflated(ctx, f, inflating)
	if err != nil {
		return nil, err
	}
	t := &tarFiles{tar: f}
	if tmp != nil {
		t.tar, t.closer = tmp, tmp
		f = tmp
	}
	st, err := f.Stat()
	if err == nil {
		t.entries, err = indexTar(ctx, f, st.Size())
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// indexTar finds out which files a tar has, and where. It reads nothing but
// headers.
func indexTar(ctx context.Context, r io.ReaderAt, size int64) (map[string]entry, error) {
	// The reader skips by seeking, and reads no byte ahead, so where it
	// stands after a header is where the content begins.
	section := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(section)
	entries := map[string]entry{}
	names := 0
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		switch {
		case err == io.EOF && n == 0:
			return nil, errors.New("is an empty archive, or none")
		case err == io.EOF:
			return entries, nil
		case err != nil && n == 0:
			return nil, fmt.Errorf("is no tar: %w", err)
		case err != nil:
			return nil, fmt.Errorf("read the header of entry %d: %w", n+1, err)
		case n == maxEntries:
			return nil, fmt.Errorf("has more than %d entries", maxEntries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if names += len(h.Name) + len(h.Linkname); names > maxNames {
			return nil, fmt.Errorf("has more than %d bytes of names", maxNames)
		}
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if err := add(entries, h, offset, size); err != nil {
			return nil, fmt.Errorf("entry %d, %q: %w", n+1, oci.Printable(h.Name, 100), err)
		}
	}
}

// add enters what a header describes.
func add(entries map[string]entry, h *tar.Header, offset, end int64) error {
	name, err := plainName(strings.TrimSuffix(h.Name, "/"))
	if err != nil {
		return err
	}
	e := entry{kind: isOther}
	switch h.Typeflag {
	case tar.TypeReg:
		if isSparse(h) {
			return errors.New("is a sparse file")
		}
		if h.Size > end-offset {
			return fmt.Errorf("ends %d bytes behind the end of the archive, which was cut off", h.Size-(end-offset))
		}
		e = entry{kind: isFile, offset: offset, size: h.Size}
	case tar.TypeLink:
		e = entry{kind: isLink, target: path.Clean(h.Linkname)}
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) {
			break // it leads nowhere
		}
		e = entry{kind: isLink, target: path.Join(path.Dir(name), h.Linkname)}
	case tar.TypeDir:
		e.kind = isDir
	}
	if len(e.target) > maxName {
		return fmt.Errorf("its target has %d bytes, more than %d", len(e.target), maxName)
	}
	if before, twice := entries[name]; twice && (before.kind != isDir || e.kind != isDir) {
		return errors.New("is there twice")
	}
	entries[name] = e
	return nil
}

// isSparse tells whether less lies in the tar than the file has.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// plainName returns the one form of a name, which begins in the archive's root
// and stays below it.
func plainName(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("its name has %d bytes, more than %d", len(name), maxName)
	}
	// tar -C DIR . puts it before every name.
	plain := strings.TrimPrefix(name, "./")
	if plain != path.Clean(plain) || path.IsAbs(plain) || plain == ".." || strings.HasPrefix(plain, "../") {
		return "", errors.New("no plain name of a file in an archive")
	}
	return plain, nil
}

// find follows a name to a file.
func (t *tarFiles) find(name string) (entry, error) {
	at, err := plainName(name)
	if err != nil {
		return entry{}, fmt.Errorf("%q: %w", oci.Printable(name, 100), err)
	}
	for range maxLinks {
		e, there := t.entries[at]
		switch {
		case !there:
			return e, fmt.Errorf("%q: %w", oci.Printable(name, 100), fs.ErrNotExist)
		case e.kind == isFile:
			return e, nil
		case e.kind != isLink:
			return e, fmt.Errorf("%q is not a file", oci.Printable(name, 100))
		}
		at = e.target
	}
	return entry{}, fmt.Errorf("%q leads from link to link", oci.Printable(name, 100))
}

// has tells whether a name is there.
func (t *tarFiles) has(name string) bool {
	_, there := t.entries[name]
	return there
}

// Open opens a file, or what a link leads to.
func (t *tarFiles) Open(name string) (files.File, error) {
	e, err := t.find(name)
	if err != nil {
		return nil, err
	}
	return t.open(e), nil
}

func (t *tarFiles) open(e entry) tarFile {
	return tarFile{io.NewSectionReader(t.tar, e.offset, e.size)}
}

// Close closes what was inflated.
func (t *tarFiles) Close() error {
	if t.closer == nil {
		return nil
	}
	return t.closer.Close()
}

// tarFile is a file of a tar. There is nothing to close.
type tarFile struct{ *io.SectionReader }

func (tarFile) Close() error { return nil }
