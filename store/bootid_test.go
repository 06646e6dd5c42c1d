package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/store"
)

// TestBootIDOfOthers: what isn't the kernel's own ID of the boot is none.
func TestBootIDOfOthers(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "boot_id")
	must(t, os.WriteFile(fake, []byte("01234567-89ab-cdef-0123-456789abcdef\n"), 0o644))
	for _, path := range []string{fake, "/proc/version", "/proc/self/nothing", "/proc/sys"} {
		if id, err := store.ReadBootID(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is taken: %q, %v", path, id, err)
		}
	}
}
