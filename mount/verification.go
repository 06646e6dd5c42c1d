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
	// ObjectsOnce: the FUSE server checks an object when it is opened, and then
	// the kernel reads the file, which can still be changed (passthrough).
	ObjectsOnce ObjectCheck = "once"
	// ObjectsUnchecked: nobody.
	ObjectsUnchecked ObjectCheck = "unchecked"
)

func (c ObjectCheck) valid() bool { return objectSentences[c] != "" }

// Verification is what a mount checks.
type Verification struct {
	Image   ImageCheck
	Objects ObjectCheck
	Why     []string // what stood in the way of more, or of a mode with less between the kernel and the reader
}

// Full says that no byte of image or objects can be other than the digest says.
// A sealed copy counts: it was hashed after it could no longer be written.
func (v Verification) Full() bool {
	return v.strength() == fullStrength
}

// fullStrength is the strength of a Verification that can't be better.
const fullStrength = 8

// strength puts verifications in order: what is checked of the objects counts
// before what is checked of the image, and who checks it doesn't count.
func (v Verification) strength() int {
	s := 0
	switch v.Objects {
	case ObjectsKernel, ObjectsUser:
		s = 6
	case ObjectsOnce:
		s = 3
	}
	switch v.Image {
	case ImageKernel, ImageSealed, ImageBlocks:
		s += 2
	case ImageOnce:
		s++
	}
	return s
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
	ObjectsOnce:      "the FUSE server checks the content of an object when it is opened, but its file can still be changed",
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
