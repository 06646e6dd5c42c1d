package mount

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
)

// sampleSize is how many objects are looked at to find out whether a store's
// objects have fs-verity: all or none have, but for accidents.
const sampleSize = 8

// sampleObjects measures the first few objects that the image names. What can't
// be read counts as not found: the sample only guides Auto, and the image itself
// is judged by the kernel.
func sampleObjects(image *os.File, size int64, dirs []*os.File) SampleFacts {
	var s SampleFacts
	m, err := erofs.Open(image, size)
	if err != nil {
		return s
	}
	tried := 0
	for o, err := range m.Objects() {
		if err != nil || tried == sampleSize {
			break
		}
		tried++
		s.add(o.Digest, dirs)
	}
	return s
}

func (s *SampleFacts) add(d fsverity.Digest, dirs []*os.File) {
	for _, dir := range dirs {
		fd, err := unix.Openat(int(dir.Fd()), d.ObjectPath(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), d.ObjectPath())
		got, err := fsverity.Measure(f)
		f.Close()
		s.Found++
		if err == nil && got == d {
			s.Verity++
		}
		return
	}
}
