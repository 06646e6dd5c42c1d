package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/testenv"
)

// alice is an ordinary user, by number.
const alice = 1000

// liveWorld has a store, and the program flatroot as root or a user runs it.
type liveWorld struct {
	t          *testing.T
	dir, store string
	user       int
}

func newLiveWorld(t *testing.T) *liveWorld {
	t.Helper()
	testenv.Need(t, "root", "mount", "fuse")
	// Not t.TempDir, which has the test's name in it: a comma would end the option store=.
	dir, err := os.MkdirTemp("", "flatroot-live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // which ends mounts on directories in it, also in other namespaces
	w := &liveWorld{t: t, dir: dir, store: dir + "/store"}
	w.must(os.Chmod(dir, 0o755))
	w.must(os.Mkdir(w.dir+"/m", 0o755))
	return w
}

func (w *liveWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// forUser gives all to alice, who may use FUSE.
func (w *liveWorld) forUser() {
	w.user = alice
	for _, d := range []string{w.dir, w.dir + "/m"} {
		w.must(os.Chown(d, alice, alice))
	}
	node := w.dir + "/fuse"
	w.must(unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229)))) // Documentation/admin-guide/devices.txt
	w.must(os.Chmod(node, 0o666))
	if f, err := os.OpenFile(node, os.O_RDWR, 0); err != nil {
		w.t.Skipf("skipped: needs a file system for temporary files on which devices work: %v", err)
	} else {
		f.Close()
	}
	w.must(unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""))
	w.t.Cleanup(func() { w.must(unix.Unmount("/dev/fuse", unix.MNT_DETACH)) })
}

// command is flatroot, which this test program is by that name.
func (w *liveWorld) command(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Args = append([]string{"flatroot"}, args...)
	c.Dir = w.dir
	c.Env = append(os.Environ(), storeVariable+"="+w.store)
	if w.user != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.user), Gid: uint32(w.user)}}
	}
	return c
}

// run returns what a command printed; it must not fail.
func (w *liveWorld) run(args ...string) (stdout, stderr string) {
	w.t.Helper()
	return w.output(w.command(args...))
}

func (w *liveWorld) output(c *exec.Cmd) (stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		w.t.Fatalf("%q: %v: %s", c.Args, err, errs.String())
	}
	return out.String(), errs.String()
}

// tree makes a directory with files of which some are objects; all of them differ from those of any other test.
func (w *liveWorld) tree() string {
	w.t.Helper()
	dir := w.dir + "/tree"
	w.must(os.MkdirAll(dir+"/sub", 0o755))
	for i, n := range []int{0, 1, 64, 65, 4096, 4097, 100_000} {
		w.must(os.WriteFile(fmt.Sprintf("%s/sub/%d", dir, i), randomText(n), 0o644))
	}
	return dir
}

func randomText(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return b
}

// build makes a store with one image and returns its digest.
func (w *liveWorld) build() string {
	w.t.Helper()
	w.run("init")
	out, _ := w.run("build", "--name", "web", w.tree())
	return strings.TrimSpace(out)
}

// check compares all that is mounted with the tree that was built.
func (w *liveWorld) check(mounted string) {
	w.t.Helper()
	files := 0
	err := filepath.WalkDir(w.dir+"/tree", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(mounted + strings.TrimPrefix(path, w.dir+"/tree"))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s differs", path)
		}
		return err
	})
	if err != nil || files == 0 {
		w.t.Errorf("mount of %d files: %v", files, err)
	}
}

// gc collects garbage and returns how many images went and how many stay.
func (w *liveWorld) gc() (removed, kept int) {
	w.t.Helper()
	out, _ := w.run("gc", "--json")
	var r struct {
		Removed, Kept struct{ Images int }
	}
	w.must(json.Unmarshal([]byte(out), &r))
	return r.Removed.Images, r.Kept.Images
}

// gcAll collects until nothing is left. That may take more than once: while others start processes all the time, it is not
// sure what is mounted.
func (w *liveWorld) gcAll() {
	w.t.Helper()
	var left []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.gc()
		if left = w.left(); len(left) == 0 {
			return
		}
	}
	w.t.Errorf("left in the store: %q", left)
}

// left lists files in the store that belong to an image or a record.
func (w *liveWorld) left() (list []string) {
	for _, dir := range []string{"objects", "images", "streams"} {
		err := filepath.WalkDir(w.store+"/"+dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && (!e.IsDir() || e.Name() == "live") {
				list = append(list, path)
			}
			return err
		})
		w.must(err)
	}
	return list
}

func (w *liveWorld) records() []string {
	w.t.Helper()
	list, err := filepath.Glob(w.store + "/images/refs/flatroot/live/*/*")
	w.must(err)
	return list
}

// listed tells whether the mounts that flatroot knows of have one on m.
func (w *liveWorld) listed() bool {
	out, _ := w.run("mounts", "--json")
	return strings.Contains(out, strconv.Quote(w.dir+"/m"))
}

