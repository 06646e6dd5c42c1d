package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxSize is what an initramfs should spend on the helper, bytes.
const maxSize = 6 << 20

// TestSize builds the helper as it is shipped.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	out := filepath.Join(t.TempDir(), "mount.flatroot")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	st, err := os.Stat(out)
	must(t, err)
	if st.Size() > maxSize {
		t.Errorf("mount.flatroot has %d bytes, more than %d", st.Size(), maxSize)
	}
}
