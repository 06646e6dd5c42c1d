package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
	"github.com/flatroot/flatroot/store/stream"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// privateMounts gives the calling thread, and with it the test, a mount
// namespace that ends with it.
func privateMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the runtime ends the thread
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func needMounts(t *testing.T) {
	t.Helper()
	testenv.Need(t, "root", "mount", "erofs", "overlay", "loop")
	privateMounts(t)
}

var content = bytes.Repeat([]byte("flatroot "), 1000)

// fixture is a store that has one image, /file backed by an object, under two
// names: os:1 as a pull makes it, and dump as one without layers.
type fixture struct {
	dir    string
	digest fsverity.Digest
	image  string // path of the image's object
	target string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s := storetest.New(t, store.InitOptions{})
	object := fsverity.Sum(fsverity.SHA256, content)
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	n, err := tr.Add(tree.Root, []byte("file"), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(len(content))})
	must(t, err)
	must(t, tr.SetObject(n, object))
	var image bytes.Buffer
	sum, err := erofs.Write(&image, tr, erofs.WriteOptions{})
	must(t, err)
	put(t, s, content)
	f := &fixture{dir: s.Dir(), digest: put(t, s, image.Bytes()), target: t.TempDir()}
	if f.digest != sum.Digest {
		t.Fatalf("image is %v, writer says %v", f.digest, sum.Digest)
	}
	f.image = filepath.Join(f.dir, "objects", f.digest.ObjectPath())
	f.name(t, s)
	return f
}

func put(t *testing.T, s *store.Store, b []byte) fsverity.Digest {
	t.Helper()
	d := fsverity.Sum(fsverity.SHA256, b)
	_, err := s.PutObject(d, b)
	must(t, err)
	return d
}

func putStream(t *testing.T, s *store.Store, ct stream.ContentType, name string, id fsverity.Digest) fsverity.Digest {
	t.Helper()
	w := stream.NewWriter(fsverity.SHA256, ct, stream.WriterOptions{})
	defer w.Close()
	must(t, w.NamedRef(name, id))
	var b bytes.Buffer
	_, err := w.WriteTo(&b)
	must(t, err)
	return put(t, s, b.Bytes())
}

func (f *fixture) name(t *testing.T, s *store.Store) {
	t.Helper()
	link := func(k store.Kind, name string, d fsverity.Digest) {
		_, err := s.Link(k, name, d)
		must(t, err)
	}
	config := putStream(t, s, stream.OCIConfig, stream.ImageV1, f.digest)
	manifest := putStream(t, s, stream.OCIManifest, stream.ConfigPrefix+"sha256:0", config)
	noImage := putStream(t, s, stream.OCIConfig, "layer", f.digest)
	bare := putStream(t, s, stream.OCIManifest, stream.ConfigPrefix+"sha256:1", noImage)
	link(store.Images, f.digest.String(), f.digest)
	link(store.Streams, "oci-manifest-sha256:0", manifest)
	link(store.Streams, "oci-manifest-sha256:1", bare)
	must(t, s.SetRef(store.Streams, "oci/os:1", "oci-manifest-sha256:0"))
	must(t, s.SetRef(store.Streams, "oci/host%2Fos:2", "oci-manifest-sha256:0"))
	must(t, s.SetRef(store.Streams, "oci/bare", "oci-manifest-sha256:1"))
	must(t, s.SetRef(store.Images, "dump", f.digest.String()))
}

// call runs the helper in this process.
func call(name string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{name}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func (f *fixture) check(t *testing.T, what string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.target, "file"))
	if err != nil || !bytes.Equal(b, content) {
		t.Errorf("%s: file has %d bytes, %v", what, len(b), err)
	}
}

