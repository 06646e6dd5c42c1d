package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/flatroot/flatroot/fsverity"
)

// initialPIDNamespace is the inode of the first PID namespace, from which all
// processes can be seen: PROC_PID_INIT_INO of include/linux/proc_ns.h.
const initialPIDNamespace = 0xEFFFFFFC

// Mounted gives the digests of our images that are mounted in any mount namespace
// that a process is in. complete is false if there may be more, since not all
// processes can be seen. A namespace that is kept by nothing but a file is not seen,
// nor is what was unmounted lazily.
func Mounted() (images map[fsverity.Digest]bool, complete bool, err error) {
	return mountedIn("/proc")
}

func mountedIn(proc string) (map[fsverity.Digest]bool, bool, error) {
	m := &liveMounts{images: map[fsverity.Digest]bool{}, seen: map[string]bool{}}
	m.complete = seesAll(proc)
	dirs, err := os.ReadDir(proc)
	if err != nil {
		return nil, false, fmt.Errorf("list processes: %w", err)
	}
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		if err := m.add(filepath.Join(proc, d.Name())); err != nil {
			return nil, false, err
		}
	}
	return m.images, m.complete, nil
}

// seesAll tells whether /proc shows all processes: it is the first PID namespace's,
// and hides none, of which process 1 is the first to be hidden.
func seesAll(proc string) bool {
	st, err := os.Stat(filepath.Join(proc, "self/ns/pid"))
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Ino != initialPIDNamespace {
		return false
	}
	_, err = os.Stat(filepath.Join(proc, "1"))
	return err == nil
}

// liveMounts collects from one mount namespace after the other.
type liveMounts struct {
	images   map[fsverity.Digest]bool
	complete bool
	seen     map[string]bool // namespaces
}

// add takes in what a process sees. One that has ended doesn't matter.
func (m *liveMounts) add(process string) error {
	ns, err := os.Readlink(filepath.Join(process, "ns/mnt"))
	if err == nil && m.seen[ns] {
		return nil
	}
	if err == nil {
		var f *os.File
		if f, err = os.Open(filepath.Join(process, "mountinfo")); err == nil {
			defer f.Close()
			err = parseMountinfo(f, m.entry)
		}
	}
	switch {
	case err == nil:
		m.seen[ns] = true
		return nil
	case ended(err):
		return nil
	case errors.Is(err, fs.ErrPermission):
		m.complete = m.complete && filepath.Base(process) == "1" && m.seesKernel(filepath.Dir(process))
		return nil
	}
	return fmt.Errorf("mounts of process %s: %w", filepath.Base(process), err)
}

// seesKernel looks at the kernel's own threads in place of process 1, which may have
// rights that we don't have: it is in their mount namespace.
func (m *liveMounts) seesKernel(proc string) bool {
	name, err := os.ReadFile(filepath.Join(proc, "2/comm"))
	if err != nil || string(name) != "kthreadd\n" {
		return false
	}
	before := len(m.seen)
	ns, err := os.Readlink(filepath.Join(proc, "2/ns/mnt"))
	return err == nil && (m.seen[ns] || m.add(filepath.Join(proc, "2")) == nil && len(m.seen) > before)
}

// ended tells errors about a process that is no more, or that has no namespace any
// more since it is about to end.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL)
}

// entry takes in a mount. One of unknown digest was not mounted by name or digest, and
// is no one's that was recorded.
func (m *liveMounts) entry(e infoEntry) error {
	if mount, ours := e.ours(); ours && !mount.Digest.IsZero() {
		m.images[mount.Digest] = true
	}
	return nil
}
