package mount

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// needMounts gives the test a mount namespace of its own, which ends with the
// test's thread: nothing that it mounts can be seen or stay behind.
func needMounts(t *testing.T) {
	t.Helper()
	testenv.Need(t, "root", "mount", "erofs", "overlay", "loop")
	runtime.LockOSThread() // never unlocked: the runtime ends the thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// tmpfs mounts one and returns its path.
func tmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// bigContent is more than an inline file may have, over several blocks.
var bigContent = bytes.Repeat([]byte("flatroot\n"), 3000)

// sample is a small store in a directory: one image, one object.
type sample struct {
	dir     string
	image   string
	object  string // path of the object
	objects string
	digest  fsverity.Digest
}

// newSample writes it: /big (backed, with an xattr), /inline, /link, /sub/tool
// (setuid), and with acl an ACL on /inline.
func newSample(t *testing.T, dir string, acl bool) *sample {
	t.Helper()
	s := &sample{dir: dir, image: filepath.Join(dir, "image"), objects: filepath.Join(dir, "objects")}
	d := fsverity.Sum(fsverity.SHA256, bigContent)
	s.object = filepath.Join(s.objects, d.ObjectPath())
	must(t, os.MkdirAll(filepath.Dir(s.object), 0o755))
	must(t, os.WriteFile(s.object, bigContent, 0o644))
	var b bytes.Buffer
	sum, err := erofs.Write(&b, sampleTree(t, d, acl), erofs.WriteOptions{})
	must(t, err)
	s.digest = sum.Digest
	must(t, os.WriteFile(s.image, b.Bytes(), 0o644))
	return s
}

func sampleTree(t *testing.T, d fsverity.Digest, acl bool) *tree.Tree {
	t.Helper()
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 3})
	add := func(dir tree.Node, name string, mode uint32, size int) tree.Node {
		n, err := tr.Add(dir, []byte(name), tree.Attr{Mode: mode, Nlink: 1, Size: uint64(size), MtimeSec: 7})
		must(t, err)
		return n
	}
	big := add(tree.Root, "big", unix.S_IFREG|0o640, len(bigContent))
	must(t, tr.SetObject(big, d))
	must(t, tr.SetXattrs(big, []tree.Xattr{{Name: "user.colour", Value: []byte("green")}}))
	inline := add(tree.Root, "inline", unix.S_IFREG|0o600, 5)
	must(t, tr.SetContent(inline, []byte("hello")))
	if acl {
		must(t, tr.SetXattrs(inline, []tree.Xattr{{Name: "system.posix_acl_access", Value: aclValue}}))
	}
	link := add(tree.Root, "link", unix.S_IFLNK|0o777, 6)
	must(t, tr.SetTarget(link, []byte("inline")))
	sub := add(tree.Root, "sub", unix.S_IFDIR|0o755, 0)
	must(t, tr.SetContent(add(sub, "tool", unix.S_IFREG|unix.S_ISUID|0o755, 1), []byte("x")))
	return tr
}

