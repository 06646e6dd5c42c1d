// Package dump reads and writes the text form of a tree that composefs-dump(5) describes: one line a name, eleven fields
// with one space between them, then extended attributes.
//
//	PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [KEY=VALUE ...]
//
// The words are the manual's. A path's last component is its name. PAYLOAD is a symlink's target, the object path of a
// regular file, or the target of a hard link, which is a line whose MODE begins with @; a lone dash stands for none.
//
// Invariants: what Parse takes C mkcomposefs takes too and understands alike, and what Write writes Parse reads back as
// the same tree. Parse keeps nothing of a line but what the tree holds and, of a hard link to a name that comes later, the
// two names.
package dump

import (
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
)

// Options are Parse's.
type Options struct {
	// File names the input in errors.
	File string
	// Algorithm is that of all digests. Zero takes the first digest's, and SHA-256 if there is none.
	Algorithm fsverity.Algorithm
	// Strict refuses what mkcomposefs refuses if CFS_PARSE_STRICT is in its environment: a symlink's size that is not its
	// target's length, content of a symlink, a device number of what is no device, and a last line without its newline.
	Strict bool
}

// SyntaxError tells which line of a dump is wrong and why.
type SyntaxError struct {
	File string // as in Options; may be empty
	Line int    // from 1; 0: the input as a whole
	Err  error
}

func (e *SyntaxError) Error() string {
	file := e.File
	if file == "" {
		file = "dump"
	}
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", file, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", file, e.Line, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

const (
	// lineMax bounds a line in bytes. Contents, payloads and extended attributes stay far below it even where every byte is
	// an escape; what is left is for the path, which the format doesn't bound.
	lineMax = 4 << 20
	// xattrTextMax is the length in bytes of all the extended attributes of a line, as mkcomposefs bounds it.
	xattrTextMax = 65535
)

// The fields of a line, in their order.
const (
	fieldPath = iota
	fieldSize
	fieldMode
	fieldNlink
	fieldUID
	fieldGID
	fieldRdev
	fieldMtime
	fieldPayload
	fieldContent
	fieldDigest
	fieldCount
)

var fieldNames = [fieldCount]string{
	"PATH", "SIZE", "MODE", "NLINK", "UID", "GID", "RDEV", "MTIME", "PAYLOAD", "CONTENT", "DIGEST",
}