func TestMount(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	objects := filepath.Join(f.dir, "objects")
	hex := f.digest.String()
	for _, args := range [][]string{
		{"/sbin/mount.flatroot", "os:1", "DIR", "-o", "store=" + f.dir},
		{"mount.flatroot", "host/os:2", "DIR", "-o", "rw,store=" + f.dir},
		{"mount.flatroot", "dump", "DIR", "-o", "ro,store=" + f.dir + ",verity=off"},
		{"mount.flatroot", "-o", "store=" + f.dir, hex, "DIR", "-sn"},
		{"mount.flatroot", strings.ToUpper(hex), "DIR", "-o", "store=" + f.dir + ",digest=" + hex},
		{"mount.flatroot", f.image, "DIR", "-o", "store=" + f.dir},
		{"mount.flatroot", f.image, "DIR", "-o", "basedir=" + objects + ",digest=" + hex, "-t", "flatroot.x"},
		{"mount.flatroot", f.image, "DIR", "-o", "basedir=" + t.TempDir() + ":" + objects + ",mode=native"},
		{"mount.flatroot", "os:1", "DIR", "-o", "ro,mode=hybrid,store=" + f.dir},
		{"mount.flatroot", "os:1", "DIR", "-o", "ro,mode=fuse,verity,store=" + f.dir},
		{"mount.flatroot", f.image, "DIR", "-o", "ro,mode=fuse,passthrough,verity=off,basedir=" + objects},
		{"mount.composefs", f.image, "DIR", "-o", "basedir=" + objects, "-t", "composefs"},
		{"mount.composefs", f.image, "DIR", "-o", "verity,mode=fuse,basedir=" + objects + ",digest=" + hex},
		{"mount.composefs", f.image, "DIR", "-o", "ro,tryverity,basedir=" + objects},
		{"mount.composefs", "os:1", "DIR", "-o", "tryverity,verity=auto,store=" + f.dir},
	} {
		args[indexOf(args, "DIR")] = f.target
		code, stdout, stderr := call(args[0], args[1:]...)
		if code != 0 || stdout != "" || !onlyNotes(stderr) {
			t.Errorf("%q: exit %d %q %q", args, code, stdout, stderr)
			continue
		}
		f.check(t, strings.Join(args, " "))
		must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
	}
}

// onlyNotes says that a successful mount said no more than what it should: that
// it is weaker than it could be, as it is without fs-verity, or read-only.
func onlyNotes(stderr string) bool {
	for line := range strings.Lines(stderr) {
		weaker := strings.HasPrefix(line, "mount.flatroot: ") && strings.Contains(line, "not checked")
		if !weaker && !strings.Contains(line, "is mounted read-only") {
			return false
		}
	}
	return true
}

func indexOf(args []string, s string) int {
	for i, a := range args {
		if a == s {
			return i
		}
	}
	return -1
}

func TestDefaultStore(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	t.Setenv("FLATROOT_STORE", f.dir)
	if code, _, stderr := call("mount.flatroot", "os:1", f.target); code != 0 {
		t.Fatal(stderr)
	}
	f.check(t, "default store")
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
}

