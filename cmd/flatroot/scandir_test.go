package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tree"
	"github.com/flatroot/flatroot/tree/dump"
)

// makeEverything makes a directory with all that a directory can hold here: as root also devices and the xattrs that only
// root can set.
func makeEverything(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	m := maker{t, dir}
	for i, size := range []int{0, 1, 63, 64, 65, 4095, 4096, 4097, 128 * 4096, 128*4096 + 1, 1 << 20} {
		m.file("size/"+string(rune('a'+i)), size)
	}
	m.file("same/one", 5000)
	m.file("same/two", 5000)
	m.file("name/ sp ace", 10)
	m.file("name/new\nline", 100)
	m.file("name/\xff\xfe=\\", 100)
	m.file("name/-", 1)
	m.file(strings.Repeat("deep/", 60)+"down", 70)
	m.file("00", 70)
	m.do(os.Symlink("some where\n", dir+"/symlink"))
	m.do(os.Symlink(strings.Repeat("x", 4000), dir+"/long"))
	m.do(os.Link(dir+"/size/f", dir+"/another"))
	m.do(unix.Mkfifo(dir+"/fifo", 0o640))
	m.do(os.Chmod(dir+"/size/a", 0o4755|os.ModeSetuid))
	m.do(os.MkdirAll(dir+"/empty", 0o700))
	m.socket("s")
	m.xattr("size/e", "user.one", "1")
	m.xattr("size/f", "user.one", "1")
	m.xattr("size", "user.binary", "\x00\xff\x00")
	m.xattr(".", "user.empty", "")
	m.xattr("size/g", "system.posix_acl_access", acl())
	m.xattr("empty", "system.posix_acl_default", acl())
	if os.Geteuid() == 0 {
		m.asRoot()
	}
	m.times()
	return dir
}

type maker struct {
	t   *testing.T
	dir string
}

func (m maker) do(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m maker) file(name string, size int) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	m.do(os.MkdirAll(filepath.Dir(path), 0o755))
	m.do(os.WriteFile(path, bytes.Repeat([]byte("content "), size/8+1)[:size], 0o644))
}

func (m maker) xattr(name, key, value string) {
	m.t.Helper()
	if err := unix.Lsetxattr(filepath.Join(m.dir, name), key, []byte(value), 0); !errors.Is(err, unix.ENOTSUP) {
		m.do(err)
	}
}

func (m maker) socket(name string) {
	m.t.Helper()
	// A socket's path is short; the temporary directory's may not be.
	m.t.Chdir(m.dir)
	l, err := net.Listen("unix", name)
	m.do(err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	m.do(l.Close())
}

func (m maker) asRoot() {
	m.t.Helper()
	m.do(unix.Mknod(m.dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	m.do(unix.Mknod(m.dir+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
	m.do(unix.Mknod(m.dir+"/size/whiteout", unix.S_IFCHR|0o600, 0))
	m.do(os.Lchown(m.dir+"/symlink", 70000, 80000))
	m.xattr("size/h", "trusted.mine", "yes")
	m.xattr("empty", "trusted.overlay.opaque", "y")
	m.xattr("symlink", "trusted.on.a.link", "x")
	m.xattr("null", "trusted.on.a.device", "x")
	// VFS_CAP_REVISION_2 with cap_net_raw permitted.
	m.xattr("size/i", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
}

// times gives every file a time with nanoseconds, some before 1970.
func (m maker) times() {
	m.t.Helper()
	i := int64(0)
	m.do(filepath.Walk(m.dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		i++
		ts := []unix.Timespec{{}, {Sec: 1e9*i%7 - 1, Nsec: i * 1001}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// acl is rw for the owner and, of others, r for user 7 (struct posix_acl_xattr_header and entries).
func acl() string {
	b := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	for _, e := range [][3]int64{{1, 6, -1}, {2, 4, 7}, {4, 4, -1}, {16, 4, -1}, {32, 4, -1}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(e[2]))
	}
	return string(b)
}

func dumpOf(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	if err := dump.Write(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestScanDir(t *testing.T) {
	dir := t.TempDir()
	m := maker{t, dir}
	m.file("d/small", 64)
	m.file("d/large", 65)
	m.file("d/none", 0)
	m.do(os.Symlink("to/where", dir+"/l"))
	m.do(os.Link(dir+"/d/large", dir+"/z"))
	m.do(os.Link(dir+"/l", dir+"/l2"))
	m.do(os.Chmod(dir, 0o755))
	large := fsverity.Sum(fsverity.SHA256, bytes.Repeat([]byte("content "), 9)[:65])
	tr, err := scanDir(dir, scanOptions{epoch: true, skipXattrs: true})
	m.do(err)
	got := dumpOf(t, tr)
	for _, want := range []string{
		"/d/large 65 100644 1 ", " 0 0.0 " + large.ObjectPath() + " - " + large.String() + "\n",
		"/d/small 64 100644 1 ", "/d/none 0 100644 1 ", "/z 65 100644 1 ",
		"/l 8 120777 1 ", " 0 0.0 to/where - -\n", "/l2 8 120777 1 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestScanDirErrors has the pool stop without a goroutine left behind or a descriptor open.
func TestScanDirErrors(t *testing.T) {
	dir := t.TempDir()
	m := maker{t, dir}
	for i := range 100 {
		m.file("d/f"+strings.Repeat("x", i+1), 100)
	}
	broken := errors.New("broken")
	if _, err := scanDir(dir, scanOptions{keep: func(*os.File, fsverity.Digest) error { return broken }}); !errors.Is(err, broken) ||
		!strings.Contains(err.Error(), "d/fx") {
		t.Errorf("got %v", err)
	}
	before := openFiles(t)
	for range 3 {
		_, _ = scanDir(dir, scanOptions{threads: 3, keep: func(*os.File, fsverity.Digest) error { return broken }})
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, before it were %d", after, before)
	}
	if _, err := scanDir(filepath.Join(dir, "none"), scanOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestReadAll(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "f"), "12345")
	for size, ok := range map[int64]bool{5: true, 4: false, 6: false} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := readAll(f, size)
		if (err == nil) != ok || ok && string(b) != "12345" {
			t.Errorf("of %d bytes: %q, %v", size, b, err)
		}
		if _, err := hashSized(f, 5); !errors.Is(err, errSizeChanged) {
			t.Errorf("hash of what is left: %v", err)
		}
		f.Close()
	}
}

func TestStoreObject(t *testing.T) {
	store := filepath.Join(t.TempDir(), "a/store")
	f, err := os.Open(writeFile(t, filepath.Join(t.TempDir(), "f"), "content"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := fsverity.Sum(fsverity.SHA256, []byte("content"))
	path := filepath.Join(store, d.ObjectPath())
	if err := storeObject(store, f, d); err != nil || string(read(t, path)) != "content" {
		t.Fatalf("stored %q: %v", read(t, path), err)
	}
	before, err := os.Stat(path)
	if err != nil || before.Mode() != 0o644 {
		t.Fatalf("mode %v: %v", before.Mode(), err)
	}
	time.Sleep(10 * time.Millisecond)
	if err := storeObject(store, f, d); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || after.ModTime() != before.ModTime() {
		t.Errorf("an object that was there is another now: %v", err)
	}
	other := fsverity.Sum(fsverity.SHA256, []byte("other"))
	if err := storeObject(store, f, other); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("content of another digest: %v", err)
	}
	if list := listFiles(t, store); strings.Contains(list, ".tmp") || strings.Contains(list, other.String()[2:]) {
		t.Errorf("left behind:\n%s", list)
	}
}
