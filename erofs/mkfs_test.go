package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// Images that mkfs.erofs makes of one directory in its various layouts must show that directory.
func TestMkfs(t *testing.T) {
	mkfs := testenv.Peer(t, "mkfs.erofs")
	src := makeSource(t)
	for _, args := range []string{
		"",
		"-b512", "-b1024", "-b2048",
		"-Eforce-inode-compact,force-inode-extended",
		"-Eforce-inode-extended",
		"-Enoinline_data", "-Enoinline_data -b512",
		"--chunksize=4096", "--chunksize=65536", "-b512 --chunksize=1024",
		"--chunksize=4096 -Eforce-chunk-indexes",
		"-x1", "-x0 -b1024",
		"-Exattr-name-filter", "-E^xattr-name-filter",
		"-Enosbcrc",
		"--xattr-prefix=user.long.prefix. --xattr-prefix=user.other.",
		"--root-xattr-isize=600",
		"--dsunit=16 --fsalignblks=64",
	} {
		t.Run(args, func(t *testing.T) {
			img := runMkfs(t, mkfs, src, args)
			checkImage(t, img, src)
			tr := readBytes(t, img)
			checkTree(t, tr, src)
		})
	}
}

// All that an option turns on and the reader refuses must be refused by its name.
func TestMkfsUnsupported(t *testing.T) {
	mkfs := testenv.Peer(t, "mkfs.erofs")
	src := makeSource(t)
	for args, feature := range map[string]string{
		"-zlz4":                            "compressed data",
		"-zlz4 -Eztailpacking":             "ztailpacking",
		"-zlz4 -Efragments":                "fragments",
		"-zlz4 -Ededupe":                   "deduplicated",
		"-E48bit":                          "48-bit",
		"-m4096 -zlz4":                     "metabox",
		"--chunksize=4096 --blobdev=@/dev": "device table",
	} {
		t.Run(args, func(t *testing.T) {
			img := runMkfs(t, mkfs, src, strings.ReplaceAll(args, "@", t.TempDir()))
			m, err := Open(bytes.NewReader(img), int64(len(img)))
			if err == nil {
				_, err = ReadTree(m, ReadOptions{})
			}
			var unsupported *UnsupportedError
			if !errors.As(err, &unsupported) || !strings.Contains(unsupported.Feature, feature) {
				t.Errorf("got error %v, want one about %s", err, feature)
			}
		})
	}
}

func runMkfs(t *testing.T, mkfs, src, args string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "img")
	argv := append([]string{"--quiet", "--preserve-mtime", "-T1000000000", "--mkfs-time"}, strings.Fields(args)...)
	out, err := exec.Command(mkfs, append(argv, file, src)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.erofs %s: %v\n%s", args, err, out)
	}
	img, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// makeSource makes a directory with files of all types, sizes around those of blocks, holes, links, many and odd names,
// and xattrs as far as the file system takes them.
func makeSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"a/b/c/d", "empty", "many", "sizes", " space", "xattrs"} {
		must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for k := range 3000 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("%x-%s", k*7919, strings.Repeat("n", k%200))), nil, 0o600))
	}
	for _, size := range []int{0, 1, 63, 64, 65, 511, 512, 513, 1023, 1024, 2047, 2048, 3500, 4032, 4095, 4096, 4097, 65535, 65536, 65537, 300000} {
		must(os.WriteFile(filepath.Join(dir, "sizes", fmt.Sprint(size)), pattern(size), 0o640))
	}
	must(os.WriteFile(filepath.Join(dir, "hole"), pattern(100), 0o644))
	must(os.Truncate(filepath.Join(dir, "hole"), 1<<20+17))
	must(os.Symlink("a/b", filepath.Join(dir, "short")))
	must(os.Symlink(strings.Repeat("long/", 700), filepath.Join(dir, "long")))
	must(os.Link(filepath.Join(dir, "sizes/4097"), filepath.Join(dir, "a/b/link")))
	must(os.Link(filepath.Join(dir, "sizes/4097"), filepath.Join(dir, "zz")))
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if os.Geteuid() == 0 {
		must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 0x12345))))
		must(os.Lchown(filepath.Join(dir, "empty"), 70000, 12))
	}
	for k := range 40 {
		f := filepath.Join(dir, "xattrs", fmt.Sprint(k))
		must(os.WriteFile(f, nil, 0o644))
		setXattr(t, f, "user.same", "shared value")
		setXattr(t, f, "user.long.prefix.x", strings.Repeat("v", k))
		setXattr(t, f, "user.other.", fmt.Sprint(k%3))
	}
	setXattr(t, dir, "user.root", strings.Repeat("r", 500))
	must(os.Chmod(filepath.Join(dir, "a"), os.ModeSticky|0o777))
	must(unix.Lutimes(filepath.Join(dir, "short"), []unix.Timeval{{Sec: -5}, {Sec: -5, Usec: 7}}))
	must(os.Chtimes(filepath.Join(dir, "zz"), time.Unix(1, 999999999), time.Unix(1, 999999999)))
	return dir
}

// pattern has no two equal blocks.
func pattern(n int) []byte {
	b := make([]byte, n)
	for k := range b {
		b[k] = byte(k ^ k>>8 ^ k>>16*31)
	}
	return b
}

func setXattr(t *testing.T, file, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(file, name, []byte(value), 0); err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
}

func fileXattrs(t *testing.T, file string) map[string]string {
	t.Helper()
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(file, list)
	if err != nil && err != unix.ENOTSUP {
		t.Fatal(err)
	}
	xs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 1<<16)
		k, err := unix.Lgetxattr(file, name, value)
		if err != nil {
			t.Fatal(err)
		}
		xs[name] = string(value[:k])
	}
	return xs
}

