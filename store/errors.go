package store

import (
	"errors"
	"fmt"

	"github.com/flatroot/flatroot/fsverity"
)

// What callers decide on.
var (
	ErrNotStore = errors.New("there is no store; `flatroot init` makes one")
	// ErrOldStore: objects without meta.json. Nobody but the tool that made it can
	// know the hash and the image format for sure.
	ErrOldStore = errors.New("this repository has no meta.json: its format is too old; " +
		"have the tool that made it upgrade it, or make a new store elsewhere")
	ErrReadOnly = errors.New("it is open read-only")
	ErrNotFound = errors.New("not in the store")
	// ErrFeature: meta.json names a feature that this version does not know.
	ErrFeature = errors.New("made for a newer version")
	// ErrLocked: another process has the store, and it was not to be waited for.
	ErrLocked = errors.New("another process has the store locked")
	// ErrNotExclusive: what only the exclusive lock permits was tried without it.
	ErrNotExclusive = errors.New("the store is not locked exclusively")
)

// ObjectError tells of an operation on one object.
type ObjectError struct {
	Op     string // "write", "open", …
	Digest fsverity.Digest
	Path   string
	Err    error
}

func (e *ObjectError) Error() string {
	if e.Digest.IsZero() {
		return fmt.Sprintf("%s object %s: %v", e.Op, e.Path, e.Err)
	}
	return fmt.Sprintf("%s object %v (%s): %v", e.Op, e.Digest, e.Path, e.Err)
}

func (e *ObjectError) Unwrap() error { return e.Err }

// MismatchError: fs-verity measures another digest than an object's name says.
type MismatchError struct{ Want, Got fsverity.Digest }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("fs-verity digest is %v, want %v", e.Got, e.Want)
}

// LinkError tells of an entry, ref or note that is not as it has to be.
type LinkError struct {
	Path string
	Err  error
}

func (e *LinkError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *LinkError) Unwrap() error { return e.Err }
