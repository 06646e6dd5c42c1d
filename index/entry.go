package index

import (
	"fmt"
	"io"
	"strconv"

	"github.com/flatroot/flatroot/tree"
)

// InlineMax is the size in bytes up to which the content of a regular file
// stays inline: in the layer stream, and as composefs inline data in the image.
// It is a constant of both formats, so it must never change.
const InlineMax = 64

// Entry is one entry of a layer, read by the rules of oci-1.
//
// An Entry and everything that it refers to belong to the parser, which uses
// them again for the next entry: whoever keeps one must copy it.
type Entry struct {
	// Name is the cleaned path: no leading, trailing or doubled slash, no "."
	// and no ".." component. The root has the empty name.
	Name []byte
	// Mode is st_mode: file type and the low 12 bits. A hard link has no type of
	// its own, so its type bits are 0.
	Mode uint32
	// Rdev is the device number of a device in its 32-bit on-disk form.
	UID, GID, Rdev uint32
	// Size is the final size in bytes of a regular file, holes of a sparse one
	// included; 0 for everything else.
	Size int64
	// MtimeSec counts from 1970 and may be negative; MtimeNsec, 0 to 999999999,
	// always counts forward from it.
	MtimeSec  int64
	MtimeNsec uint32
	// Hardlink tells that Name is one more name of the inode at Link.
	Hardlink bool
	// Link is the cleaned path that a hard link points to, or the target of a
	// symlink byte for byte.
	Link []byte
	// Xattrs are the extended attributes, in no particular order, each name once.
	Xattrs []tree.Xattr
	// Content is the whole content of a regular file of 1 to InlineMax bytes.
	Content []byte
	// Object says which object holds the content of a larger file: what
	// tarInput.External or Sparse returned, or -1.
	Object int
}

// segment is a stretch of a sparse file that is not a hole, in bytes.
type segment struct{ Offset, Length int64 }

// tarInput is what the parser reads a tar from. Every byte of the tar passes
// exactly one of the three methods, in order.
type tarInput interface {
	// Read reads the tar's own bytes: headers, padding, small files, and what
	// follows the end of the archive. At the end of the tar it returns io.EOF,
	// and another error where the tar is cut short by its carrier.
	io.Reader
	// External consumes exactly size bytes, more than InlineMax: the content of
	// a regular file.
	External(size int64) (object int, err error)
	// Sparse consumes exactly stored bytes: the segments of a sparse file, end
	// to end. They are in order, do not overlap, lie within size, and have
	// stored bytes together. The expanded file, size bytes, comes back as an
	// object, or as content if it has InlineMax bytes at most.
	Sparse(stored int64, m []segment, size int64) (object int, content []byte, err error)
}

// tarReport tells what a tar was like.
type tarReport struct {
	// Entries counts the entries yielded.
	Entries int
	// Sparse tells that an entry was passed to tarInput.Sparse.
	Sparse bool
	// Inexact tells that another reader of the tar may see its entries at other
	// places: who shares a layer stream with such readers must not cut it.
	Inexact bool
}

// Limits bounds what a layer may ask for. A zero field stands for its default.
type Limits struct {
	MaxEntries         int64 // entries of a layer; 2 Mi
	MaxFileSize        int64 // bytes of a file, expanded; 64 GiB
	MaxLayerSize       int64 // bytes of a tar, and of its files expanded; 256 GiB
	MaxXattrs          int64 // extended attributes of an entry; 256
	MaxXattrBytes      int64 // their names and values, in bytes; 256 KiB
	MaxLayerXattrBytes int64 // the same, all entries together; 256 MiB
	MaxPAXBytes        int64 // bytes of an extension header or sparse map; 1 MiB
	MaxRatio           int64 // of a tar over 1 GiB to its compressed blob; 500
	MaxImageEntries    int64 // entries of all layers of an image, and directories made for them; 4 Mi
	MaxImageMetadata   int64 // bytes kept of those entries until the image is made: names, targets, xattrs, small files; 192 MiB
}

// withDefaults returns l with its zero fields filled in.
func (l Limits) withDefaults() Limits {
	fill := func(field *int64, value int64) {
		if *field == 0 {
			*field = value
		}
	}
	fill(&l.MaxEntries, 2<<20)
	fill(&l.MaxFileSize, 64<<30)
	fill(&l.MaxLayerSize, 256<<30)
	fill(&l.MaxXattrs, 256)
	fill(&l.MaxXattrBytes, 256<<10)
	fill(&l.MaxLayerXattrBytes, 256<<20)
	fill(&l.MaxPAXBytes, 1<<20)
	fill(&l.MaxRatio, 500)
	fill(&l.MaxImageEntries, defaultImageEntries)
	fill(&l.MaxImageMetadata, defaultImageMetadata)
	return l
}

// LimitError says that input asks for more than a limit of Limits allows.
type LimitError struct {
	What  string // what was counted, with its unit
	Got   int64  // what the input asks for, as far as it was counted
	Limit int64
	Flag  string // the option of the command that raises the limit
}

// Error names the limit and the flag that raises it.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d, over the limit of %d (%s raises it)", e.What, e.Got, e.Limit, e.Flag)
}

// checkLimit returns a LimitError if got is over the limit.
func checkLimit(what string, got, limit int64, flag string) error {
	if got <= limit {
		return nil
	}
	return &LimitError{What: what, Got: got, Limit: limit, Flag: flag}
}

// EntryError says at which entry of a tar reading it failed.
type EntryError struct {
	Index  int    // of the entry in its tar, from 1
	Name   string // as far as it was known, else empty
	Offset int64  // of the header block being read, in bytes from the tar's start
	Err    error
}

// Error names the entry by number, name and place.
func (e *EntryError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("tar entry %d at byte %d: %v", e.Index, e.Offset, e.Err)
	}
	return fmt.Sprintf("tar entry %d, %s, at byte %d: %v", e.Index, quotePath(e.Name), e.Offset, e.Err)
}

// Unwrap returns what was wrong with the entry.
func (e *EntryError) Unwrap() error { return e.Err }

// quotePath quotes a path for a message, of a very long one its two ends.
func quotePath(path string) string {
	const ends = 100 // bytes
	if len(path) <= 3*ends {
		return strconv.Quote(path)
	}
	return strconv.Quote(path[:ends]) + "…" + strconv.Quote(path[len(path)-ends:])
}
