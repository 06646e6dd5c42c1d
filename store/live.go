package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/flatroot/flatroot/fsverity"
)

// livePrefix begins the refs of images that are mounted: flatroot/live/BOOTID/HEX. As
// refs they are honoured by other tools' collection of garbage too. A mount does not
// take its ref away when it ends: gc does, when it sees that nothing is mounted, or
// that the system was booted since.
const livePrefix = "flatroot/live/"

// bootIDPath has a UUID that is another one after each boot; random(4).
const bootIDPath = "/proc/sys/kernel/random/boot_id"

// BootID is the ID of the running system's boot.
func BootID() (string, error) {
	b, err := os.ReadFile(bootIDPath)
	if err != nil {
		return "", fmt.Errorf("read the boot's ID: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if err := checkName(id); err != nil {
		return "", fmt.Errorf("%s: %w", bootIDPath, err)
	}
	return id, nil
}

// OpenToMount opens a store so that what is mounted of it can be recorded; one that
// can't be written, as on a read-only file system or of another user, is opened
// read-only.
func OpenToMount(path string, o OpenOptions) (*Store, error) {
	o.ReadOnly = false
	s, err := Open(path, o)
	if err == nil || errors.Is(err, ErrNotStore) || errors.Is(err, ErrOldStore) {
		return s, err
	}
	o.ReadOnly = true
	return Open(path, o)
}

// RecordMount notes that an image is going to be mounted, so that no collection of
// garbage takes away what it needs. It comes before the mount, and the store stays
// open until that is made; if it fails, undo takes the note back. In a store that is
// open read-only nothing is recorded: whoever can write it has to know what is mounted
// from it.
func (s *Store) RecordMount(d fsverity.Digest) (undo func(), err error) {
	nothing := func() {}
	if s.readOnly {
		return nothing, nil
	}
	boot, err := BootID()
	if err != nil {
		return nothing, err
	}
	ref := livePrefix + boot + "/" + d.String()
	if had, err := s.Ref(Images, ref); err == nil && had == d.String() {
		return nothing, nil // it is another mount's too
	}
	if err := s.SetRef(Images, ref, d.String()); err != nil {
		return nothing, fmt.Errorf("record the mount: %w", err)
	}
	return func() {
		if s.RemoveRef(Images, ref) == nil { // else gc does it
			s.removeEmptyDirs(Images, ref)
		}
	}, nil
}
