package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// TestMain lets the test program be its own keeper and server. Tests run in a mount
// namespace of their own, where no other's can take a copy of what they mount: a
// session doesn't end before the last copy is gone. All threads have to be in it,
// so the program is run once more.
func TestMain(m *testing.M) {
	if code, is := Main(os.Args); is {
		os.Exit(code)
	}
	if arguments := os.Getenv(starterVariable); arguments != "" {
		os.Exit(starter(arguments))
	}
	if code, done := testenv.InOwnMounts(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	sampleFiles = 12
	sampleSize  = 256 << 10
)

// sample is an image with a few objects.
type sample struct {
	image, objects string
	digest         fsverity.Digest
	content        map[string][]byte
	passthrough    bool
}

func newSample(t testing.TB) *sample {
	t.Helper()
	dir := t.TempDir()
	s := &sample{image: filepath.Join(dir, "image"), objects: filepath.Join(dir, "objects"), content: map[string][]byte{}}
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	for i := range sampleFiles {
		name := fmt.Sprintf("f%02d", i)
		s.content[name] = s.addFile(t, tr, name, byte(i))
	}
	s.write(t, tr)
	return s
}

// write makes the image of a tree.
func (s *sample) write(t testing.TB, tr *tree.Tree) {
	t.Helper()
	var b bytes.Buffer
	sum, err := erofs.Write(&b, tr, erofs.WriteOptions{})
	must(t, err)
	s.digest = sum.Digest
	must(t, os.WriteFile(s.image, b.Bytes(), 0o644))
}

// content is of a file: every byte tells its place and its file.
func content(seed byte) []byte {
	c := make([]byte, sampleSize)
	for i := range c {
		c[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16) ^ seed
	}
	return c
}

func (s *sample) addFile(t testing.TB, tr *tree.Tree, name string, seed byte) []byte {
	t.Helper()
	c := content(seed)
	d := fsverity.Sum(fsverity.SHA256, c)
	path := filepath.Join(s.objects, d.ObjectPath())
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, c, 0o444))
	n, err := tr.Add(tree.Root, []byte(name), tree.Attr{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: sampleSize})
	must(t, err)
	must(t, tr.SetObject(n, d))
	return c
}

// kept is a mounted sample and the processes behind it.
type kept struct {
	*sample
	*Launcher
	dir string
	log string
}

// needSessions is for tests that mount.
func needSessions(t testing.TB) {
	t.Helper()
	testenv.Need(t, "root", "mount", "fuse")
}

// mountSample mounts one by FUSE, and unmounts it when the test is over.
func mountSample(t *testing.T, o Options) *kept {
	t.Helper()
	k, err := tryMount(t, newSample(t), o)
	must(t, err)
	return k
}

func tryMount(t *testing.T, s *sample, o Options) (*kept, error) {
	t.Helper()
	return mountWithin(t, context.Background(), s, o)
}

func mountWithin(t *testing.T, ctx context.Context, s *sample, o Options) (*kept, error) {
	t.Helper()
	k := &kept{sample: s, dir: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	if o.Log == "" {
		o.Log = k.log
	}
	k.Launcher = NewLauncher(o)
	p, closeAll := s.plan(t, k.Launcher.Start, k.dir)
	defer closeAll()
	if err := p.Do(ctx); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		unix.Unmount(k.dir, unix.MNT_FORCE|unix.MNT_DETACH) // most have done so themselves
		<-k.ended
		if t.Failed() {
			b, _ := os.ReadFile(k.log)
			t.Logf("keeper: %v, log:\n%s", k.err, b)
		}
	})
	return k, nil
}