// keeps takes the name from a mounted image, and collects: nothing of it may go. Afterwards all of it goes.
func (w *liveWorld) keeps(umount func()) {
	w.t.Helper()
	w.run("rm", "web")
	w.run("gc", "--full")
	if _, kept := w.gc(); kept != 1 {
		w.t.Errorf("%d images are kept", kept)
	}
	w.check(w.dir + "/m") // for the first time, so that nothing is cached
	if !w.listed() {
		w.t.Error("the mount isn't listed")
	}
	umount()
	w.gcAll()
}

func TestLiveModes(t *testing.T) {
	testenv.Need(t, "root", "mount", "erofs", "overlay", "fuse")
	helper, err := buildHelper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"native", "hybrid", "hybrid,transient", "fuse", "fuse,passthrough"} {
		t.Run(mode, func(t *testing.T) {
			w := newLiveWorld(t)
			w.build()
			w.run("mount", "web", "m", "-o", "mode="+mode)
			if len(w.records()) != 1 {
				t.Errorf("records: %q", w.records())
			}
			w.keeps(func() { w.run("umount", "m") })
			digest := w.build()
			w.output(exec.Command(helper+"/mount.flatroot", digest, w.dir+"/m", "-o", "store="+w.store+",mode="+mode))
			w.keeps(func() { w.must(unix.Unmount(w.dir+"/m", 0)) })
		})
	}
}

// TestLivePath: an image mounted by its path is recorded if its digest is given and the store is known.
func TestLivePath(t *testing.T) {
	w := newLiveWorld(t)
	digest := w.build()
	image, copied := w.store+"/images/"+digest, w.dir+"/copy"
	content, err := os.ReadFile(image)
	w.must(err)
	w.must(os.WriteFile(copied, content, 0o644))
	for _, c := range []struct {
		path, options string
		recorded      bool
	}{
		{image, "digest=" + digest, true},
		{copied, "store=" + w.store + ",digest=" + digest, true},
		{image, "basedir=" + w.store + "/objects", false},
		{image, "noexec", false},
	} {
		w.run("mount", c.path, "m", "-o", "mode=fuse,"+c.options)
		if (len(w.records()) == 1) != c.recorded {
			t.Errorf("%s, %s: records %q", c.path, c.options, w.records())
		}
		w.check(w.dir + "/m")
		w.run("umount", "m")
		w.must(os.RemoveAll(w.store + "/images/refs"))
	}
	w.run("mount", copied, "m", "-o", "mode=fuse,digest="+digest)
	w.keeps(func() { w.run("umount", "m") })
}

// TestLiveTwice: with two mounts, one of them in another mount namespace, the image stays until the last has gone; one that
// fails changes nothing.
func TestLiveTwice(t *testing.T) {
	w := newLiveWorld(t)
	digest := w.build()
	w.must(os.Mkdir(w.dir+"/n", 0o755))
	w.run("mount", "web", "n", "-o", "mode=fuse")
	stop := w.hold(syscall.CLONE_NEWNS, "mount", "web", "m", "-o", "mode=fuse")
	w.run("rm", "web")
	if err := w.command("mount", digest, "nowhere").Run(); err == nil {
		t.Error("mounted nowhere")
	}
	w.run("umount", "n")
	if _, kept := w.gc(); kept != 1 || len(w.records()) != 1 {
		t.Errorf("%d images and records %q are kept", kept, w.records())
	}
	stop()
	w.gcAll()
}

// hold runs a command in new namespaces, where something stays until stop is called, which first compares what is mounted
// on m there.
func (w *liveWorld) hold(namespaces uintptr, args ...string) (stop func()) {
	w.t.Helper()
	const script = `flatroot "$@" && echo up && read go && diff -r tree m && flatroot umount m && echo same`
	c := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	like := w.command()
	c.Dir, c.Stderr = w.dir, os.Stderr
	c.Env = append(like.Env, "PATH="+filepath.Dir(w.link())+":"+os.Getenv("PATH"))
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: namespaces}
	if namespaces&syscall.CLONE_NEWUSER != 0 {
		c.SysProcAttr = userNamespace()
	}
	in, err := c.StdinPipe()
	w.must(err)
	out, err := c.StdoutPipe()
	w.must(err)
	w.must(c.Start())
	line := make([]byte, 64)
	says := func(want string) {
		w.t.Helper()
		if n, err := out.Read(line); string(line[:n]) != want+"\n" {
			in.Close()
			w.t.Fatalf("mount in other namespaces: said %q, want %s; %v, %v", line[:n], want, err, c.Wait())
		}
	}
	says("up")
	return func() {
		w.t.Helper()
		fmt.Fprintln(in)
		says("same")
		in.Close()
		w.must(c.Wait())
	}
}

// userNamespace is for a process that is root in user and mount namespaces of its own, and alice elsewhere.
func userNamespace() *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: alice, Size: 1}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{NoSetGroups: true},
	}
}

