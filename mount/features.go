package mount

import "github.com/flatroot/flatroot/fsverity"

// Features is what Probe found. The zero value is a machine that can do nothing.
type Features struct {
	Privileged    bool // this process may mount, with the rights of the initial user namespace
	Namespaced    bool // it may mount what a user namespace of its own lets it; not both
	Erofs         bool // the kernel has EROFS
	Overlay       bool // the kernel has overlayfs with the new mount interface
	LayerAdd      bool // overlay: lowerdir+ and datadir+ (kernel 6.8)
	LayerFD       bool // overlay: the same given as O_PATH descriptors (kernel 6.15)
	OverlayVerity bool // overlay: the option verity (kernel 6.6)
	Loop          bool // loop devices can be had
	Memfd         bool // sealed memory can be had

	UserOverlay       bool // overlay: userxattr with data-only layers given as descriptors (kernel 6.16)
	UserOverlayVerity bool // the same with the option verity

	FUSEDevice      bool   // there is a /dev/fuse
	FUSE            bool   // it opens, and this process may mount FUSE
	FUSELack        string // why not, if it doesn't open or the kernel refuses
	FUSEPassthrough bool   // the kernel offers passthrough (kernel 6.9)
	FUSEIDMap       bool   // the kernel offers idmapped FUSE mounts (kernel 6.12)
	Fusermount      string // path of fusermount3; empty: there is none

	Image   ImageFacts
	Objects []DirFacts // one per object directory of the request
	Sample  SampleFacts
	Upper   UpperFacts
}

// UpperFacts is what was found out about the directories of a writable layer.
type UpperFacts struct {
	SameMount bool // both lie on one mount, as overlayfs wants them
}

// ImageFacts is what was found out about the image file.
type ImageFacts struct {
	Size      int64           // bytes
	NoACL     bool            // the header says that no file has an ACL
	Verity    fsverity.Digest // as the kernel measured it; zero: the file has no fs-verity
	CanVerity bool            // its file system has fs-verity
}

// DirFacts is what was found out about an object directory.
type DirFacts struct {
	Path      string // as it was opened, for messages
	CanVerity bool   // its file system has fs-verity
}

// SampleFacts is what the first few objects that the image names look like.
type SampleFacts struct {
	Found  int // objects that exist
	Verity int // of these, how many have the fs-verity digest that the image names
}
