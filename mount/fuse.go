package mount

import (
	"io/fs"
	"strings"
)

const (
	// fuseSubtype tells our FUSE mounts from others: their type in mountinfo is
	// "fuse." and this.
	fuseSubtype = "flatroot"
	fuseType    = "fuse." + fuseSubtype
)

// fuseMaxRead is the largest READ that the kernel may send, bytes: what readers
// of whole files gain by larger ones is little.
const fuseMaxRead = "1048576"

// fuseOptions are those of every FUSE mount that we make. The device and the
// owner are Do's to add.
func fuseOptions(source string) []Option {
	return []Option{
		{"source", source}, {"subtype", fuseSubtype}, {"ro", ""},
		{"rootmode", "40000"}, // S_IFDIR, octal (fs/fuse/inode.c)
		{"default_permissions", ""}, {"allow_other", ""}, {"max_read", fuseMaxRead},
	}
}

func newService(r Request, v Verification, view View) *Service {
	return &Service{View: view, Digest: r.ExpectDigest, Image: v.Image, Objects: v.Objects}
}

// fuseDenied says why this process, which may mount, can't mount FUSE.
func fuseDenied(f Features) error {
	const reason = "FUSE can't be mounted"
	switch lack := f.FUSELack; {
	case !f.FUSEDevice:
		return lacking("load the module fuse (modprobe fuse), or give the container that device", reason+": there is no %s", fuseDevice)
	case strings.Contains(lack, fs.ErrPermission.Error()):
		return denied("let this user open it (mode 0666)", reason+", since "+fuseDevice+" doesn't open")
	case lack == "": // Probe had no servers to look for
		return lacking("", "%s: it was not tried", reason)
	default:
		return lacking("", "%s: %s", reason, lack)
	}
}

// fuseLack says what is missing for a FUSE mount by this process itself.
func fuseLack(_ Request, f Features) error {
	switch {
	case !f.Privileged && !f.Namespaced:
		return notFor(fs.ErrPermission, "this way needs root, or a user namespace with a mount namespace of its own")
	case !f.FUSE:
		return fuseDenied(f)
	}
	return nil
}

// planFUSE is the rung where the server does everything.
func planFUSE(r Request, f Features) (*Plan, error) {
	p, err := planServed(r, f, planServedObjects(r))
	if err != nil {
		return nil, err
	}
	return p, p.addFUSE(f)
}

func (p *Plan) addFUSE(f Features) error {
	if err := idMapLack(p.request, f); err != nil {
		return err
	}
	p.Steps = append(p.Steps, Step{Op: OpFUSE, Options: fuseOptions(p.Source), Attrs: p.request.attrNames()})
	p.addIDMap()
	p.addAttach()
	return nil
}

// planServed begins a plan of pure FUSE.
func planServed(r Request, f Features, o objectPlan) (*Plan, error) {
	if r.writable() {
		return nil, lacking("take mode=native or mode=hybrid, or put an overlay of your own on it", "a FUSE server alone has no writable layer")
	}
	image, err := planServedImage(r, f)
	if err != nil {
		return nil, err
	}
	p := newPlan(r, f, ModeFUSE, image, o)
	p.Service = newService(r, p.Verification, ViewPlain)
	return p, nil
}

// passthroughLack says what is missing for files that the kernel reads itself.
func passthroughLack(r Request, f Features) error {
	switch {
	case !f.Privileged:
		return denied("", "passthrough needs root (CAP_SYS_ADMIN)")
	case !f.FUSE:
		return fuseDenied(f)
	case !f.FUSEPassthrough:
		return lacking("", "this kernel has no FUSE passthrough (kernel 6.9, CONFIG_FUSE_PASSTHROUGH)")
	}
	return nil
}

// planPassthrough is the rung where the server opens objects and the kernel reads
// them. The server checks an object when it opens it, and knows nothing of what
// is read: that it has fs-verity is not demanded, so this is no verity=require.
func planPassthrough(r Request, f Features) (*Plan, error) {
	objects := objectPlan{ObjectsOnce, "with passthrough the server doesn't see what is read"}
	switch r.Verity {
	case Off:
		objects = objectPlan{check: ObjectsUnchecked}
	case Require, Objects:
		return nil, lacking("leave passthrough out, or use verity=auto", "verity=require needs objects checked at each read, but %s", objects.why)
	}
	p, err := planServed(r, f, objects)
	if err != nil {
		return nil, err
	}
	p.Service.Passthrough = true
	if objects.check == ObjectsOnce {
		p.Service.Objects = ObjectsUser
	}
	return p, p.addFUSE(f)
}

// fusermountLack says what is missing for a FUSE mount by fusermount3.
func fusermountLack(_ Request, f Features) error {
	switch {
	case f.Privileged || f.Namespaced:
		return notFor(nil, "this way is for users who may not mount; this process has the one above")
	case !f.FUSEDevice || f.FUSELack != "":
		return fuseDenied(f)
	case f.Fusermount == "":
		return lacking("install the package fuse3", "there is no fusermount3, by which any user may mount FUSE")
	}
	return nil
}

// planFusermount is planFUSE for a user who may not mount.
func planFusermount(r Request, f Features) (*Plan, error) {
	if r.IDMap != nil {
		return nil, denied("", "idmapped mounts need root, or a user namespace with a mount namespace of its own")
	}
	if r.Target == "" {
		return nil, denied("give a directory to mount on", "fusermount3 makes no detached mounts")
	}
	p, err := planServed(r, f, planServedObjects(r))
	if err != nil {
		return nil, err
	}
	s := Step{Op: OpFusermount, Program: f.Fusermount, Target: r.Target, Options: fusermountOptions(p.Source, r.AllowOther)}
	// It forces these two upon whoever isn't root.
	r.NoSuid, r.NoDev = true, true
	s.Attrs = r.attrNames()
	p.Steps = append(p.Steps, s)
	return p, nil
}

func fusermountOptions(source string, allowOther bool) []Option {
	o := []Option{{"fsname", source}, {"subtype", fuseSubtype}, {"default_permissions", ""}, {"max_read", fuseMaxRead}}
	if allowOther {
		o = append(o, Option{"allow_other", ""})
	}
	return o
}
