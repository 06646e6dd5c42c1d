package erofs

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// notInImage names the vectors whose tree has something that no image keeps but that an image depends on: devices with a
// size of more than 32 bits, whose inode is therefore an extended one.
var notInImage = map[string]bool{"dev-with-size.dump": true}

func openBytes(t testing.TB, img []byte) *Image {
	t.Helper()
	m, err := Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readBytes(t testing.TB, img []byte) *tree.Tree {
	t.Helper()
	tr, err := ReadTree(openBytes(t, img), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// A tree that was read from an image gives the image again, bit for bit.
func TestReadTreeOfVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		tr, err := parseDump(v.file)
		if err != nil {
			continue // what C refuses has no image to read
		}
		t.Run(filepath.Base(v.file), func(t *testing.T) {
			for _, format := range []Format{Format0, Format1} {
				img, s, err := writeImage(tr, WriteOptions{Format: format})
				if err != nil {
					continue
				}
				if m := openBytes(t, img); m.Version() != s.Version || m.Inodes() != uint64(s.Inodes) {
					t.Errorf("version %d with %d inodes, want %d with %d", m.Version(), m.Inodes(), s.Version, s.Inodes)
				}
				again, _, err := writeImage(readBytes(t, img), WriteOptions{Format: format})
				if err != nil {
					t.Fatal(err)
				}
				if same := bytes.Equal(img, again); same == notInImage[filepath.Base(v.file)] {
					t.Errorf("format %d: the image is the same again: %t", format, same)
				}
			}
		})
	}
}

func dumpText(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
