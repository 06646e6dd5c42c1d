package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
	"golang.org/x/sys/unix"
)

// livePrefix begins the refs of images that are mounted: flatroot/live/BOOTID/HEX. As
// refs they are honoured by other tools' collection of garbage too. Whoever unmounts takes
// the ref away if it surely was the last mount; else gc does, when it sees that nothing
// is mounted, or that the system was booted since.
const livePrefix = "flatroot/live/"

// bootIDPath has a UUID that is another one after each boot; random(4).
const bootIDPath = "/proc/sys/kernel/random/boot_id"

// BootID is the ID of the running system's boot. It fails where /proc doesn't show it:
// some containers see one of their own, by which a record would mean nothing to others,
// and theirs nothing there.
func BootID() (string, error) { return readBootID(bootIDPath) }

func readBootID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the boot's ID: %w", err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return "", fmt.Errorf("read the boot's ID: %w", pathError("statfs", path, err))
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return "", fmt.Errorf("%s is not the kernel's own: something is mounted over it", path)
	}
	b := make([]byte, 64)
	n, err := f.Read(b)
	if err != nil {
		return "", fmt.Errorf("read the boot's ID: %w", err)
	}
	id := strings.TrimSuffix(string(b[:n]), "\n")
	if !isUUID(id) {
		return "", fmt.Errorf("%s has %.80q, which is no UUID", path, id)
	}
	return id, nil
}

// isUUID knows the form that the kernel prints: 8-4-4-4-12 hexadecimal digits in
// lower case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !isHex(c) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// OpenToMount opens a store so that what is mounted of it can be recorded; one that
// can't be written, as on a read-only file system or of another user, is opened
// read-only. RecordMount says then why.
func OpenToMount(path string, o OpenOptions) (*Store, error) {
	o.ReadOnly = false
	s, why := Open(path, o)
	if why == nil || errors.Is(why, ErrNotStore) || errors.Is(why, ErrOldStore) {
		return s, why
	}
	o.ReadOnly = true
	s, err := Open(path, o)
	if err == nil {
		s.whyReadOnly = why
	}
	return s, err
}

// MountedFunc gives the images that are mounted now, and whether there can be no others.
// It is mount.Mounted.
type MountedFunc func() (images map[fsverity.Digest]bool, complete bool, err error)

// RecordMount notes that an image is going to be mounted, so that no collection of
// garbage takes away what it needs; what is no image of this store can't be noted. It
// comes before the mount, and the store stays open until that is made. If nothing comes
// of it, undo takes the note back, as the last thing that is done with the store.
func (s *Store) RecordMount(d fsverity.Digest, mounted MountedFunc) (undo func(), err error) {
	nothing := func() {}
	if _, err := s.Entry(Images, d.String()); errors.Is(err, ErrNotFound) {
		return nothing, nil
	}
	boot, err := BootID()
	if err != nil {
		return nothing, fmt.Errorf("record the mount: %w", err)
	}
	ref := livePrefix + boot + "/" + d.String()
	if err := s.SetRef(Images, ref, d.String()); err != nil {
		return nothing, fmt.Errorf("record the mount: %w", err)
	}
	return func() { s.forget(ref, d, mounted) }, nil
}

// ForgetMount removes the record of an image that was mounted from the store at path, if
// it surely isn't any more. It waits for nobody: what it can't do is left to gc.
func ForgetMount(path string, d fsverity.Digest, mounted MountedFunc) {
	boot, err := BootID()
	if err != nil {
		return
	}
	s, err := Open(path, OpenOptions{NoWait: true})
	if err != nil {
		return
	}
	defer s.Close()
	ref := livePrefix + boot + "/" + d.String()
	if _, err := s.Ref(Images, ref); err == nil {
		s.forget(ref, d, mounted)
	}
}

// forget removes the ref of an image that surely isn't mounted. Where that isn't sure,
// or others have the store open, it is left to gc.
func (s *Store) forget(ref string, d fsverity.Digest, mounted MountedFunc) {
	// Whoever else is mounting the image has the shared lock until it can be seen.
	if flock(s.root.fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	images, complete, err := mounted()
	if err == nil && complete && !images[d] && s.RemoveRef(Images, ref) == nil {
		s.removeEmptyDirs(Images, ref)
	}
}

// removeEmptyLive removes the directories of refs that a command made which was killed
// before it came to its ref. Under the exclusive lock nobody else is about to use one.
func (s *Store) removeEmptyLive() {
	at, boots, err := s.list(Images, strings.Split(refsDir+"/"+livePrefix, "/")[:3])
	if err == nil {
		at.close()
	}
	for _, boot := range append(boots, "none") {
		s.removeEmptyDirs(Images, livePrefix+boot+"/none")
	}
}
