package mount

import (
	"fmt"
	"io/fs"

	"github.com/flatroot/flatroot/fsverity"
)

// planNative is the rung of EROFS and overlayfs in the kernel.
func planNative(r Request, f Features) (*Plan, error) {
	if err := nativePossible(r, f); err != nil {
		return nil, err
	}
	image, steps, why, err := planImage(r, f)
	if err != nil {
		return nil, err
	}
	objects, whyObjects, err := planObjects(r, f)
	if err != nil {
		return nil, err
	}
	v := Verification{Image: image, Objects: objects, Why: appendReason(why, whyObjects)}
	digest := r.ExpectDigest
	if digest.IsZero() {
		digest = f.Image.Verity
	}
	p := &Plan{Mode: ModeNative, Verification: v, request: r}
	p.Source = formatSource(digest, ModeNative, image)
	p.Steps = append(steps, erofsStep(f), overlayStep(r, f, p.Source, objects))
	if r.Target != "" {
		p.Steps = append(p.Steps, Step{Op: OpAttach, Target: r.Target})
	}
	return p, nil
}

func appendReason(why []string, s string) []string {
	if s == "" {
		return why
	}
	return append(why, s)
}

// refusal is an ErrRefused whose text is the reason alone.
type refusal struct{ reason string }

func (e *refusal) Error() string        { return e.reason }
func (e *refusal) Is(target error) bool { return target == ErrRefused }

func refuse(format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...)}
}

// nativePossible says what this machine lacks for any native mount.
func nativePossible(r Request, f Features) error {
	switch {
	case !f.Privileged:
		return fmt.Errorf("native mounts need root (CAP_SYS_ADMIN): %w", fs.ErrPermission)
	case !f.Erofs:
		return refuse("this kernel has no EROFS (CONFIG_EROFS_FS or module erofs)")
	case !f.Overlay:
		return refuse("this kernel has no overlayfs that takes fsopen (kernel 6.5, CONFIG_OVERLAY_FS or module overlay)")
	case len(r.Objects) == 0:
		return refuse("no object directory: give store= or basedir=")
	}
	return nil
}

// planImage decides how the image is checked and which steps that takes.
func planImage(r Request, f Features) (ImageCheck, []Step, []string, error) {
	want, got := r.ExpectDigest, f.Image.Verity
	sameKind := !got.IsZero() && got.Algorithm() == want.Algorithm()
	switch {
	case want.IsZero() && r.Verity == Require:
		return "", nil, nil, refuse("verity=require needs the image's digest: give digest=HEX, or mount by digest or name")
	case want.IsZero():
		return ImageUnchecked, nil, nil, nil
	case sameKind && got != want:
		return "", nil, nil, &DigestError{Want: want, Got: got}
	case sameKind:
		return ImageKernel, nil, nil, nil
	}
	lack := imageLack(want, f.Image)
	if r.Verity == Require {
		return "", nil, nil, refuse("verity=require needs fs-verity on the image, but %s; keep the store on ext4 or btrfs with fs-verity, or use verity=auto", lack)
	}
	check, step, why := planUserDigest(r, f)
	return check, []Step{step}, appendReason([]string{lack}, why), nil
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

// planObjects decides who checks the objects' content.
func planObjects(r Request, f Features) (ObjectCheck, string, error) {
	if r.Verity == Off {
		return ObjectsUnchecked, "", nil
	}
	lack := objectsLack(f)
	if lack == "" && r.Verity == Auto && f.Sample.Found > 0 && f.Sample.Verity == 0 {
		// One object with fs-verity is enough to go on: this store uses it, and
		// then an object without it is damage and must fail.
		lack = "the objects were stored without fs-verity"
	}
	switch {
	case lack == "":
		return ObjectsKernel, "", nil
	case r.Verity == Auto:
		return ObjectsUnchecked, lack, nil
	}
	return "", "", refuse("verity=require needs the kernel to check objects, but %s; keep objects on ext4 or btrfs with fs-verity, or use verity=auto", lack)
}

// objectsLack says why overlayfs can't demand fs-verity; empty if it can.
func objectsLack(f Features) string {
	if !f.OverlayVerity {
		return "this kernel's overlayfs has no option verity (kernel 6.6)"
	}
	for _, d := range f.Objects {
		if !d.CanVerity {
			return fmt.Sprintf("the kernel or the file system of %s has no fs-verity", d.Path)
		}
	}
	return ""
}

func erofsStep(f Features) Step {
	s := Step{Op: OpErofs, Options: []Option{{"ro", ""}}}
	if f.Image.NoACL {
		// Spares a search for ACLs at every permission check.
		s.Options = append(s.Options, Option{"noacl", ""})
	}
	return s
}

func overlayStep(r Request, f Features, source string, c ObjectCheck) Step {
	// metacopy and redirect_dir are set here because a kernel's defaults for
	// them vary, and files are empty or unreachable without.
	s := Step{Op: OpOverlay, Options: []Option{{"source", source}, {"metacopy", "on"}, {"redirect_dir", "on"}}}
	if c == ObjectsKernel {
		s.Options = append(s.Options, Option{"verity", "require"})
	}
	if f.LayerFD {
		s.Forms = append(s.Forms, LayersByMount)
	}
	if f.LayerAdd {
		s.Forms = append(s.Forms, LayersByName)
	}
	s.Forms = append(s.Forms, LayersByString)
	s.Attrs = []string{"ro"}
	for _, a := range []struct {
		set  bool
		name string
	}{{r.NoSuid, "nosuid"}, {r.NoDev, "nodev"}, {r.NoExec, "noexec"}} {
		if a.set {
			s.Attrs = append(s.Attrs, a.name)
		}
	}
	return s
}