// link is a path to this program by the name flatroot, for any user.
func (w *liveWorld) link() string {
	w.t.Helper()
	exe, err := os.Executable()
	w.must(err)
	path := w.dir + "/flatroot"
	if err := os.Link(exe, path); err == nil || errors.Is(err, fs.ErrExist) {
		return path
	}
	b, err := os.ReadFile(exe)
	w.must(err)
	w.must(os.WriteFile(path, b, 0o755))
	return path
}

// TestLiveUser: a user's mount of a store of his own, in a user namespace of his own; he collects outside of it.
func TestLiveUser(t *testing.T) {
	w := newLiveWorld(t)
	w.forUser()
	w.build()
	stop := w.hold(syscall.CLONE_NEWUSER, "mount", "web", "m", "-o", "mode=fuse")
	w.run("rm", "web")
	if _, kept := w.gc(); kept != 1 || len(w.records()) != 1 {
		t.Errorf("%d images and records %q are kept", kept, w.records())
	}
	stop()
	w.gcAll()
}

// TestLiveFusermount: a user's mount by fusermount3.
func TestLiveFusermount(t *testing.T) {
	testenv.Peer(t, "fusermount3")
	w := newLiveWorld(t)
	w.forUser()
	w.build()
	w.run("mount", "web", "m")
	w.run("rm", "web")
	if _, kept := w.gc(); kept != 1 || len(w.records()) != 1 {
		t.Errorf("%d images and records %q are kept", kept, w.records())
	}
	w.run("umount", "m")
	w.gcAll()
}

// TestLiveUnwritable: where the store can't be written a mount is made nonetheless, and a gc that sees it spares it.
func TestLiveUnwritable(t *testing.T) {
	w := newLiveWorld(t)
	w.build()
	readOnly := w.dir + "/ro"
	w.must(os.Mkdir(readOnly, 0o755))
	w.must(unix.Mount(w.store, readOnly, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(readOnly, unix.MNT_DETACH) })
	w.must(unix.Mount("", readOnly, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if _, said := w.run("mount", "web", "m", "-o", "mode=fuse,store="+readOnly); strings.Contains(said, "record") {
		t.Errorf("on a read-only file system: %s", said)
	}
	if len(w.records()) != 0 {
		t.Errorf("records: %q", w.records())
	}
	w.keeps(func() { w.run("umount", "m") })
}

// TestLiveOthersStore: who mounts from another's store is told that it can't be recorded there.
func TestLiveOthersStore(t *testing.T) {
	w := newLiveWorld(t)
	w.build()
	w.forUser()
	w.must(os.Chmod(w.store, 0o755))
	var said bytes.Buffer
	c := w.command("mount", "web", "m", "-o", "mode=fuse")
	c.Stderr = &said
	c.SysProcAttr = userNamespace()
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if n := strings.Count(said.String(), "only a flatroot gc that sees this mount"); n != 1 {
		t.Errorf("said %d times in %s", n, said.String())
	}
}

// TestLiveForeground: a command that stays with its mount doesn't keep gc waiting.
func TestLiveForeground(t *testing.T) {
	w := newLiveWorld(t)
	w.build()
	c := w.command("mount", "web", "m", "--foreground", "-o", "mode=fuse")
	w.must(c.Start())
	for deadline := time.Now().Add(20 * time.Second); !w.listed(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't mount")
		}
	}
	w.keeps(func() {
		w.must(c.Process.Signal(syscall.SIGTERM))
		w.must(c.Wait())
	})
}

// TestLiveKilled kills a command at any moment while it mounts an image without a name: then either it is mounted and stays,
// or the next collection takes all of it.
func TestLiveKilled(t *testing.T) {
	testenv.Need(t, "root", "mount", "erofs", "overlay", "fuse")
	rounds := 8
	if testenv.Nightly() {
		rounds = 300
	}
	for _, mode := range []string{"native", "hybrid", "fuse"} {
		t.Run(mode, func(t *testing.T) {
			w := newLiveWorld(t)
			mounted := 0
			took := 20 * time.Millisecond
			for i := range rounds {
				digest := w.build()
				w.run("rm", "web")
				c := w.command("mount", digest, "m", "-o", "mode="+mode)
				start := time.Now()
				w.must(c.Start())
				if i > 0 { // the first tells how long it takes
					time.Sleep(time.Duration(rand.Int64N(int64(took))))
					w.must(c.Process.Kill())
				}
				_ = c.Wait()
				if i == 0 {
					took = time.Since(start) * 5 / 4
				}
				if w.listed() {
					mounted++
					if _, kept := w.gc(); kept != 1 {
						t.Fatalf("round %d: collected below a mount", i)
					}
					w.check(w.dir + "/m")
					w.run("umount", "m")
				}
				w.gcAll()
			}
			t.Logf("mounted %d times of %d, within %v", mounted, rounds, took)
		})
	}
}