func (s *sample) plan(t *testing.T, start mount.StartFunc, dir string) (*mount.Plan, func()) {
	t.Helper()
	image, err := mount.OpenImage(s.image)
	must(t, err)
	objects, err := mount.OpenObjects(s.objects)
	must(t, err)
	r := mount.Request{Image: image, ExpectDigest: s.digest, Objects: objects, Target: dir, Mode: mount.ModeFUSE, Start: start}
	if s.passthrough {
		r.Passthrough, r.Verity = true, mount.Off
	}
	f, err := mount.Probe(r)
	must(t, err)
	p, err := mount.NewPlan(r, f)
	must(t, err)
	return p, func() {
		image.Close()
		objects[0].Close()
	}
}

// servers lists the server processes, which are the keeper's only children.
func (k *kept) servers(t testing.TB) (pids []int) {
	t.Helper()
	return children(k.PID())
}

func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f) // a thread may be gone
		for _, w := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(w); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// server waits until there is exactly one, which isn't one of not.
func (k *kept) server(t testing.TB, not ...int) int {
	t.Helper()
	for range 500 {
		if s := k.servers(t); len(s) == 1 && (len(not) == 0 || s[0] != not[0]) {
			return s[0]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no new server in 5 s: %v", k.servers(t))
	return 0
}

// unmount expects that all ends with it.
func (k *kept) unmount(t *testing.T) {
	t.Helper()
	server := k.server(t)
	must(t, unix.Unmount(k.dir, 0))
	select {
	case <-k.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("keeper still there 10 s after unmounting")
	}
	if err := k.Wait(); err != nil {
		t.Error(err)
	}
	if unix.Kill(server, 0) != unix.ESRCH {
		t.Error("server still there after unmounting")
	}
}

// rawMount mounts FUSE without a server, and returns the session.
func rawMount(t testing.TB) *os.File {
	t.Helper()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd())
	must(t, unix.Mount("flatroot-test", dir, "fuse", unix.MS_RDONLY, options))
	t.Cleanup(func() {
		dev.Close()
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	})
	return dev
}

// serving is the sample for a server, without a plan.
func (s *sample) serving(t testing.TB, dev *os.File) mount.Serving {
	t.Helper()
	image, err := os.Open(s.image)
	must(t, err)
	objects, err := os.Open(s.objects)
	must(t, err)
	t.Cleanup(func() {
		image.Close()
		objects.Close()
	})
	return mount.Serving{
		Service: mount.Service{View: mount.ViewPlain, Digest: s.digest, Image: mount.ImageUnchecked, Objects: mount.ObjectsUser},
		Device:  dev, Image: image, Objects: []*os.File{objects},
	}
}

// readers read and check files, without what the kernel has cached, until stop.
type readers struct {
	stop  chan struct{}
	wg    sync.WaitGroup
	reads atomic.Int64
	mu    sync.Mutex
	errs  []error
}

func (k *kept) startReaders(n int) *readers {
	r := &readers{stop: make(chan struct{})}
	for i := range n {
		r.wg.Go(func() { r.run(k, i) })
	}
	return r
}

func (r *readers) run(k *kept, i int) {
	buf := make([]byte, sampleSize)
	for ; ; i++ {
		select {
		case <-r.stop:
			return
		default:
		}
		name := fmt.Sprintf("f%02d", i%sampleFiles)
		if err := readUncached(filepath.Join(k.dir, name), buf, k.content[name]); err != nil {
			r.mu.Lock()
			r.errs = append(r.errs, err)
			r.mu.Unlock()
			return
		}
		r.reads.Add(1)
	}
}

// finish returns how often files were read, and all errors.
func (r *readers) finish() (reads int64, err error) {
	close(r.stop)
	r.wg.Wait()
	return r.reads.Load(), errors.Join(r.errs...)
}

func readUncached(path string, buf, want []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	for n := 0; n < len(want); {
		m, err := unix.Pread(fd, buf[n:min(len(want), n+64<<10)], int64(n))
		if err != nil || m == 0 {
			return fmt.Errorf("read %s at %d: %d bytes, %w", path, n, m, err)
		}
		n += m
	}
	if !bytes.Equal(buf, want) {
		return fmt.Errorf("%s has other content", path)
	}
	return nil
}
