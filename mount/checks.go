package mount

import (
	"fmt"
	"slices"

	"github.com/flatroot/flatroot/fsverity"
)

func appendReason(why []string, s string) []string {
	if s == "" || slices.Contains(why, s) {
		return why
	}
	return append(why, s)
}

// keepOn is the advice for whoever wants the kernel to check.
const keepOn = "keep %s on ext4 or btrfs with fs-verity, or use verity=auto"

// imagePlan is how the image is checked, and what that takes.
type imagePlan struct {
	check ImageCheck
	steps []Step
	why   []string // why not better
}

// planImage decides how an image that the kernel mounts is checked.
func planImage(r Request, f Features) (imagePlan, error) {
	i, done, err := planKernelImage(r, f)
	if done || err != nil {
		return i, err
	}
	lack := imageLack(r.ExpectDigest, f.Image)
	if r.Verity == Require {
		return i, lacking(fmt.Sprintf(keepOn, "the store"), "verity=require needs fs-verity on the image, but %s", lack)
	}
	check, step, why := planUserDigest(r, f)
	return imagePlan{check, []Step{step}, appendReason([]string{lack}, why)}, nil
}

// planServedImage is planImage for an image that a FUSE server reads, which needs
// no loop device for a sealed copy, and can do without one.
func planServedImage(r Request, f Features) (imagePlan, error) {
	i, done, err := planKernelImage(r, f)
	if done || err != nil {
		return i, err
	}
	if !f.Memfd || f.Image.Size > r.sealLimit() {
		return imagePlan{check: ImageBlocks}, nil
	}
	return imagePlan{check: ImageSealed, steps: []Step{{Op: OpSeal}}}, nil
}

// planKernelImage decides where there is nothing to check, or the kernel does it;
// done says so.
func planKernelImage(r Request, f Features) (i imagePlan, done bool, err error) {
	want, got := r.ExpectDigest, f.Image.Verity
	sameKind := !got.IsZero() && got.Algorithm() == want.Algorithm()
	switch {
	case want.IsZero() && r.Verity == Require:
		return i, false, refuse("verity=require needs the image's digest: give digest=HEX, or mount by digest or name")
	case want.IsZero():
		return imagePlan{check: ImageUnchecked}, true, nil
	case sameKind && got != want:
		return i, false, &DigestError{Want: want, Got: got}
	case sameKind:
		return imagePlan{check: ImageKernel}, true, nil
	}
	return i, false, nil
}

// imageLack says why the kernel's word on the image's digest can't be had.
func imageLack(want fsverity.Digest, f ImageFacts) string {
	switch {
	case !f.Verity.IsZero():
		return fmt.Sprintf("the image's fs-verity is %s and its digest was asked for as %s", f.Verity.Algorithm(), want.Algorithm())
	case f.CanVerity:
		return "the image file has fs-verity not enabled"
	}
	return "the kernel or the image's file system has no fs-verity"
}

// planUserDigest decides how a digest that the kernel doesn't vouch for is
// computed. Hashing the file says nothing about what it holds a moment later,
// so a private copy that can't be written any more is hashed and mounted
// instead. No kernel seen so far mounts EROFS from memory files directly (6.12
// and 6.18: ENOTBLK), so a sealed copy takes a loop device.
func planUserDigest(r Request, f Features) (check ImageCheck, s Step, why string) {
	switch {
	case !f.Memfd:
		why = "no sealed copy: memfd_create with seals is missing"
	case !f.Loop:
		why = "no sealed copy: loop devices are missing (module loop, /dev/loop-control)"
	case f.Image.Size > r.sealLimit():
		why = fmt.Sprintf("no sealed copy: the image has %d bytes, more than the limit of %d", f.Image.Size, r.sealLimit())
	default:
		return ImageSealed, Step{Op: OpSeal}, ""
	}
	return ImageOnce, Step{Op: OpHash}, why
}

// objectPlan is who checks the objects' content.
type objectPlan struct {
	check ObjectCheck
	why   string // why nobody does
}

// planObjects decides whether the kernel checks objects; lack says why it can't.
func planObjects(r Request, f Features, lack string) (objectPlan, error) {
	if r.Verity == Off {
		return objectPlan{check: ObjectsUnchecked}, nil
	}
	if lack == "" && r.ruledBySample() && f.Sample.Found > 0 && f.Sample.Verity == 0 {
		// One object with fs-verity is enough to go on: this store uses it, and
		// then an object without it is damage and must fail.
		lack = "the objects were stored without fs-verity"
	}
	switch {
	case lack == "":
		return objectPlan{check: ObjectsKernel}, nil
	case r.Verity == Auto:
		return objectPlan{ObjectsUnchecked, lack}, nil
	}
	return objectPlan{}, lacking(fmt.Sprintf(keepOn, "objects"), "verity=require needs the kernel to check objects, but %s", lack)
}

// ruledBySample tells whether a store without fs-verity keeps the kernel from
// being asked to demand it: where less will do, or another mode can check as
// much. Otherwise no file could be read, but that is what was asked for.
func (r *Request) ruledBySample() bool {
	return r.Verity == Auto || r.Start != nil && r.Mode == ModeAuto
}

// planServedObjects decides for a FUSE server, which can always check.
func planServedObjects(r Request) objectPlan {
	if r.Verity == Off {
		return objectPlan{check: ObjectsUnchecked}
	}
	return objectPlan{check: ObjectsUser}
}

// objectsLack says why the kernel can't demand fs-verity; empty if it can.
// overlay tells whether the overlayfs at hand has the option for it.
func objectsLack(f Features, overlay bool) string {
	if !overlay {
		return "this kernel's overlayfs has no option verity (kernel 6.6)"
	}
	for _, d := range f.Objects {
		if !d.CanVerity {
			return fmt.Sprintf("the kernel or the file system of %s has no fs-verity", d.Path)
		}
	}
	return ""
}
