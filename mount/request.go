package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// Policy says how much must be verified.
type Policy string

const (
	// Auto, the zero value, takes the strongest that this machine, user and these
	// file systems can do. A digest that was given is always checked.
	Auto Policy = ""
	// Require wants the image and every object checked at each read, and an
	// expected digest: by the kernel, with fs-verity on all of them, or by a FUSE
	// server.
	Require Policy = "require"
	// Objects wants every object checked, as Require does, and takes the image as
	// it is: mount.composefs's verity option without a digest.
	Objects Policy = "objects"
	// Off wants no checks of objects. A digest that was given is checked.
	Off Policy = "off"
)

// ParsePolicy reads the value of the option verity; empty means require.
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "", "require":
		return Require, nil
	case "auto":
		return Auto, nil
	case "off":
		return Off, nil
	}
	return "", fmt.Errorf("verity=%s: want require, auto or off", s)
}

// Mode says who serves the tree.
type Mode string

const (
	// ModeAuto, the zero value, takes the first mode that can do what was asked.
	ModeAuto Mode = ""
	// ModeNative is EROFS and overlayfs in the kernel.
	ModeNative Mode = "native"
	// ModeHybrid is metadata by FUSE, content by overlayfs in the kernel.
	ModeHybrid Mode = "hybrid"
	// ModeFUSE is everything by FUSE.
	ModeFUSE Mode = "fuse"
)

// ParseMode reads the value of the option mode.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeNative, ModeHybrid, ModeFUSE:
		return m, nil
	case "auto":
		return ModeAuto, nil
	}
	return "", fmt.Errorf("mode=%s: want auto, native, hybrid or fuse", s)
}

// Request says what is to be mounted where. Image and Objects stay the
// caller's to close, after Do.
type Request struct {
	Image        *os.File        // the EROFS image, a regular file opened for reading
	ExpectDigest fsverity.Digest // the image's fs-verity digest; zero: none expected
	Objects      []*os.File      // object directories, in search order
	Target       string          // the directory to mount on; empty: only Detach is wanted
	Verity       Policy
	Mode         Mode
	NoSuid       bool
	NoDev        bool
	NoExec       bool
	SealLimit    int64 // largest image copied into sealed memory, bytes; 0: 1 GiB

	Upper, Work *os.File  // directories of a writable layer, on one file system; both or neither
	Transient   bool      // a writable layer in memory, gone with the mount; not with Upper
	ReadOnly    bool      // not to be written, even with a writable layer
	IDMap       *os.File  // a user namespace, through whose maps the tree's owners are shown
	Check       bool      // all objects that the image names must exist
	Passthrough bool      // ModeFUSE: let the kernel read objects once they are open
	AllowOther  bool      // a mount made by fusermount3 is for other users too; all others are for all
	Start       StartFunc // starts FUSE servers; nil: there are none, so neither ModeHybrid nor ModeFUSE
}

// defaultSealLimit keeps the sealed copy of an image within what any machine
// that mounts such an image can spare: the image of a million files has 263 MB.
const defaultSealLimit = 1 << 30

func (r *Request) sealLimit() int64 {
	if r.SealLimit == 0 {
		return defaultSealLimit
	}
	return r.SealLimit
}

// Errors that callers tell apart. A denied permission is an fs.ErrPermission.
var (
	// ErrRefused: the request can't be met here as it was asked; nothing was tried.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: this build has no such mode.
	ErrUnavailable = errors.New("not available in this build")
	// ErrTarget: the directory to mount on doesn't exist or is none.
	ErrTarget = errors.New("bad mount point")
	// ErrNotMounted: nothing is mounted there.
	ErrNotMounted = errors.New("not mounted")
	// ErrNotOurs: what is mounted there was not mounted by this package.
	ErrNotOurs = errors.New("not a flatroot mount")
)

// DigestError says that the image is not the one that was asked for.
type DigestError struct {
	Want, Got fsverity.Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("image has digest %s, not %s as asked", e.Got, e.Want)
}

// OpenImage opens the image file at path for a Request.
func OpenImage(path string) (*os.File, error) {
	// Without O_NONBLOCK opening a fifo would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image: %w", err)
	}
	return f, nil
}

// OpenObjects opens the object directories at paths for a Request.
func OpenObjects(paths ...string) ([]*os.File, error) {
	var dirs []*os.File
	for _, p := range paths {
		d, err := openDirectory(p)
		if err != nil {
			closeAll(dirs)
			return nil, fmt.Errorf("open object directory: %w", err)
		}
		dirs = append(dirs, d)
	}
	return dirs, nil
}

func openDirectory(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
