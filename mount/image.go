package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
)

// imageSeals make a memory file's content and size final, the set of seals too.
const imageSeals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// copyBuffer is the size of one read of an image, bytes: enough for full speed,
// small enough for an initramfs.
const copyBuffer = 1 << 20

// newMemfd makes an empty memory file that can be sealed. vm.memfd_noexec=2
// refuses files that could be executed; kernels before 6.3 don't know the flag.
func newMemfd() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("flatroot-image", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("flatroot-image", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), "sealed image"), nil
}

func seal(f *os.File) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, imageSeals); err != nil {
		return fmt.Errorf("seal memory file: %w", err)
	}
	return nil
}

func canSeal() bool {
	f, err := newMemfd()
	if err != nil {
		return false
	}
	defer f.Close()
	return seal(f) == nil
}

// sealImage returns a copy of image in sealed memory, which has digest want. The
// copy is hashed after it was sealed, so nothing between can change it.
func sealImage(ctx context.Context, image *os.File, size int64, want fsverity.Digest) (*os.File, error) {
	m, err := newMemfd()
	if err != nil {
		return nil, err
	}
	if err := fillSealed(ctx, m, image, size, want); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func fillSealed(ctx context.Context, m, image *os.File, size int64, want fsverity.Digest) error {
	r := &contextReader{ctx, io.NewSectionReader(image, 0, size)}
	// Plain writes: the memory file is the only user of the bytes, and
	// io.CopyBuffer would hand over to copy_file_range, which ignores ctx.
	if _, err := io.CopyBuffer(struct{ io.Writer }{m}, r, make([]byte, copyBuffer)); err != nil {
		return fmt.Errorf("copy image to memory: %w", err)
	}
	if err := seal(m); err != nil {
		return err
	}
	return checkDigest(ctx, m, size, want)
}

// checkDigest hashes size bytes of f and compares; a shorter file has another
// digest, since the size is part of it.
func checkDigest(ctx context.Context, f *os.File, size int64, want fsverity.Digest) error {
	h := fsverity.NewHasher(want.Algorithm())
	r := &contextReader{ctx, io.NewSectionReader(f, 0, size)}
	if _, err := io.CopyBuffer(h, r, make([]byte, copyBuffer)); err != nil {
		return fmt.Errorf("hash image: %w", err)
	}
	if got := h.Sum(); got != want {
		return &DigestError{Want: want, Got: got}
	}
	return nil
}

// contextReader ends reading with the context's error.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
