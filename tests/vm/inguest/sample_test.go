package inguest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// sampleName is the name of the sample's image in a store.
const sampleName = "os:1"

// bigSize is over 128 blocks, so that the Merkle tree has leaves in several blocks and a root above them; and over 1 MiB, the
// longest READ of a FUSE mount, so that a server has to keep leaves from one to the next.
const bigSize = 300*fsverity.BlockSize + 7

// big are the contents of the sample's objects.
var big = map[string][]byte{"big": randomBytes(bigSize), "dir/small": randomBytes(5000), "dir/text": bytes.Repeat([]byte("flatroot\n"), 100)}

// randomBytes are always the same n bytes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// layout writes the sample, an image of two layers, many files inline, some objects and a whiteout, and returns its reference.
func layout(t *testing.T) string {
	t.Helper()
	files := []ocitest.File{{Name: "dir/"}, {Name: "link", Link: "dir/text"}, {Name: "gone", Data: "deleted by the second layer"}}
	for _, name := range slices.Sorted(maps.Keys(big)) {
		files = append(files, ocitest.File{Name: name, Data: string(big[name])})
	}
	for i := range 64 {
		files = append(files, ocitest.File{Name: fmt.Sprintf("dir/inline%03d", i), Data: strings.Repeat("x", i%64)})
	}
	dir := filepath.Join(t.TempDir(), "layout")
	image := ocitest.Image{Layers: [][]byte{ocitest.Tar(files...), ocitest.Tar(ocitest.File{Name: ".wh.gone"}), owned(t)}}
	_, err := image.WriteLayout(dir, sampleName)
	must(t, err)
	return "oci:" + dir + ":" + sampleName
}

// owned is a layer of files with owners, modes and xattrs.
func owned(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range []string{"owned/a", "owned/b"} {
		must(t, w.WriteHeader(&tar.Header{
			Name: name, Typeflag: tar.TypeReg, Mode: 0o6711, Uid: 70000, Gid: 5,
			PAXRecords: map[string]string{"SCHILY.xattr.user.color": "blue of " + name, "SCHILY.xattr.trusted.overlay.opaque": "y"},
		}))
	}
	must(t, w.Close())
	return out.Bytes()
}

// sight is what is found at a path. It is compared as it is: a digest would take an emulated machine longer.
type sight struct {
	attrs   string // type, permissions, owner, time, xattrs
	content string // or names
}

// snapshot is what a tree shows, by path.
type snapshot map[string]sight

// look sees what is at a path.
func look(dir, name string) (s sight, err error) {
	path := filepath.Join(dir, name)
	fi, err := os.Lstat(path)
	if err != nil {
		return s, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	attrs, err := xattrs(path)
	if err != nil {
		return s, err
	}
	s.attrs = fmt.Sprintf("%v %d:%d %v %q", fi.Mode(), st.Uid, st.Gid, fi.ModTime().UnixNano(), attrs)
	switch fi.Mode().Type() {
	case 0:
		var b []byte
		b, err = os.ReadFile(path)
		s.content = string(b)
		s.attrs += fmt.Sprintf(" %d bytes", fi.Size())
	case fs.ModeSymlink:
		s.content, err = os.Readlink(path)
	case fs.ModeDir:
		var names []fs.DirEntry
		names, err = list(path)
		s.content = fmt.Sprint(names)
	}
	return s, err
}

// xattrs reads all xattrs of a path, following no symlink.
func xattrs(path string) (map[string]string, error) {
	list := make([]byte, 1<<10) // more than the sample needs
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return nil, fmt.Errorf("list xattrs of %s: %w", path, err)
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 1<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("xattr %s of %s: %w", name, path, err)
		}
		found[name] = string(value[:n])
	}
	return found, nil
}

// list reads a directory. The root of an image holds whiteouts, named 00 to ff, which overlayfs hides; but the kernel shows
// those that it can't read. They are names without anything behind them, and count as an error.
func list(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if e.Type()&fs.ModeCharDevice != 0 && err == nil {
			_, err = e.Info()
		}
	}
	return entries, err
}

// take looks at a whole tree, which has to be intact.
func take(t *testing.T, dir string) snapshot {
	t.Helper()
	s := snapshot{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		s[name], err = look(dir, name)
		return err
	}))
	return s
}

// compare looks at all paths of the snapshot again and returns the errors met. Anything that is found without an error has to
// be as it was.
func (s snapshot) compare(t *testing.T, dir string) map[string]error {
	t.Helper()
	failed := map[string]error{}
	for name, want := range s {
		got, err := look(dir, name)
		if err != nil {
			failed[name] = err
		} else if got != want {
			t.Errorf("WRONG DATA at %s: %.1000q, want %.1000q", name, got, want)
		}
	}
	return failed
}

// few are the paths whose files are objects, and one that is none.
func (s snapshot) few() snapshot {
	f := snapshot{"dir/inline063": s["dir/inline063"]}
	for name := range big {
		f[name] = s[name]
	}
	return f
}

// wantIntact compares, and allows no error.
func (s snapshot) wantIntact(t *testing.T, dir string) {
	t.Helper()
	if failed := s.compare(t, dir); len(failed) > 0 {
		t.Errorf("%d of %d paths fail: %v", len(failed), len(s), failed)
	}
}

// readBlocks reads a file block by block, which must be right or fail, and returns the failures.
func readBlocks(t *testing.T, path string, want []byte) map[int]error {
	t.Helper()
	failed := map[int]error{}
	f, err := os.Open(path)
	if err != nil {
		for i := range (len(want) + fsverity.BlockSize - 1) / fsverity.BlockSize {
			failed[i] = err
		}
		return failed
	}
	defer f.Close()
	buf := make([]byte, fsverity.BlockSize)
	for i := 0; i*fsverity.BlockSize < len(want); i++ {
		part := want[i*fsverity.BlockSize:]
		part = part[:min(len(part), len(buf))]
		if n, err := f.ReadAt(buf[:len(part)], int64(i*fsverity.BlockSize)); err != nil {
			failed[i] = err
		} else if !bytes.Equal(buf[:n], part) {
			t.Errorf("WRONG DATA in block %d", i)
		}
	}
	return failed
}