// checkImage compares an image with a directory, by names from the directory and by names from the image.
func checkImage(t *testing.T, img []byte, src string) {
	t.Helper()
	m := openBytes(t, img)
	if m.Version() != -1 || !m.HasACL() {
		t.Errorf("version %d, ACL %t", m.Version(), m.HasACL())
	}
	err := filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		i, err := lookupPath(m, rel)
		if err != nil {
			return err
		}
		checkInode(t, i, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lookupPath(m *Image, path string) (*Inode, error) {
	i, err := m.Inode(m.Root())
	for name := range strings.SplitSeq(path, "/") {
		if err != nil || name == "." {
			break
		}
		var nid Nid
		if nid, err = i.Lookup(name); err == nil {
			i, err = m.Inode(nid)
		}
	}
	return i, err
}

func checkInode(t *testing.T, i *Inode, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	a := i.Attr()
	want := tree.Attr{
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, Size: uint64(st.Size),
		MtimeSec: st.Mtim.Sec, MtimeNsec: uint32(st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		want.Size, want.Nlink = a.Size, a.Nlink // the file system's own affair
	case unix.S_IFCHR, unix.S_IFBLK:
		minor, major := unix.Minor(st.Rdev), unix.Major(st.Rdev)
		want.Rdev = minor&0xff | major<<8 | (minor&^0xff)<<12
	}
	if a != want {
		t.Errorf("%s: %+v\nwant %+v", path, a, want)
	}
	checkXattrs(t, i, fileXattrs(t, path), path)
	checkData(t, i, path, st.Mode)
}

func checkXattrs(t *testing.T, i *Inode, want map[string]string, path string) {
	t.Helper()
	xs, err := i.Xattrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range xs {
		if value, ok := want[x.Name]; !ok || value != string(x.Value) {
			t.Errorf("%s: xattr %s=%q, want %q", path, x.Name, x.Value, want[x.Name])
		}
		if got, ok, err := i.Xattr(x.Name); err != nil || !ok || !bytes.Equal(got, x.Value) {
			t.Errorf("%s: Xattr(%s) = %q, %t, %v", path, x.Name, got, ok, err)
		}
	}
	if len(xs) != len(want) {
		t.Errorf("%s: %d xattrs, want %d", path, len(xs), len(want))
	}
	if _, ok, err := i.Xattr("user.absent"); ok || err != nil {
		t.Errorf("%s: Xattr(user.absent): %t, %v", path, ok, err)
	}
}

func checkData(t *testing.T, i *Inode, path string, mode uint32) {
	t.Helper()
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		checkNames(t, i, path)
	case unix.S_IFLNK:
		want, err := os.Readlink(path)
		if got, e := i.Target(); err != nil || e != nil || string(got) != want {
			t.Errorf("%s: target %q, want %q (%v, %v)", path, got, want, err, e)
		}
	case unix.S_IFREG:
		want, err := os.ReadFile(path)
		got, e := io.ReadAll(i.Data())
		if err != nil || e != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: data of %d bytes differ (%v, %v)", path, len(got), err, e)
		}
		part := make([]byte, 1000)
		for off := int64(0); off < int64(len(want)); off += 1 + int64(len(want))/37 {
			n, err := i.ReadAt(part, off)
			if !bytes.Equal(part[:n], want[off:min(off+1000, int64(len(want)))]) || (err == nil) != (n == 1000) {
				t.Fatalf("%s: %d bytes at %d: %v", path, n, off, err)
			}
		}
	default:
		if _, err := i.ReadAt(make([]byte, 1), 0); err == nil {
			t.Errorf("%s: can be read", path)
		}
	}
}

func checkNames(t *testing.T, i *Inode, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, e := range entries {
		want = append(want, e.Name())
	}
	for d, err := range i.Dirents() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Name)
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("%s: names %q, want %q", path, got, want)
	}
	for _, name := range []string{"", "+", "absent", "~~~", strings.Repeat("x", 300), "a\x00"} {
		if _, err := i.Lookup(name); err != fs.ErrNotExist {
			t.Errorf("%s: lookup of %q: %v", path, name, err)
		}
	}
}

// checkTree looks at what ReadTree adds to the image: hard links, digests.
func checkTree(t *testing.T, tr *tree.Tree, src string) {
	t.Helper()
	find := func(path string) tree.Node {
		n := tree.Root
		for name := range strings.SplitSeq(path, "/") {
			var ok bool
			if n, ok = tr.Lookup(n, []byte(name)); !ok {
				t.Fatalf("%s is not in the tree", path)
			}
		}
		return n
	}
	if n := find("zz"); n != find("sizes/4097") || tr.Path(n) != "/a/b/link" || tr.Attr(n).Nlink != 3 {
		t.Errorf("hard links: home %s, nlink %d", tr.Path(n), tr.Attr(n).Nlink)
	}
	for _, name := range []string{"sizes/65", "sizes/4096", "sizes/4097", "sizes/300000", "hole"} {
		data, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		want := fsverity.Sum(fsverity.SHA256, data)
		if n := find(name); tr.Digest(n) != want || string(tr.Payload(n)) != want.ObjectPath() {
			t.Errorf("%s: digest %v, want %v", name, tr.Digest(n), want)
		}
	}
	if got := tr.Content(find("sizes/64")); !bytes.Equal(got, pattern(64)) {
		t.Errorf("sizes/64: content %x", got)
	}
	if got := string(tr.Target(find("short"))); got != "a/b" {
		t.Errorf("short: target %q", got)
	}
}
