package mount

import (
	"context"
	"fmt"
	"os"

	"github.com/flatroot/flatroot/fsverity"
)

// View says what of the image a FUSE server shows.
type View string

const (
	// ViewPlain is the tree itself, as a native mount shows it: no whiteouts, no
	// overlayfs xattrs, escaped ones under their own names, data of all files.
	ViewPlain View = "plain"
	// ViewOverlay is the image as it is stored, for overlayfs above it, which
	// finds the objects itself by the trusted.overlay.* xattrs.
	ViewOverlay View = "overlay"
	// ViewUserOverlay is ViewOverlay with user.overlay.* instead, for overlayfs
	// with the option userxattr, as user namespaces need it.
	ViewUserOverlay View = "useroverlay"
)

// Service describes the FUSE server that a plan needs. It is plain data: it can
// be printed, and sent to another process.
//
// Objects is about content with ViewPlain, which alone shows any: with ObjectsUser
// the server checks all that it hands out, and with Passthrough each object when
// it opens it for the kernel.
type Service struct {
	View        View            `json:"view"`
	Digest      fsverity.Digest `json:"digest,omitzero"` // that the image must have; zero: none is expected
	Image       ImageCheck      `json:"image"`           // ImageBlocks: the server checks each block that it uses; otherwise it reads the file as it is
	Objects     ObjectCheck     `json:"objects"`
	Passthrough bool            `json:"passthrough"` // the kernel reads objects itself once they are open
}

// String is the service as a line of a plan.
func (s *Service) String() string {
	text := fmt.Sprintf("view=%s image=%s objects=%s", s.View, s.Image, s.Objects)
	if s.Passthrough {
		text += " passthrough"
	}
	return text
}

// Serving is a Service with the files that it works on. They are the caller's to
// close; a server in another process or one that stays has duplicates.
type Serving struct {
	Service
	Device  *os.File   // /dev/fuse with a session that has not been answered yet
	Image   *os.File   // the image, or the sealed copy of it
	Objects []*os.File // object directories, in search order
}

// StartFunc starts a server and returns when it answers the session's requests.
// The server ends when the file system is unmounted. Package fuse has such.
type StartFunc func(ctx context.Context, s Serving) error
