package keeper

import (
	"errors"
	"syscall"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

// remoteError is an error of another process: its text, and of what it wraps that
// which callers branch on, an errno and a *mount.DigestError.
type remoteError struct {
	Text  string        `json:"error"`
	Errno syscall.Errno `json:"errno,omitempty"`
	Want  string        `json:"want,omitempty"`
	Got   string        `json:"got,omitempty"`
}

func newRemoteError(err error) *remoteError {
	r := &remoteError{Text: err.Error()}
	errors.As(err, &r.Errno)
	if d := (*mount.DigestError)(nil); errors.As(err, &d) {
		r.Want, r.Got = d.Want.String(), d.Got.String()
	}
	return r
}

func (r *remoteError) Error() string { return r.Text }

func (r *remoteError) Unwrap() []error {
	var wrapped []error
	if r.Errno != 0 {
		wrapped = append(wrapped, r.Errno)
	}
	if r.Want == "" {
		return wrapped
	}
	// One that isn't a digest comes from a broken process, and stays zero.
	want, _ := fsverity.ParseDigest(r.Want)
	got, _ := fsverity.ParseDigest(r.Got)
	return append(wrapped, &mount.DigestError{Want: want, Got: got})
}
