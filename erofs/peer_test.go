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

// How many random trees are compared. FLATROOT_RANDOM_RUNS says another number, FLATROOT_RANDOM_SEED where they begin.
const (
	randomRuns        = 300
	randomRunsNightly = 20000
)

func randomRange(t *testing.T) (first, end uint64) {
	t.Helper()
	runs := uint64(randomRuns)
	if testenv.Nightly() {
		runs = randomRunsNightly
	}
	first = envNumber(t, "FLATROOT_RANDOM_SEED", 1)
	return first, first + envNumber(t, "FLATROOT_RANDOM_RUNS", runs)
}

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

// TestAgainstC compares images of random trees with those of C mkcomposefs, byte for byte, and has each tree's image of
// version 1 checked by erofs-utils.
func TestAgainstC(t *testing.T) {
	mkcomposefs := testenv.Peer(t, "mkcomposefs")
	first, end := randomRange(t)
	refused := uint64(0)
	for seed := first; seed < end; seed++ {
		refused += compareWithC(t, mkcomposefs, seed)
		if t.Failed() {
			return
		}
	}
	if refused > end-first {
		t.Errorf("C refused %d of %d images: that is not much of a comparison", refused, 3*(end-first))
	}
}

// compareWithC returns how many images C refused to make by the mistake that cRefusesByMistake is about.
func compareWithC(t *testing.T, mkcomposefs string, seed uint64) (refused uint64) {
	t.Helper()
	text := erofstest.Random(seed)
	tr := parseText(t, text)
	for format, options := range [][]string{
		Format0: {"--max-version=0"}, Format1: {"--min-version=1"}, FormatAuto: nil,
	} {
		img, _, err := writeImage(tr, WriteOptions{Format: Format(format)})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if Format(format) == Format1 {
			erofstest.Fsck(t, img)
		}
		want, err := runC(t, mkcomposefs, text, options)
		switch {
		case err != nil && strings.Contains(err.Error(), "Numerical result out of range"):
			refused++
		case err != nil:
			t.Fatalf("seed %d: %v", seed, err)
		case !bytes.Equal(img, want):
			t.Fatalf("seed %d, format %d: images differ at byte %d", seed, format, differAt(img, want))
		}
	}
	return refused
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
