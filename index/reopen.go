package index

import (
	"errors"
	"fmt"
	"io"
)

// reopener reads what open gives, and can go back in it by opening it once more. It is an io.ReadSeekCloser for what has no
// places to go to, as a tar that is being put together.
type reopener struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser // nil: none is open
	at   int64         // of r
	want int64         // where to read next
}

var errNoEnd = errors.New("where it ends is not known")

// Seek says where to read next. Nothing is opened before that.
func (o *reopener) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += o.want
	default:
		return 0, errNoEnd
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	o.want = offset
	return offset, nil
}

// Read reads on from there.
func (o *reopener) Read(p []byte) (int, error) {
	if err := o.reach(); err != nil {
		return 0, err
	}
	n, err := o.r.Read(p)
	o.at += int64(n)
	o.want = o.at
	return n, err
}

func (o *reopener) reach() error {
	if o.r != nil && o.want < o.at {
		if err := o.Close(); err != nil {
			return err
		}
	}
	if o.r == nil {
		r, err := o.open()
		if err != nil {
			return err
		}
		o.r, o.at = r, 0
	}
	n, err := io.CopyN(io.Discard, o.r, o.want-o.at)
	o.at += n
	return err
}

// Close closes what is open.
func (o *reopener) Close() error {
	if o.r == nil {
		return nil
	}
	r := o.r
	o.r = nil
	return r.Close()
}

// tellReader tells of bytes that are read for the first time.
type tellReader struct {
	io.ReadSeeker
	tell     func(n int64)
	at, told int64
}

// Read reads on.
func (r *tellReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeeker.Read(p)
	if r.at += int64(n); r.at > r.told {
		if r.tell != nil {
			r.tell(r.at - r.told)
		}
		r.told = r.at
	}
	return n, err
}

// Seek goes to another place.
func (r *tellReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.ReadSeeker.Seek(offset, whence)
	if err == nil {
		r.at = at
	}
	return at, err
}
