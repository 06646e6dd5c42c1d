package erofs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

const goldenSHA512 = "testdata/sha512.golden"

// TestGoldenSHA512 pins the digests of images with SHA-512, which C mkcomposefs can't make: those of the vectors, each of
// their digests replaced by withSHA512. An independent writer agreed with all of them when they were made. A change is a
// break of the format.
func TestGoldenSHA512(t *testing.T) {
	var got strings.Builder
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil {
			continue
		}
		_, s, err := writeImage(withSHA512(t, tr), WriteOptions{})
		if err == nil {
			fmt.Fprintf(&got, "%s\t%v\n", filepath.Base(v.file), s.Digest)
		}
	}
	if testenv.Update() {
		if err := os.WriteFile(goldenSHA512, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenSHA512)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("digests differ: got\n%swant\n%s", got.String(), want)
	}
}
