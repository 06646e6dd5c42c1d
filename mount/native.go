package mount

// nativeLack says what this machine lacks for any native mount.
func nativeLack(_ Request, f Features) error {
	switch {
	case !f.Privileged:
		return denied("", "native mounts need root (CAP_SYS_ADMIN)")
	case !f.Erofs:
		return lacking("", "this kernel has no EROFS (CONFIG_EROFS_FS or module erofs)")
	}
	return overlayLack(f)
}

func overlayLack(f Features) error {
	if !f.Overlay {
		return lacking("", "this kernel has no overlayfs that takes fsopen (kernel 6.5, CONFIG_OVERLAY_FS or module overlay)")
	}
	return nil
}

// planNative is the rung of EROFS and overlayfs in the kernel.
func planNative(r Request, f Features) (*Plan, error) {
	image, err := planImage(r, f)
	if err != nil {
		return nil, err
	}
	objects, err := planObjects(r, f, objectsLack(f, f.OverlayVerity))
	if err != nil {
		return nil, err
	}
	p := newPlan(r, f, ModeNative, image, objects)
	p.Steps = append(p.Steps, erofsStep(f))
	p.addOverlay(f, trustedXattrs)
	return p, nil
}

func erofsStep(f Features) Step {
	s := Step{Op: OpErofs, Options: []Option{{"ro", ""}}}
	if f.Image.NoACL {
		// Spares a search for ACLs at every permission check.
		s.Options = append(s.Options, Option{"noacl", ""})
	}
	return s
}
