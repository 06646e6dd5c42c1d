package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
)

// fakeProc is a tree like that of proc, as far as Mounted looks at it.
type fakeProc struct {
	t   *testing.T
	dir string
}

const rootLine = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"

// newFakeProc has one process, with nothing mounted but the root.
func newFakeProc(t *testing.T) *fakeProc {
	t.Helper()
	p := &fakeProc{t, t.TempDir()}
	p.link("self/ns/pid", initPIDs)
	p.task("1/task/1", "mnt:[1]", "/", rootLine)
	return p
}

func (p *fakeProc) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) link(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	p.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p.must(os.RemoveAll(path))
	p.must(os.Symlink(text, path))
}

func (p *fakeProc) task(name, space, root, mountinfo string) {
	p.t.Helper()
	p.link(name+"/ns/mnt", space)
	p.link(name+"/root", root)
	p.must(os.WriteFile(filepath.Join(p.dir, name, "mountinfo"), []byte(mountinfo), 0o644))
}

// look returns what Mounted would.
func (p *fakeProc) look() (images []string, complete bool) {
	p.t.Helper()
	s := newSearch(p.dir)
	p.must(s.run())
	for d := range s.images {
		images = append(images, d.String())
	}
	slices.Sort(images)
	return images, !s.unsure
}

func overlayLine(id int, source string) string {
	return fmt.Sprintf("%d 22 0:40 / /mnt/%d ro,relatime - overlay %s ro\n", id, id, source)
}

// hexN is a digest that is easy to tell from others.
func hexN(n int) string { return fmt.Sprintf("%064x", n) }

func oursN(n int) string { return overlayLine(100+n, "flatroot:"+hexN(n)+":native:kernel:kernel") }

func TestMountedViews(t *testing.T) {
	p := newFakeProc(t)
	chrooted := t.TempDir()
	p.task("20/task/20", "mnt:[5]", "/", rootLine+oursN(7))
	p.task("40/task/40", "mnt:[5]", "/", rootLine+oursN(8)) // the same view, in which the kernel would show the same
	p.task("20/task/21", "mnt:[2]", "/", rootLine+oursN(2))
	p.task("30/task/30", "mnt:[1]", chrooted, rootLine+oursN(3))
	p.task("30/task/31", "mnt:[3]", "/", rootLine+oursN(4)+"71 22 0:41 / /f rw - fuse.flatroot flatroot:"+hexN(5)+":fuse:blocks:user rw\n")
	p.task("41/task/41", "mnt:[6]", "/", overlayLine(80, "composefs:"+hexN(9))+overlayLine(81, "composefs")+
		overlayLine(82, "composefs:os")+overlayLine(83, "flatroot:-:native:once:user")+"84 22 0:9 / / rw - tmpfs composefs:"+hexN(10)+" rw\n")
	p.task("x/task/1", "mnt:[4]", "/", rootLine+oursN(6))
	oneOf := func(hex string) bool { return hex == hexN(7) || hex == hexN(8) }
	images, complete := p.look()
	if want := []string{hexN(2), hexN(3), hexN(4), hexN(5), hexN(9)}; len(images) != 6 || !slices.Equal(slices.DeleteFunc(images, oneOf), want) || !complete {
		t.Errorf("%v, %v; want %v and one of 7 and 8", images, complete, want)
	}
}

// TestMountedUnsure: what makes it unsure that no other image is mounted, and what doesn't.
func TestMountedUnsure(t *testing.T) {
	mounts := func(line string) func(*fakeProc) {
		return func(p *fakeProc) {
			p.task("7/task/7", "mnt:[7]", "/", rootLine+line)
		}
	}
	for name, c := range map[string]struct {
		make     func(*fakeProc)
		complete bool
	}{
		"nothing":              {func(*fakeProc) {}, true},
		"other PID namespace":  {func(p *fakeProc) { p.link("self/ns/pid", "pid:[4026532000]") }, false},
		"proc of another":      {func(p *fakeProc) { p.must(os.RemoveAll(p.dir + "/self")) }, false},
		"first process hidden": {func(p *fakeProc) { p.must(os.RemoveAll(p.dir + "/1")); p.task("2/task/2", "mnt:[1]", "/", rootLine) }, false},
		"tasks always new":     {func(p *fakeProc) { p.must(os.Mkdir(p.dir+"/9", 0o755)) }, false},
		"task that has ended":  {func(p *fakeProc) { p.must(os.MkdirAll(p.dir+"/9/task/9", 0o755)) }, true},
		"unreadable":           {func(p *fakeProc) { p.must(os.MkdirAll(p.dir+"/9/task/9/mountinfo", 0o755)) }, false},
		"not understood":       {mounts("what is this\n"), false},
		"other's links":        {func(p *fakeProc) { mounts("")(p); p.must(os.RemoveAll(p.dir + "/7/task/7/ns")) }, true},
		"other's links, chroot": {func(p *fakeProc) {
			p.task("7/task/7", "mnt:[7]", "/", "")
			p.must(os.RemoveAll(p.dir + "/7/task/7/ns"))
		}, false},
		"namespace file, empty":  {mounts("71 22 0:4 mnt:[99] /run/ns rw - nsfs nsfs rw\n"), false},
		"namespace file, seen":   {mounts("71 22 0:4 mnt:[1] /run/ns rw - nsfs nsfs rw\n"), true},
		"network namespace file": {mounts("71 22 0:4 net:[99] /run/ns rw - nsfs nsfs rw\n"), true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newFakeProc(t)
			c.make(p)
			if _, complete := p.look(); complete != c.complete {
				t.Errorf("complete should be %v", c.complete)
			}
		})
	}
}

