package mount

import "strings"

// ImageCheck says how the image is protected by its digest.
type ImageCheck string

const (
	// ImageKernel: the kernel checks each block that it reads (fs-verity), and
	// the file's digest is the one that was asked for.
	ImageKernel ImageCheck = "kernel"
	// ImageSealed: a copy in sealed memory has the digest that was asked for.
	ImageSealed ImageCheck = "sealed"
	// ImageBlocks: the FUSE server checks each block against the digest that was
	// asked for, whenever it uses it.
	ImageBlocks ImageCheck = "blocks"
	// ImageOnce: the file had the digest that was asked for when it was mounted.
	ImageOnce ImageCheck = "once"
	// ImageUnchecked: no digest was asked for.
	ImageUnchecked ImageCheck = "unchecked"
)

func (c ImageCheck) valid() bool { return imageSentences[c] != "" }

// ObjectCheck says who checks the content of objects.
type ObjectCheck string

const (
	// ObjectsKernel: overlayfs refuses an object without the digest that the
	// image names, and fs-verity checks each block that is read.
	ObjectsKernel ObjectCheck = "kernel"
	// ObjectsUser: the FUSE server checks each block that it hands out against
	// the digest that the image names.
	ObjectsUser ObjectCheck = "user"
	// ObjectsUnchecked: nobody.
	ObjectsUnchecked ObjectCheck = "unchecked"
)

// Verification is what a mount checks.
type Verification struct {
	Image   ImageCheck
	Objects ObjectCheck
	Why     []string // what stood in the way of more; empty when all is checked or nothing was asked
}

// Full says that no byte of image or objects can be other than the digest says.
// A sealed copy counts: it was hashed after it could no longer be written.
func (v Verification) Full() bool {
	return v.Objects != ObjectsUnchecked && (v.Image == ImageKernel || v.Image == ImageSealed || v.Image == ImageBlocks)
}

// String is the short form, "image=kernel objects=kernel".
func (v Verification) String() string {
	return "image=" + string(v.Image) + " objects=" + string(v.Objects)
}

var imageSentences = map[ImageCheck]string{
	ImageKernel:    "the image has the digest asked for and the kernel checks every block of it (fs-verity)",
	ImageSealed:    "the image has the digest asked for and is mounted from a sealed copy in memory that nothing can change",
	ImageBlocks:    "the image has the digest asked for and the FUSE server checks every block of it that it uses",
	ImageOnce:      "the image had the digest asked for when it was mounted, but its file can still be changed",
	ImageUnchecked: "the image is not checked: no digest was given",
}

var objectSentences = map[ObjectCheck]string{
	ObjectsKernel:    "the kernel checks the content of every object (overlay verity=require)",
	ObjectsUser:      "the FUSE server checks the content of every object",
	ObjectsUnchecked: "the content of objects is not checked",
}

// Explain says in a sentence what is checked and what isn't, and why not more.
func (v Verification) Explain() string {
	s := imageSentences[v.Image] + "; " + objectSentences[v.Objects]
	if len(v.Why) > 0 {
		s += " (" + strings.Join(v.Why, "; ") + ")"
	}
	return s
}
