package erofs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// randomRuns is how many random trees are compared; FLATROOT_RANDOM_RUNS says another number, FLATROOT_RANDOM_SEED where
// they begin.
const randomRuns = 300

func envNumber(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestAgainstC compares images of random trees with those of C mkcomposefs, byte for byte.
func TestAgainstC(t *testing.T) {
	mkcomposefs := testenv.Peer(t, "mkcomposefs")
	seed := envNumber(t, "FLATROOT_RANDOM_SEED", 1)
	runs := envNumber(t, "FLATROOT_RANDOM_RUNS", randomRuns)
	wrapped := 0
	for i := seed; i < seed+runs; i++ {
		text := erofstest.Random(i)
		tr := parseText(t, text)
		for format, options := range [][]string{
			Format0: {"--max-version=0"}, Format1: {"--min-version=1"}, FormatAuto: nil,
		} {
			img, _, err := writeImage(tr, WriteOptions{Format: Format(format)})
			if err != nil {
				t.Fatalf("seed %d: %v", i, err)
			}
			want, err := runC(t, mkcomposefs, text, options)
			if err != nil && strings.Contains(err.Error(), "Numerical result out of range") {
				wrapped++ // C's count of xattr bytes, see cRefusesByMistake
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: %v", i, err)
			}
			if !bytes.Equal(img, want) {
				t.Fatalf("seed %d, format %d: images differ at byte %d", i, format, differAt(img, want))
			}
		}
		if i%10 == 0 {
			img, _, err := writeImage(tr, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			erofstest.Fsck(t, img)
		}
	}
	if wrapped > int(runs) {
		t.Errorf("C refused %d of %d images", wrapped, 3*runs)
	}
}

func runC(t *testing.T, mkcomposefs string, text []byte, options []string) ([]byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command(mkcomposefs, append(options, "--from-file", "-", out)...)
	cmd.Stdin = bytes.NewReader(text)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkcomposefs: %w: %s", err, msg)
	}
	return os.ReadFile(out)
}

// differAt is the first byte in which two images differ.
func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