// TestMountedChroot: a task whose root lies within a mount doesn't see it listed; it
// may be known by another.
func TestMountedChroot(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st))
	p := newFakeProc(t)
	p.task("7/task/7", "mnt:[7]", dir, "")
	if _, complete := p.look(); complete != (st.Dev_major != 0) {
		t.Errorf("complete: %v, with a root on device %d:%d", complete, st.Dev_major, st.Dev_minor)
	}
	p.task("8/task/8", "mnt:[8]", "/", rootLine+fmt.Sprintf("%d 22 0:9 / /x rw - tmpfs x rw\n", st.Mnt_id))
	if _, complete := p.look(); !complete {
		t.Error("the mount of that root is listed, but was not found")
	}
	p.must(os.Remove(p.dir + "/7/task/7/root"))
	p.link("7/task/7/root", p.dir+"/gone")
	if _, complete := p.look(); complete {
		t.Error("a root that can't be looked at")
	}
}

func TestMountedLost(t *testing.T) {
	for err, gone := range map[error]bool{
		unix.ENOENT: true, unix.ESRCH: true, unix.EINVAL: true,
		unix.EACCES: false, unix.EPERM: false, unix.EIO: false, errors.New("mountinfo line 1: none"): false,
	} {
		s := newSearch("")
		s.lost(&os.PathError{Op: "open", Path: "x", Err: err})
		if s.missed != gone || s.unsure == gone {
			t.Errorf("%v: missed %v, unsure %v", err, s.missed, s.unsure)
		}
	}
}

func TestMountedNoProc(t *testing.T) {
	file := t.TempDir() + "/file"
	must(t, os.WriteFile(file, nil, 0o644))
	if err := newSearch(file).run(); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v", err)
	}
	if s := newSearch(file[:len(file)-4] + "none"); s.run() != nil || !s.unsure {
		t.Error("without proc nothing is known, which is no error")
	}
}

// TestMountedElsewhere: mounts in the namespaces of another process and of a mere thread
// are seen as long as these are there.
func TestMountedElsewhere(t *testing.T) {
	testenv.Need(t, "root", "mount", "overlay", "unshare")
	dir := t.TempDir()
	a, b := fsverity.Sum(fsverity.SHA256, []byte(dir)), fsverity.Sum(fsverity.SHA512, []byte(dir))
	check := func(d fsverity.Digest, want bool) {
		t.Helper()
		images, _, err := Mounted()
		must(t, err)
		if images[d] != want {
			t.Errorf("%v: mounted should be %v", d, want)
		}
	}
	stopA := start(t, exec.Command("unshare", "-m", "sh", "-c",
		"mount -t overlay flatroot:"+a.String()+":native:once:unchecked -o lowerdir=/bin:"+dir+" "+dir+" && echo up && exec cat >&2"))
	mounted, stopB := make(chan error), make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("flatroot:"+b.String()+":native:once:unchecked", dir, "overlay", 0, "lowerdir=/bin:"+dir)
		}
		mounted <- err
		<-stopB
		mounted <- unix.Unmount(dir, 0)
	}()
	must(t, <-mounted)
	check(a, true)
	check(b, true)
	stopA()
	check(a, false)
	check(b, true)
	close(stopB)
	must(t, <-mounted)
	check(b, false)
}

// start runs a command until stop, which closes its standard input; it is ready when it says a line.
func start(t *testing.T, c *exec.Cmd) (stop func()) {
	t.Helper()
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	stop = func() {
		in.Close()
		_ = c.Wait()
	}
	t.Cleanup(stop)
	if n, err := out.Read(make([]byte, 64)); n == 0 {
		t.Fatalf("%v said nothing: %v", c.Args, err)
	}
	return stop
}
