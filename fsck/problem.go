package fsck

import (
	"slices"

	"github.com/flatroot/flatroot/fsverity"
)

// Code says what kind of problem one is. Codes are stable: scripts rely on them.
type Code string

// The codes of problems, then those of remarks.
const (
	ObjectDamaged      Code = "object-damaged"
	ObjectMissing      Code = "object-missing"
	ObjectUnsealed     Code = "object-unsealed"
	ObjectStrange      Code = "object-strange"
	StreamInvalid      Code = "stream-invalid"
	LayerDiffers       Code = "layer-differs"
	DocumentDiffers    Code = "document-differs"
	DocumentIncomplete Code = "document-incomplete"
	ImageInvalid       Code = "image-invalid"
	ImageDiffers       Code = "image-differs"
	ImageUnnamed       Code = "image-unnamed"
	EntryBad           Code = "entry-bad"
	EntryDangling      Code = "entry-dangling"
	EntryMissing       Code = "entry-missing"
	RefBad             Code = "ref-bad"
	RefDangling        Code = "ref-dangling"
	NoteBad            Code = "note-bad"

	RefUnmapped     Code = "ref-unmapped"
	NoteStale       Code = "note-stale"
	Unfinished      Code = "unfinished"
	Garbage         Code = "garbage"
	UnusedDamaged   Code = "unused-damaged"
	ObjectElsewhere Code = "object-elsewhere"
	ModeOdd         Code = "mode-odd"
	OwnerOdd        Code = "owner-odd"
)

// CodeInfo explains a code, for manuals.
type CodeInfo struct {
	Code     Code
	Severity Severity
	About    string
}

var codes = []CodeInfo{
	{ObjectDamaged, IsProblem, "The content of an object does not hash to its name, or can't be read."},
	{ObjectMissing, IsProblem, "A stream or an image refers to an object that is not there."},
	{ObjectUnsealed, IsProblem, "The store demands fs-verity, and an object that is right has none."},
	{ObjectStrange, IsProblem, "Something among the objects has a name that is no digest, or is no regular file."},
	{StreamInvalid, IsProblem, "A stream hashes to its name, but makes no sense: it was written so."},
	{LayerDiffers, IsProblem, "The tar that a layer's stream gives back is not the one of its diffID."},
	{DocumentDiffers, IsProblem, "A config, manifest or image index is not the one of its digest, or can't be read as one."},
	{DocumentIncomplete, IsProblem, "A config, manifest or image index does not refer to a stream of each of its parts."},
	{ImageInvalid, IsProblem, "An image hashes to its name, but is no EROFS image that can be read."},
	{ImageDiffers, IsProblem, "The image that a config refers to is not the one that its layers come to."},
	{ImageUnnamed, IsProblem, "The image that a config refers to has no entry of its own."},
	{EntryBad, IsProblem, "An entry is no link to an object, or an image's is to another."},
	{EntryDangling, IsProblem, "An entry leads to an object that is not there."},
	{EntryMissing, IsProblem, "A stream that an image needs has no entry of its own."},
	{RefBad, IsProblem, "A ref is no link to an entry."},
	{RefDangling, IsProblem, "A ref leads to an entry that is not there."},
	{NoteBad, IsProblem, "A note of this store's own can't be read or written. No content depends on it."},
	{RefUnmapped, IsRemark, "A stream refers to one that no entry leads to. Other tools' collection of garbage loses what only that one refers to."},
	{NoteStale, IsRemark, "A note is about something that is gone."},
	{Unfinished, IsRemark, "A temporary name that a process is using, or that a killed one has left."},
	{Garbage, IsRemark, "The trace of something that lost its name, or of a process that was killed while it wrote."},
	{UnusedDamaged, IsRemark, "A damaged object to which nothing refers. The next pull that needs it writes it anew."},
	{ObjectElsewhere, IsRemark, "An image without layers refers to an object that is not there; it may be in another place, for -o basedir."},
	{ModeOdd, IsRemark, "A file has other permissions than this store's files have."},
	{OwnerOdd, IsRemark, "A file has another owner than the store."},
}

// Codes lists all codes, problems first.
func Codes() []CodeInfo { return slices.Clone(codes) }

func (c Code) severity() Severity {
	i := slices.IndexFunc(codes, func(i CodeInfo) bool { return i.Code == c })
	return codes[i].Severity
}

// Severity tells problems from remarks.
type Severity int

const (
	IsProblem Severity = iota
	IsRemark
)

func (s Severity) String() string {
	if s == IsRemark {
		return "remark"
	}
	return "problem"
}

// MarshalText is String, for JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is one thing that is wrong.
type Problem struct {
	Code     Code
	Severity Severity
	Subject  string // path below the store
	Err      error
	// Images are those that it hits.
	Images []Hit
	// Repairable: what it takes to repair it is known.
	Repairable bool
	Repaired   bool
	// NotRepaired says why a repair has failed.
	NotRepaired error

	// object is the object, stream or image that it is about; zero: none.
	object fsverity.Digest
	// entry is the one that a ref leads to, which is not there.
	entry string
	// derived: it may come of damage to an object, which is told of already.
	derived bool
}

// Hit is an image that a problem hits.
type Hit struct {
	// Name is a name in the store, or the digest of an image that has none.
	Name string `json:"name"`
	// Paths are those of the files that can't be read, each name of a hard-linked
	// one; none if it hits the image in another way, as damage to a layer's stream
	// or to a file that a higher layer hides does.
	Paths []string `json:"paths"`
}