// aclValue is user::rw-, user:7:r--, group::---, mask::r--, other::--- as
// linux/posix_acl_xattr.h has it: version 2, then tag, permissions, id.
var aclValue = []byte{
	2, 0, 0, 0,
	1, 0, 6, 0, 255, 255, 255, 255,
	2, 0, 4, 0, 7, 0, 0, 0,
	4, 0, 0, 0, 255, 255, 255, 255,
	16, 0, 4, 0, 255, 255, 255, 255,
	32, 0, 0, 0, 255, 255, 255, 255,
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request opens the sample's files for the time of the test.
func (s *sample) request(t *testing.T, target string) Request {
	t.Helper()
	image, err := OpenImage(s.image)
	must(t, err)
	objects, err := OpenObjects(s.objects)
	must(t, err)
	t.Cleanup(func() {
		image.Close()
		closeAll(objects)
	})
	return Request{Image: image, ExpectDigest: s.digest, Objects: objects, Target: target}
}

func plan(t *testing.T, r Request) *Plan {
	t.Helper()
	f, err := Probe(r)
	must(t, err)
	p, err := NewPlan(r, f)
	must(t, err)
	return p
}

func mounted(t *testing.T, r Request, p *Plan) {
	t.Helper()
	must(t, p.Do(context.Background()))
	t.Cleanup(func() { unix.Unmount(r.Target, unix.MNT_DETACH) })
}

// checkSample reads everything that newSample wrote, and writes nothing.
func checkSample(t *testing.T, dir string) {
	t.Helper()
	checkContent(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
}

func checkContent(t *testing.T, dir string) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || !bytes.Equal(b, bigContent) {
		t.Errorf("big: %d bytes, %v", len(b), err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "link")); err != nil || string(b) != "hello" {
		t.Errorf("link to inline: %q, %v", b, err)
	}
	buf := make([]byte, 64)
	if n, err := unix.Lgetxattr(filepath.Join(dir, "big"), "user.colour", buf); err != nil || string(buf[:n]) != "green" {
		t.Errorf("xattr: %v", err)
	}
	if n, err := unix.Llistxattr(filepath.Join(dir, "big"), buf); err != nil || string(buf[:n]) != "user.colour\x00" {
		t.Errorf("xattrs %q, %v: overlayfs's own must not show", buf[:max(n, 0)], err)
	}
	st, err := os.Lstat(filepath.Join(dir, "sub/tool"))
	if err != nil || st.Mode() != fs.ModeSetuid|0o755 || st.ModTime().Unix() != 7 {
		t.Errorf("sub/tool: %v, %v", st, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 4 {
		t.Errorf("root has %d entries, %v", len(names), err)
	}
}

// TestNativeForms mounts from the disk and from tmpfs (which needs a loop device)
// in each way of telling this kernel the layers, alone and after one that it
// doesn't know, and with each check of the image.
func TestNativeForms(t *testing.T) {
	needMounts(t)
	target := t.TempDir()
	for place, dir := range map[string]string{"disk": t.TempDir(), "tmpfs": tmpfs(t)} {
		s := newSample(t, dir, false)
		for _, v := range []Policy{Auto, Off} {
			r := s.request(t, target)
			r.Verity = v
			all := plan(t, r).overlay().Forms
			forms := [][]LayerForm{all}
			if all[0] != LayersByMount {
				forms = append(forms, append([]LayerForm{LayersByMount}, all...))
			}
			for _, f := range all {
				forms = append(forms, []LayerForm{f})
			}
			for _, f := range forms {
				p := plan(t, r)
				p.overlay().Forms = f
				if err := p.Do(context.Background()); err != nil {
					t.Errorf("%s, forms %q: %v", place, f, err)
					continue
				}
				checkSample(t, target)
				must(t, Unmount(target, UnmountOptions{}))
			}
		}
	}
	noPrivateDirs(t)
}

// overlay is the plan's overlay step, to change it.
func (p *Plan) overlay() *Step {
	for i := range p.Steps {
		if p.Steps[i].Op == OpOverlay {
			return &p.Steps[i]
		}
	}
	panic("plan without overlay")
}

func noPrivateDirs(t *testing.T) {
	t.Helper()
	for _, d := range []string{"/run", os.TempDir()} {
		left, err := filepath.Glob(filepath.Join(d, "flatroot-[0-9]*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	}
}

// TestUncheckedImage mounts without a digest: from the file itself.
func TestUncheckedImage(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	r.ExpectDigest = fsverity.Digest{}
	p := plan(t, r)
	mounted(t, r, p)
	checkSample(t, r.Target)
	list, err := List()
	must(t, err)
	m := find(list, r.Target)
	if m == nil || !m.Digest.IsZero() || m.Verification.Image != ImageUnchecked {
		t.Errorf("listed as %+v", m)
	}
}

func find(list []Mount, target string) *Mount {
	for _, m := range list {
		if m.Target == target {
			return &m
		}
	}
	return nil
}

// TestSealedImageCantChange overwrites the image's file while it is mounted,
// before anything was read: the mount must not notice.
func TestSealedImageCantChange(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	p := plan(t, r)
	if p.Verification.Image == ImageKernel {
		t.Skip("the image has fs-verity here and can't be written")
	}
	if p.Verification.Image != ImageSealed {
		t.Fatalf("verification is %v", p.Verification)
	}
	mounted(t, r, p)
	st, err := os.Stat(s.image)
	must(t, err)
	f, err := os.OpenFile(s.image, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(make([]byte, st.Size()))
	must(t, errors.Join(err, f.Close()))
	checkSample(t, r.Target)
}

// TestChangedAfterProbe changes one bit between probing and doing.
func TestChangedAfterProbe(t *testing.T) {
	needMounts(t)
	for _, memfd := range []bool{true, false} {
		s := newSample(t, t.TempDir(), false)
		r := s.request(t, t.TempDir())
		f, err := Probe(r)
		must(t, err)
		f.Memfd = f.Memfd && memfd // without, the file itself is hashed
		p, err := NewPlan(r, f)
		must(t, err)
		b, err := os.ReadFile(s.image)
		must(t, err)
		b[len(b)-1] ^= 1
		must(t, os.WriteFile(s.image, b, 0o644))
		before := snapshot(t)
		err = p.Do(context.Background())
		var d *DigestError
		if !errors.As(err, &d) || d.Want != s.digest || d.Got == s.digest {
			t.Errorf("memfd %v: %v, want a digest error", memfd, err)
		}
		before.same(t)
	}
}

// TestFailuresLeaveNothing makes each step fail.
func TestFailuresLeaveNothing(t *testing.T) {
	needMounts(t)
	s := newSample(t, tmpfs(t), false)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for _, c := range []struct {
		name   string
		target string
		change func(*Plan)
		is     error
		text   string
	}{
		{"target missing", "/no/such/dir", nil, ErrTarget, "/no/such/dir"},
		{"target no directory", file, nil, ErrTarget, "not a directory"},
		{"no target", "", nil, ErrTarget, ""},
		{"erofs option", t.TempDir(), func(p *Plan) { p.Steps[1].Options = []Option{{"wrong", "1"}} }, unix.EINVAL, "Unknown parameter 'wrong'"},
		{"overlay option", t.TempDir(), func(p *Plan) { p.Steps[2].Options = []Option{{"wrong", "1"}} }, unix.EINVAL, "Unknown parameter 'wrong'"},
		{"overlay refuses to be created", t.TempDir(), func(p *Plan) {
			p.Steps[2].Options = append(p.Steps[2].Options, Option{"upperdir", "/"})
		}, unix.EINVAL, "create"},
	} {
		before := snapshot(t)
		r := s.request(t, c.target)
		p := plan(t, r)
		if c.change != nil {
			c.change(p)
		}
		err := p.Do(context.Background())
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.is, c.text)
		}
		r.Image.Close()
		closeAll(r.Objects)
		before.same(t)
	}
	noPrivateDirs(t)
}

func TestCancelled(t *testing.T) {
	needMounts(t)
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	p := plan(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Do(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestObjectMissing: the mount succeeds, and the file alone can't be opened.
func TestObjectMissing(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	must(t, os.Remove(s.object))
	r := s.request(t, t.TempDir())
	mounted(t, r, plan(t, r))
	if _, err := os.ReadFile(filepath.Join(r.Target, "big")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read big: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(r.Target, "inline")); err != nil {
		t.Error(err)
	}
}

// TestTwoObjectDirectories: the second is looked into where the first has nothing.
func TestTwoObjectDirectories(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, t.TempDir())
	odd := filepath.Join(t.TempDir(), `a,b:c\d e`)
	must(t, os.Mkdir(odd, 0o755))
	empty, err := OpenObjects(odd)
	must(t, err)
	t.Cleanup(func() { closeAll(empty) })
	r.Objects = append(empty, r.Objects...)
	p := plan(t, r)
	mounted(t, r, p)
	checkSample(t, r.Target)
	list, err := List()
	must(t, err)
	m := find(list, r.Target)
	// Kernels before 6.13 get and show descriptors only.
	if m == nil || len(m.Objects) > 0 && (len(m.Objects) != 2 || m.Objects[0] != odd || m.Objects[1] != s.objects) {
		t.Errorf("listed as %+v", m)
	}
}

// TestACL: noacl is given exactly when the image says that it has none.
func TestACL(t *testing.T) {
	needMounts(t)
	for _, acl := range []bool{false, true} {
		s := newSample(t, t.TempDir(), acl)
		r := s.request(t, t.TempDir())
		p := plan(t, r)
		if has := strings.Contains(p.String(), "noacl"); has == acl {
			t.Errorf("acl %v: plan\n%s", acl, p)
		}
		mounted(t, r, p)
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(filepath.Join(r.Target, "inline"), "system.posix_acl_access", buf)
		if acl && (err != nil || !bytes.Equal(buf[:n], aclValue)) || !acl && err == nil {
			t.Errorf("acl %v: %x, %v", acl, buf[:max(n, 0)], err)
		}
	}
}

func TestAttributes(t *testing.T) {
	needMounts(t)
	r := newSample(t, t.TempDir(), false).request(t, t.TempDir())
	r.NoSuid, r.NoDev, r.NoExec = true, true, true
	mounted(t, r, plan(t, r))
	list, err := List()
	must(t, err)
	m := find(list, r.Target)
	if m == nil || !m.ReadOnly || !m.NoSuid || !m.NoDev || !m.NoExec {
		t.Errorf("listed as %+v", m)
	}
	if m != nil && (m.Digest != r.ExpectDigest || m.Mode != ModeNative) {
		t.Errorf("listed as %+v", m)
	}
}

// TestDetach attaches a detached mount, and drops another.
func TestDetach(t *testing.T) {
	needMounts(t)
	s := newSample(t, t.TempDir(), false)
	r := s.request(t, "")
	m, err := plan(t, r).Detach(context.Background())
	must(t, err)
	target := t.TempDir()
	must(t, Attach(m, target))
	m.Close()
	checkSample(t, target)
	must(t, Unmount(target, UnmountOptions{}))

	before := snapshot(t)
	m, err = plan(t, r).Detach(context.Background())
	must(t, err)
	m.Close()
	before.same(t)
}
