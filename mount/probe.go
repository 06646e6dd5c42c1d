package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
)

// Probe finds out, by trying, what can be done for r here. Nothing is mounted
// and nothing stays open. A zero Request probes the kernel alone. An error means
// that the request's own files can't be read or are no such thing.
func Probe(r Request) (Features, error) {
	var f Features
	if err := f.probeKernel(); err != nil {
		return f, err
	}
	if r.Start != nil {
		f.probeFUSE()
	}
	if r.Image != nil {
		var err error
		if f.Image, err = inspectImage(r.Image); err != nil {
			return f, err
		}
	}
	for _, d := range r.Objects {
		f.Objects = append(f.Objects, DirFacts{Path: d.Name(), CanVerity: canVerity(d)})
	}
	if r.Image != nil && r.ruledBySample() {
		f.Sample = sampleObjects(r.Image, f.Image.Size, r.Objects)
	}
	if r.Upper != nil && r.Work != nil {
		var err error
		if f.Upper.SameMount, err = sameMount(r.Upper, r.Work); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *Features) probeKernel() error {
	f.Loop = canLoop()
	f.Memfd = canSeal()
	c, err := openContext("erofs")
	switch {
	case errors.Is(err, unix.EPERM):
		return nil // asked before the name is looked up: nothing else can be found out
	case err != nil && !missing(err):
		return err
	case err == nil:
		f.Erofs = true
		c.Close()
	}
	f.Privileged = canTrusted()
	f.Namespaced = !f.Privileged
	if f.Namespaced {
		f.probeUserOverlay()
	}
	return f.probeOverlay()
}

// canTrusted tells root of the machine from root of a user namespace, whom
// fsopen lets pass as well: only the first may mount EROFS and read the trusted.*
// xattrs that overlayfs finds objects by. It takes one away that no file has.
func canTrusted() bool {
	m, err := newMemfd()
	if err != nil {
		return false
	}
	defer m.Close()
	return !errors.Is(unix.Fremovexattr(int(m.Fd()), "trusted.overlay.metacopy"), unix.EPERM)
}

// probeOverlay gives options to an overlay that is never created. A kernel that
// doesn't know a key, or not in this form, refuses it at once.
func (f *Features) probeOverlay() error {
	c, err := openContext("overlay")
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	// A kernel whose overlayfs has only the old interface accepts any key and
	// looks at it when the file system is created. All such (before 6.5) have no
	// data-only layers either.
	if c.set(Option{"flatroot-no-such-option", "on"}) == nil {
		return nil
	}
	f.Overlay = true
	f.OverlayVerity = c.set(Option{"verity", "require"}) == nil
	f.LayerAdd = c.set(Option{"lowerdir+", "/"}) == nil
	// Mounts come as O_PATH descriptors, which overlayfs takes since the release
	// in which it takes detached mounts as well.
	if root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		f.LayerFD = c.setFD("lowerdir+", int(root.Fd())) == nil
		root.Close()
	}
	return nil
}

func inspectImage(image *os.File) (ImageFacts, error) {
	st, err := image.Stat()
	if err != nil {
		return ImageFacts{}, fmt.Errorf("inspect image: %w", err)
	}
	m, err := erofs.Open(image, st.Size())
	if err != nil {
		return ImageFacts{}, fmt.Errorf("%s can't be mounted: %w", image.Name(), err)
	}
	if m.Version() < 0 {
		// The kernel would mount it, but it is none of ours: an EROFS image made
		// for another purpose has not been through our writer or our checks.
		return ImageFacts{}, fmt.Errorf("%s is EROFS but not a composefs image", image.Name())
	}
	facts := ImageFacts{Size: st.Size(), NoACL: !m.HasACL()}
	facts.Verity, err = fsverity.Measure(image)
	facts.CanVerity = err == nil || errors.Is(err, fsverity.ErrNoVerity)
	return facts, nil
}

// canVerity asks for the fs-verity digest of a directory, which none has: a
// file system with fs-verity says so (ENODATA), another doesn't know the call.
func canVerity(dir *os.File) bool {
	_, err := fsverity.Measure(dir)
	return errors.Is(err, fsverity.ErrNoVerity)
}
