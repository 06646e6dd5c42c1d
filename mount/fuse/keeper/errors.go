package keeper

import (
	"errors"
	"syscall"
)

// remoteError is an error of another process: its text, and the errno that it
// wraps, by which callers tell a lack of descriptors or memory, and of rights.
type remoteError struct {
	Text  string        `json:"error"`
	Errno syscall.Errno `json:"errno,omitempty"`
}

func newRemoteError(err error) *remoteError {
	r := &remoteError{Text: err.Error()}
	errors.As(err, &r.Errno)
	return r
}

func (r *remoteError) Error() string { return r.Text }

func (r *remoteError) Unwrap() error {
	if r.Errno == 0 {
		return nil
	}
	return r.Errno
}
