package mounts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/erofs/erofstest"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// How many random trees are compared.
const (
	randomTrees        = 60
	randomTreesNightly = 1000
)

// randomImage makes the image of a random tree, with objects.
func randomImage(t testing.TB, dir string, seed uint64, change ...func(*tree.Tree)) image {
	t.Helper()
	tr, err := dump.Parse(bytes.NewReader(erofstest.Random(seed)), dump.Options{})
	must(t, err)
	for _, c := range change {
		c(tr)
	}
	o := newObjects(t, filepath.Join(dir, fmt.Sprintf("objects-%d", seed)))
	realize(tr, o, seed)
	formats := []erofs.Format{erofs.Format0, erofs.Format1, erofs.FormatAuto}
	return writeImage(t, dir, fmt.Sprintf("image-%d", seed), tr, o, formats[seed%3])
}

// readImage is the tree as our reader has it.
func readImage(t testing.TB, img image) (*erofs.Image, *tree.Tree) {
	t.Helper()
	b, err := os.ReadFile(img.path)
	must(t, err)
	m, err := erofs.Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	tr, err := erofs.ReadTree(m, erofs.ReadOptions{})
	must(t, err)
	return m, tr
}

func TestRandomTrees(t *testing.T) {
	needMounts(t)
	dir := tmpfs(t)
	for seed := range uint64(times(randomTrees, randomTreesNightly)) {
		img := randomImage(t, dir, seed)
		list := modes()
		if seed%3 != 0 { // what passthrough has of its own is how content is read
			list = slices.DeleteFunc(list, mode.passthrough)
		}
		diff := compareModes(t, img, list)
		if diff == "" && seed%4 == 0 {
			diff = comparePermissions(t, img)
		}
		if diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		must(t, os.RemoveAll(img.objects))
		must(t, os.Remove(img.path))
	}
}

// compareModes describes in what our reader, some modes and the native mount of an image differ.
func compareModes(t *testing.T, img image, list []mode) string {
	t.Helper()
	m, tr := readImage(t, img)
	seen := walkMounted(t, native, img)
	if diff := compareRecords("native", seen, "reader", readerRecords(m, tr, img.objects, native.differ)); diff != "" {
		return diff
	}
	// What is native is what the reader says, so in the modes, which differ from it otherwise, the reader stands for both.
	for _, mode := range list {
		want := readerRecords(m, tr, img.objects, mode.differ)
		if diff := compareRecords("reader", want, mode.name, walkMounted(t, mode, img)); diff != "" {
			return diff
		}
	}
	return ""
}

// comparePermissions describes in what a mode lets users do other things with the files of an image than the native mount.
func comparePermissions(t *testing.T, img image) string {
	t.Helper()
	paths := namesToTry(walkMounted(t, native, img))
	want := permissions(t, native, img, paths)
	for _, m := range modes() {
		got := permissions(t, m, img, paths)
		for i := range want {
			if got[i] != want[i] {
				return fmt.Sprintf("native: %s\n%s: %s", want[i], m.name, got[i])
			}
		}
	}
	return ""
}

// namesToTry leaves out what can't be looked up natively, and what has an ACL that can't be read: of these an empty one is
// none to FUSE (see fuseDifferences).
func namesToTry(rs []*record) (paths []string) {
	for _, r := range rs {
		if r.odd == nil && !strings.HasPrefix(r.xattrs[aclAccess], "!") {
			paths = append(paths, r.path)
		}
	}
	return paths
}

// permissions are what some users may do with each path. Users and groups of the ACLs that realize makes are among them.
func permissions(t *testing.T, m mode, img image, paths []string) (list []string) {
	t.Helper()
	dir, unmount := m.mount(t, img)
	defer unmount()
	for _, u := range []user{{"alice", alice, 100, []uint32{staff}}, {"bob", bob, helpers, nil}} {
		must(t, u.as(func() {
			for _, path := range paths {
				list = append(list, fmt.Sprintf("%s, %q: %s", u.name, path, access(dir+path)))
			}
		}))
	}
	return list
}

// access is what a user may do with a path, short of what the content says.
func access(path string) string {
	var b strings.Builder
	for _, mode := range []uint32{unix.F_OK, unix.R_OK, unix.W_OK, unix.X_OK} {
		fmt.Fprintf(&b, " %s", came(unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)))
	}
	return b.String()
}

func walkMounted(t *testing.T, m mode, img image) []*record {
	t.Helper()
	dir, unmount := m.mount(t, img)
	defer unmount()
	rs, err := walk(dir)
	must(t, err)
	return rs
}

// TestRandomTreesInfo compares what our reader and C composefs-info say of images of random trees.
func TestRandomTreesInfo(t *testing.T) {
	info := testenv.Peer(t, "composefs-info")
	dir := t.TempDir()
	for seed := range uint64(times(randomTrees, randomTreesNightly)) {
		img := randomImage(t, dir, seed, func(tr *tree.Tree) { must(t, withoutMarks(tr)) })
		text, err := exec.Command(info, "dump", img.path).Output()
		must(t, err)
		theirs, err := dump.Parse(bytes.NewReader(text), dump.Options{})
		if err != nil {
			t.Fatalf("seed %d: composefs-info: %v", seed, err)
		}
		must(t, withoutMarks(theirs)) // it prints the opaque marks that mkcomposefs adds
		_, ours := readImage(t, img)
		cutStray(theirs, ours)
		if diff := compareRecords("composefs-info", stored(theirs), "reader", stored(ours)); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
		must(t, os.RemoveAll(img.objects))
		must(t, os.Remove(img.path))
	}
}

// stored are the records of what an image says, where the content of a file is its object's path and digest.
func stored(tr *tree.Tree) []*record {
	return treeRecords(tr, func(n tree.Node) string { return fmt.Sprintf("%q %v", tr.Payload(n), tr.Digest(n)) })
}

// withoutMarks takes away xattrs of overlayfs's names, and empty ACLs. Whatever has a mark of whiteouts composefs-info 1.0.8
// prints as a whiteout, where we want all the marks that mkcomposefs makes and nothing else that a file can have; and it
// leaves out what is stored with an empty name and an empty value.
func withoutMarks(tr *tree.Tree) error {
	for n := range tree.Node(tr.Len()) {
		xs := slices.DeleteFunc(tr.Xattrs(n), func(x tree.Xattr) bool {
			return strings.HasPrefix(x.Name, "trusted.overlay.") || strings.HasPrefix(x.Name, "user.overlay.") ||
				isACL(x.Name) && len(x.Value) == 0
		})
		if err := tr.SetXattrs(n, xs); err != nil {
			return err
		}
	}
	return nil
}

// cutStray ends object paths where ours do: behind one that is not padded to four bytes composefs-info 1.0.8 prints what
// comes next as a part of the path.
func cutStray(theirs, ours *tree.Tree) {
	for n := range tree.Node(ours.Len()) {
		payload := ours.Payload(n)
		t := nodeAt(theirs, ours.Path(n))
		if t == tree.None || len(payload) == 0 || len(payload)%4 == 0 {
			continue
		}
		if bytes.HasPrefix(theirs.Payload(t), payload) {
			theirs.SetPayload(t, payload)
		}
	}
}
