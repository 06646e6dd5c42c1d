// Package stream reads and writes split streams: files that hold a byte
// sequence, the original, as inline pieces and references to whole objects, so
// that a layer's tar, say, can be given back bit for bit while the contents of its
// files are stored once.
//
// Words: an object is a file of a composefs repository, named by its fs-verity
// digest (its ID here). A stream is itself stored as an object. Its object refs
// are the IDs of all objects it needs; a chunk is either inline bytes or the index
// of an object ref. Its stream refs are the IDs of other streams and of EROFS
// images, which named refs give names to ("config:sha256:…").
//
// A stream file, integers little-endian, ranges half-open and absolute:
//
//	  0  "SplitStream", version 0, flags u16, algorithm u8, 12, info range 2×u64
//	 32  info: ranges of stream refs, object refs, chunks, named refs;
//	     content type u64, size of the original u64
//	112  stream refs, object refs: the bare IDs, one behind the other
//	     named refs: zstd of "INDEX:NAME\0"…, sorted by name
//	     chunks: zstd of i64 N [bytes]: N < 0 is -N inline bytes, else an object ref
//
// Invariants: each ID occurs once in its array, in the order of first mention;
// what neighbours as inline bytes is one chunk; what the writer makes of the same
// calls is the same bytes, always. A reader trusts nothing in the file: ranges,
// counts and lengths are checked before anything is allocated for them, and a
// stream that it can't make sense of is [ErrInvalid].
//
// The package knows of no store: it reads an [io.ReaderAt] and writes an
// [io.Writer].
package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/flatroot/flatroot/fsverity"
)

// ErrInvalid is wrapped by every error that tells of damage in a stream, as
// against a failure to read it.
var ErrInvalid = errors.New("invalid split stream")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// ContentType says what the original of a stream is: eight bytes, in the file's
// order. Others than those below exist; they are to be kept and followed alike.
type ContentType uint64

const (
	OCILayer    ContentType = 0x726579616c69636f // "ocilayer": an uncompressed tar
	OCIConfig   ContentType = 0x67666e6f6369636f // "ociconfg": an image's config, JSON
	OCIManifest ContentType = 0x66696e616d69636f // "ocimanif": its manifest, JSON
	OCIBlob     ContentType = 0x626f6c625f69636f // "oci_blob": any other blob
	OCIIndex    ContentType = 0x7865646e6969636f // "ociindex": an image index, JSON; other tools have none of these
)

// String is the type's eight characters if all are printable ASCII, else its
// number, as 0x and hexadecimal digits.
func (c ContentType) String() string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(c))
	for _, ch := range b {
		if ch <= ' ' || ch > '~' {
			return "0x" + strconv.FormatUint(uint64(c), 16)
		}
	}
	return string(b[:])
}

// Known tells whether c is one of this package's constants.
func (c ContentType) Known() bool {
	switch c {
	case OCILayer, OCIConfig, OCIManifest, OCIBlob, OCIIndex:
		return true
	}
	return false
}

// NamedRef is a name for one of a stream's stream refs.
type NamedRef struct {
	Name string
	ID   fsverity.Digest
}

const (
	// maxFile is the largest stream file. Other tools read it into memory as a
	// whole.
	maxFile = 4 << 30
	// maxRefs bounds each of the two arrays: four times the files of the largest
	// trees we have heard of, and still only 512 MiB (SHA-256).
	maxRefs = 16 << 20
	// maxNamed bounds the plain text of the named refs, maxRecord one of them
	// without its NUL.
	maxNamed  = 16 << 20
	maxRecord = 4096
	// maxWindow is the largest window that libzstd's decoder takes by default, so
	// that what other readers accept, this one does. A window is allocated before
	// anything of it is there, so above minWindow, which libzstd's usual levels may
	// use for however little, it must be in proportion to the compressed bytes.
	maxWindow   = 128 << 20
	minWindow   = 8 << 20
	windowRatio = 4096
)
