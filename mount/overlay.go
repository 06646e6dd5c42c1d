package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOverlay tries the step's layer forms until the kernel knows one.
func (d *doing) mountOverlay(s Step) (m *os.File, err error) {
	for _, form := range s.Forms {
		if form != LayersByMount {
			if err := d.nameLayers(); err != nil {
				return nil, err
			}
		}
		m, err = d.newOverlay(s, form)
		if !unknownForm(err) {
			break
		}
	}
	if errors.Is(err, unix.ELOOP) {
		// fs/overlayfs, ovl_check_layer; why stands in the kernel's log alone.
		return nil, fmt.Errorf("mount overlay: an object directory lies within another: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	return m, nil
}

// unknownForm tells a kernel that doesn't know a layer form: EINVAL for the key, a
// descriptor where it wants text, or a detached mount; EBADF (6.12 and before)
// for an O_PATH descriptor.
func unknownForm(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF)
}

func (d *doing) newOverlay(s Step, form LayerForm) (*os.File, error) {
	c, err := openContext("overlay")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.setAll(s.Options); err != nil {
		return nil, err
	}
	if err := d.setLayers(c, form); err != nil {
		return nil, err
	}
	if s.Upper {
		if err := d.setUpper(c, form); err != nil {
			return nil, err
		}
	}
	return c.mount(attrBits(s.Attrs))
}

// setLayers names the layers by descriptor in every form: a path could lead
// elsewhere by now, and text would need overlayfs's escapes.
func (d *doing) setLayers(c *fsContext, form LayerForm) error {
	switch form {
	case LayersByMount:
		if err := c.setFD("lowerdir+", int(d.lower.Fd())); err != nil {
			return err
		}
		for _, o := range d.request.Objects {
			if err := c.setFD("datadir+", int(o.Fd())); err != nil {
				return fmt.Errorf("object directory %s: %w", o.Name(), err)
			}
		}
		return nil
	case LayersByName:
		layers := []Option{{"lowerdir+", procPath(d.lower)}}
		for _, o := range d.request.Objects {
			layers = append(layers, Option{"datadir+", procPath(o)})
		}
		return c.setAll(layers)
	}
	var b strings.Builder
	b.WriteString(procPath(d.lower))
	for _, o := range d.request.Objects {
		b.WriteString("::" + procPath(o))
	}
	return c.set(Option{"lowerdir", b.String()})
}

// setUpper names the directories of the writable layer, as setLayers the others.
func (d *doing) setUpper(c *fsContext, form LayerForm) error {
	upper, work := d.request.Upper, d.request.Work
	if d.request.Transient {
		upper, work = d.upper, d.work
	}
	if form != LayersByMount {
		return c.setAll([]Option{{"upperdir", procPath(upper)}, {"workdir", procPath(work)}})
	}
	if err := c.setFD("upperdir", int(upper.Fd())); err != nil {
		return err
	}
	return c.setFD("workdir", int(work.Fd()))
}

func attrBits(attrs []string) (bits int) {
	for _, a := range attrs {
		switch a {
		case "ro":
			bits |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			bits |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			bits |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			bits |= unix.MOUNT_ATTR_NOEXEC
		}
	}
	return bits
}

// nameLayers attaches what overlayfs is to find by name.
func (d *doing) nameLayers() error {
	if err := d.attachPrivately(d.lower); err != nil || d.memory == nil {
		return err
	}
	return d.attachPrivately(d.memory)
}

// attachPrivately puts a detached mount on a private directory until the end of
// the plan: before 6.15 overlayfs takes only layers that are in the mount
// namespace. A second call for it does nothing.
func (d *doing) attachPrivately(m *os.File) error {
	if slices.Contains(d.attached, m) {
		return nil
	}
	dir, err := privateDir()
	if err != nil {
		return err
	}
	if err := Attach(m, dir); err != nil {
		os.Remove(dir)
		return fmt.Errorf("attach layer: %w", err)
	}
	d.attached = append(d.attached, m)
	d.cleanup = append(d.cleanup, func() {
		// The overlay holds its own reference, so this only takes away the name.
		unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		os.Remove(dir)
	})
	return nil
}

// privateDir makes a directory that only we can enter: in /run, which is there
// and writable in an initramfs too, or else where temporary files go.
func privateDir() (string, error) {
	dir, err := os.MkdirTemp("/run", "flatroot-")
	if err != nil {
		dir, err = os.MkdirTemp("", "flatroot-")
	}
	if err != nil {
		return "", fmt.Errorf("make directory for a layer: %w", err)
	}
	return dir, nil
}
