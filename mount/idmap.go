package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// idMapLack says why a FUSE mount can't be idmapped here.
func idMapLack(r Request, f Features) error {
	if r.IDMap != nil && !f.FUSEIDMap {
		return lacking("", "this kernel has no idmapped FUSE mounts (kernel 6.12)")
	}
	return nil
}

// idMap shows the owners in the detached mount through the request's namespace.
// Overlayfs takes them from there.
func (d *doing) idMap() error {
	m := d.lower
	if m == nil {
		m = d.result
	}
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(d.request.IDMap.Fd())}
	err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, &a)
	switch {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("map owners through %s: %w (this kernel can't map this file system, or that is no user namespace)", d.request.IDMap.Name(), err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("map owners through %s: %w (it must not be this process's own user namespace)", d.request.IDMap.Name(), err)
	case err != nil:
		return fmt.Errorf("map owners through %s: %w", d.request.IDMap.Name(), err)
	}
	return nil
}
