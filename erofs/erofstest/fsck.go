package erofstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// Fsck fails the test if fsck.erofs finds anything wrong with an image. It needs erofs-utils.
func Fsck(t testing.TB, image []byte) {
	t.Helper()
	fsck := testenv.Peer(t, "fsck.erofs")
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	if out, err := exec.Command(fsck, file).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}
