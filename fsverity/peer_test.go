package fsverity

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// TestPeerSmall compares sizes around the borders of blocks with fsverity-utils.
func TestPeerSmall(t *testing.T) {
	tool := testenv.Peer(t, "fsverity")
	dir := t.TempDir()
	data := pattern(128*BlockSize + 1)
	for _, n := range []int{0, 1, 4096, 4097, 128*BlockSize - 1, 128 * BlockSize, 128*BlockSize + 1} {
		name := create(t, dir, data[:n]).Name()
		for _, a := range algorithms {
			if got, want := Sum(a, data[:n]).String(), peerDigest(t, tool, a, name); got != want {
				t.Errorf("%v of %d bytes is %s, fsverity says %s", a, n, got, want)
			}
		}
	}
}

// TestPeerLarge compares a file of 1 GiB with fsverity-utils, once read through
// and once with its holes as holes.
func TestPeerLarge(t *testing.T) {
	tool := testenv.Peer(t, "fsverity")
	const size, every = 1 << 30, 100<<20 + 12345
	f, err := os.Create(filepath.Join(t.TempDir(), "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	piece := pattern(5<<20 + 77)
	for at := int64(4095); at+int64(len(piece)) < size; at += every {
		if _, err := f.WriteAt(piece, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, a := range algorithms {
		want := peerDigest(t, tool, a, f.Name())
		if got := digestOfReader(t, a, io.NewSectionReader(f, 0, size)); got.String() != want {
			t.Errorf("%v of 1 GiB is %v, fsverity says %s", a, got, want)
		}
		h := NewHasher(a)
		for at := int64(4095); at+int64(len(piece)) < size; at += every {
			h.WriteZeros(at - h.Size())
			h.Write(piece)
		}
		h.WriteZeros(size - h.Size())
		if got := h.Sum(); got.String() != want {
			t.Errorf("%v of 1 GiB with holes is %v, fsverity says %s", a, got, want)
		}
	}
}

func digestOfReader(t *testing.T, a Algorithm, r io.Reader) Digest {
	t.Helper()
	h := NewHasher(a)
	if _, err := io.CopyBuffer(h, r, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return h.Sum()
}

func peerDigest(t *testing.T, tool string, a Algorithm, name string) string {
	t.Helper()
	out, err := exec.Command(tool, "digest", "--compact", "--hash-alg="+a.String(), name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