func TestFailures(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	other := fsverity.Sum(fsverity.SHA256, []byte("other")).String()
	object := fsverity.Sum(fsverity.SHA256, content).String()
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, bytes.Repeat([]byte("text\n"), 999), 0o644))
	withStore := "store=" + f.dir
	for _, row := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"os:1", f.target, "-o", "stoer=/x"}, 1, "did you mean store?"},
		{[]string{"os:1"}, 1, "no directory to mount os:1 on"},
		{[]string{"os:9", f.target, "-o", withStore}, 32, "no image named os:9"},
		{[]string{"bare", f.target, "-o", withStore}, 32, "no EROFS image"},
		{[]string{"@bad", f.target, "-o", withStore}, 1, "no possible name"},
		{[]string{other, f.target, "-o", withStore}, 32, "has no image " + other},
		{[]string{object, f.target, "-o", withStore}, 32, "has no image " + object},
		{[]string{"os:1", f.target, "-o", withStore + ",digest=" + other}, 32, "not " + other},
		{[]string{"os:1", f.target, "-o", "store=/nowhere"}, 32, "/nowhere"},
		{[]string{"os:1", f.target + "/none", "-o", withStore}, 32, "bad mount point"},
		{[]string{"os:1", text, "-o", withStore}, 32, "not a directory"},
		{[]string{f.image, f.target, "-o", withStore + ",digest=" + other}, 32, "not " + other},
		{[]string{f.image, f.target, "-o", "basedir=/nowhere"}, 32, "open object directory"},
		{[]string{f.image, f.target, "-o", "basedir=" + text}, 32, "open object directory"},
		{[]string{text, f.target, "-o", withStore}, 32, "not an EROFS image"},
		{[]string{"/nowhere", f.target, "-o", withStore}, 32, "open image"},
		{[]string{f.image, f.target, "-o", withStore + ",verity"}, 32, "give digest=HEX"},
		{[]string{"os:1", f.target, "-o", withStore + ",mode=fuse,log=/nowhere/log"}, 32, "open log /nowhere/log"},
		{[]string{"os:1", f.target, "-o", withStore + ",upperdir=/u"}, 1, "upperdir needs workdir"},
		{[]string{"os:1", f.target, "-o", withStore + ",upperdir=/nowhere,workdir=/w"}, 32, "option upperdir"},
		{[]string{"os:1", f.target, "-o", withStore + ",idmap=/nowhere"}, 32, "option idmap"},
		{[]string{"os:1", f.target, "-o", withStore + ",remount,ro"}, 1, "unmount and mount again"},
		{[]string{f.image, f.target, "-o", withStore + ",mode=native,basedir=" + f.dir}, 32, "lies within another"},
		{[]string{"os:1", f.target, "-o", withStore, "-N", "/nowhere"}, 32, "open mount namespace"},
	} {
		code, stdout, stderr := call("mount.flatroot", row.args...)
		if code != row.code || stdout != "" || !strings.Contains(stderr, row.text) {
			t.Errorf("%q: exit %d, want %d with %q: %s", row.args, code, row.code, row.text, stderr)
		}
		if !strings.HasPrefix(stderr, "mount.flatroot: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: not one line: %q", row.args, stderr)
		}
	}
	nothingMounted(t, f.target)
}

func nothingMounted(t *testing.T, target string) {
	t.Helper()
	list, err := mount.List()
	must(t, err)
	for _, m := range list {
		if m.Target == target {
			t.Errorf("mounted: %+v", m)
		}
	}
}

// TestComposefsFailures: one exit code for all, and no default store.
func TestComposefsFailures(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	t.Setenv("FLATROOT_STORE", f.dir)
	for _, args := range [][]string{
		{f.image, f.target},
		{f.image, f.target, "-o", "nosuch"},
		{"/nowhere", f.target, "-o", "basedir=" + f.dir},
		{"os:1", f.target, "-o", "basedir=" + f.dir},
		{f.image, f.target, "-o", "digest=" + strings.Repeat("0", 64) + ",basedir=" + f.dir},
	} {
		code, _, stderr := call("/usr/sbin/mount.composefs", args...)
		if code != 1 || !strings.HasPrefix(stderr, "mount.composefs: ") {
			t.Errorf("%q: exit %d: %s", args, code, stderr)
		}
	}
	nothingMounted(t, f.target)
}

func TestFakeAndVerbose(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-fv", "-o", "nodev,mode=native,store="+f.dir)
	if code != 0 || !strings.Contains(stderr, "mode native") || !strings.Contains(stderr, "ro nodev") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	nothingMounted(t, f.target)
	code, _, stderr = call("mount.flatroot", "os:1", f.target, "-v", "-o", "store="+f.dir)
	if code != 0 || !strings.Contains(stderr, "the image has the digest asked for") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
}

// bareDev leaves nothing in /dev but null, and a FUSE device that opens for
// nobody but root if there shall be one.
func bareDev(t *testing.T, fuse bool) {
	t.Helper()
	must(t, unix.Mount("tmpfs", "/dev", "tmpfs", 0, "mode=0755"))
	device := func(name string, mode uint32, major, minor uint32) {
		must(t, unix.Mknod("/dev/"+name, unix.S_IFCHR|mode, int(unix.Mkdev(major, minor))))
	}
	device("null", 0o666, 1, 3)
	if fuse {
		device("fuse", 0o600, 10, 229) // FUSE_MINOR of linux/miscdevice.h
	}
}

