package mount

import "io/fs"

// hybridLack says what is missing for overlayfs on a FUSE mount, as root.
func hybridLack(_ Request, f Features) error {
	switch {
	case !f.Privileged:
		return notFor(fs.ErrPermission, "this way needs root, whom trusted.overlay xattrs are for")
	case !f.FUSE:
		return fuseDenied(f)
	}
	return overlayLack(f)
}

// userHybridLack is hybridLack for root of a user namespace.
func userHybridLack(_ Request, f Features) error {
	switch {
	case f.Privileged:
		return notFor(nil, "this way is for user namespaces: root has the one above")
	case !f.Namespaced:
		return denied("enter such namespaces (unshare -Urm)", "hybrid mounts need root, or a user namespace with a mount namespace of its own")
	case !f.FUSE:
		return fuseDenied(f)
	case !f.UserOverlay:
		return lacking("", "this kernel's overlayfs takes no data-only layers with userxattr, as user namespaces need them (kernel 6.16)")
	}
	return nil
}

// planHybrid is the rung of FUSE below overlayfs.
func planHybrid(r Request, f Features) (*Plan, error) {
	return planLower(r, f, objectsLack(f, f.OverlayVerity), ViewOverlay, trustedXattrs)
}

// planUserHybrid is the same with xattrs that a user namespace may read.
func planUserHybrid(r Request, f Features) (*Plan, error) {
	f.LayerFD = true // without, this rung is not there
	return planLower(r, f, objectsLack(f, f.UserOverlayVerity), ViewUserOverlay, userXattrs)
}

func planLower(r Request, f Features, lack string, view View, class xattrClass) (*Plan, error) {
	if err := idMapLack(r, f); err != nil {
		return nil, err
	}
	image, err := planServedImage(r, f)
	if err != nil {
		return nil, err
	}
	objects, err := planObjects(r, f, lack)
	if err != nil {
		return nil, err
	}
	p := newPlan(r, f, ModeHybrid, image, objects)
	p.Service = newService(r, p.Verification, view)
	p.Steps = append(p.Steps, Step{Op: OpFUSE, Options: fuseOptions(lowerSource), Attrs: []string{"ro"}})
	p.addOverlay(f, class)
	return p, nil
}