func TestNoFUSE(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	bareDev(t, false)
	for _, options := range []string{"mode=fuse", "mode=hybrid", "mode=fuse,passthrough"} {
		code, stdout, stderr := call("mount.flatroot", "os:1", f.target, "-o", options+",store="+f.dir)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, "modprobe fuse") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d: %s%s", options, code, stdout, stderr)
		}
	}
	// What else can be had is had.
	if code, _, stderr := call("mount.flatroot", "os:1", f.target, "-v", "-o", "ro,store="+f.dir); code != 0 || !strings.Contains(stderr, "mode native") {
		t.Errorf("auto: exit %d: %s", code, stderr)
	}
	must(t, mount.Unmount(f.target, mount.UnmountOptions{}))
}

// TestNoNamespace: a user without rights, and without fusermount3, whose FUSE
// device opens for nobody.
func TestNoNamespace(t *testing.T) {
	needMounts(t)
	testenv.Need(t, "fuse")
	f := newFixture(t)
	bareDev(t, true)
	t.Setenv("PATH", "/nowhere")
	if _, err := os.Stat("/usr/bin"); err == nil { // where fusermount3 would be found all the same
		must(t, unix.Mount("tmpfs", "/usr/bin", "tmpfs", 0, "mode=0755"))
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	must(t, unix.Capset(&header, &none[0]))
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-o", "store="+f.dir)
	for _, text := range []string{"native mounts need root", "hybrid mounts need root, or a user namespace", "there is no fusermount3",
		"unshare -Urm", "install the package fuse3"} {
		if !strings.Contains(stderr, text) {
			t.Errorf("no %q in %s", text, stderr)
		}
	}
	if code != exitUsage || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestNoProc: an initramfs that has not come so far yet.
func TestNoProc(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	must(t, unix.Unmount("/proc", unix.MNT_DETACH))
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-o", "store="+f.dir)
	if code != exitSystem || stderr != "mount.flatroot: /proc is not mounted: mount it first (mount -t proc proc /proc)\n" {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestUsageText(t *testing.T) {
	for _, name := range []string{"mount.flatroot", "mount.composefs"} {
		code, stdout, stderr := call("/x/"+name, "--help")
		if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "usage: "+name+" SPEC DIR") {
			t.Errorf("%s: exit %d %q %q", name, code, stdout, stderr)
		}
	}
}

// TestUnprivileged drops the thread's capabilities.
func TestUnprivileged(t *testing.T) {
	f := newFixture(t)
	runtime.LockOSThread() // never unlocked: capabilities are the thread's
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData // 64 capabilities, in two words
	must(t, unix.Capset(&header, &none[0]))
	// Other modes may be had, by fusermount3.
	code, _, stderr := call("mount.flatroot", "os:1", f.target, "-o", "mode=native,store="+f.dir)
	if code != exitUsage || !strings.Contains(stderr, "need root") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestNamespace mounts into the namespace of another thread.
func TestNamespace(t *testing.T) {
	needMounts(t)
	f := newFixture(t)
	path := make(chan string)
	done := make(chan struct{})
	seen := make(chan bool)
	go func() {
		defer close(seen)
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		ns, openErr := os.Open("/proc/thread-self/ns/mnt")
		if err != nil || openErr != nil {
			t.Errorf("other namespace: %v, %v", err, openErr)
			close(path)
			return
		}
		defer ns.Close()
		path <- mountPath(ns)
		<-done
		_, err = os.Stat(filepath.Join(f.target, "file"))
		seen <- err == nil
	}()
	ns, ok := <-path
	if !ok {
		return
	}
	// A goroutine of its own, since its thread stays in the other namespace.
	result := make(chan string)
	go func() {
		code, _, stderr := call("mount.flatroot", "os:1", f.target, "-N", ns, "-o", "store="+f.dir)
		if code == 0 {
			stderr = ""
		}
		result <- stderr
	}()
	if stderr := <-result; stderr != "" {
		t.Error(stderr)
	}
	close(done)
	if !<-seen {
		t.Error("the other namespace has no mount")
	}
	nothingMounted(t, f.target)
}

func mountPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
