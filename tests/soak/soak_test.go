//go:build amd64

// Package soak lets many processes at two stores at once, kills some of them, and looks whether anything was lost.
//
// Each worker has names of its own in both stores, so that it knows what each has to lead to: to what the last command
// that ended has announced, or, if one was killed since, to what that one wanted or to what there was. Nothing else is
// shared knowledge: images have layers, and files, in common, and all processes collect garbage for all.
package soak

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/tests/crash/kit"
	"github.com/flatroot/flatroot/tests/testenv"
)

const (
	workers = 8
	// deadlock is how long a command may take, with 8 others beside it on two processors.
	deadlock = 60 * time.Second
	// killEvery is how often a process is killed, on average.
	killEvery = 150 * time.Millisecond
)

var seed = flag.Uint64("seed", 0, "of the random choices; 0: another one each time")

func TestMain(m *testing.M) {
	if code, done := testenv.InOwnMounts(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// soak is the whole of it.
type soak struct {
	t        *testing.T
	dir      string
	flatroot string
	layout   string
	stores   [2]string
	digests  map[string]string // of the layout's images
	ctx      context.Context
	stop     context.CancelFunc

	mu      sync.Mutex
	running map[int]*exec.Cmd // by worker
	counts  map[string]int
	kills   int
}

func TestSoak(t *testing.T) {
	testenv.Need(t, "ptrace", "root", "mount", "fuse", "erofs", "overlay")
	length := time.Minute
	if testenv.Nightly() {
		length = 10 * time.Minute
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed=%d", *seed)
	s := newSoak(t)
	defer s.unmountAll()
	var wg sync.WaitGroup
	for n := range workers {
		w := &worker{soak: s, number: n, rng: rand.New(rand.NewPCG(*seed, uint64(n))), names: map[string]allowed{}}
		wg.Go(w.run)
	}
	wg.Go(s.kill)
	time.AfterFunc(length, s.stop)
	wg.Wait()
	s.finish()
	t.Logf("%v, %d of them killed", s.counts, s.kills)
}

func newSoak(t *testing.T) *soak {
	dir := t.TempDir()
	if unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700") == nil {
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	s := &soak{
		t: t, dir: dir, layout: filepath.Join(dir, "layout"), digests: map[string]string{},
		running: map[int]*exec.Cmd{}, counts: map[string]int{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	var err error
	if s.flatroot, err = kit.Build(dir, "flatroot"); err == nil {
		err = kit.WriteLayout(s.layout, "soak")
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.stores {
		s.stores[i] = filepath.Join(dir, fmt.Sprint("store", i))
		s.must("init", "--store", s.stores[i])
	}
	for _, image := range []string{kit.V1, kit.V2, kit.Other} {
		s.digests[image] = strings.TrimSpace(s.must("digest", "oci:"+s.layout+":"+image))
	}
	return s
}

func (s *soak) must(args ...string) string {
	s.t.Helper()
	out, err := kit.Run(append([]string{s.flatroot, "--progress", "none"}, args...)...)
	if err != nil || out.Status != 0 {
		s.t.Fatalf("flatroot %s: status %d: %v %s%s", strings.Join(args, " "), out.Status, err, out.Stdout, out.Stderr)
	}
	return out.Stdout
}

// failf ends everything.
func (s *soak) failf(format string, args ...any) {
	s.t.Errorf(format, args...)
	s.stop()
}

// kill kills a process now and then.
func (s *soak) kill() {
	rng := rand.New(rand.NewPCG(*seed, workers))
	for s.ctx.Err() == nil {
		time.Sleep(time.Duration(rng.Int64N(int64(2 * killEvery))))
		s.mu.Lock()
		if c := s.running[rng.IntN(workers)]; c != nil && c.Process.Kill() == nil {
			s.kills++
		}
		s.mu.Unlock()
	}
}

// outcome is what came of a command.
type outcome struct {
	status         int
	killed         bool
	stdout, stderr string
}

// command runs one for a worker; it may be killed.
func (s *soak) command(worker int, args ...string) outcome {
	var out, errs bytes.Buffer
	c := exec.Command(s.flatroot, append([]string{"--progress", "none"}, args...)...)
	c.Stdout, c.Stderr = &out, &errs
	c.WaitDelay = time.Second // a killed mount's keeper may hold the pipes
	watchdog := time.AfterFunc(deadlock, func() {
		s.failf("flatroot %s: no end after %v: %s", strings.Join(args, " "), deadlock, errs.String())
		if c.Process != nil {
			c.Process.Signal(syscall.SIGQUIT)
		}
	})
	defer watchdog.Stop()
	s.mu.Lock()
	err := c.Start()
	if err == nil {
		s.running[worker] = c
	}
	s.counts[args[0]]++
	s.mu.Unlock()
	if err != nil {
		s.failf("%v", err)
		return outcome{killed: true}
	}
	err = c.Wait()
	s.mu.Lock()
	delete(s.running, worker)
	s.mu.Unlock()
	o := outcome{status: c.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
	ws, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	o.killed = ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
	if err != nil && !o.killed && errors.Is(err, exec.ErrWaitDelay) {
		o.status = 0
	}
	return o
}

// allowed is what a name may lead to: digests of images, "" for nothing.
type allowed []string

// worker does one thing after another.
type worker struct {
	*soak
	number int
	rng    *rand.Rand
	names  map[string]allowed // by store and name
}

func (w *worker) run() {
	ops := []func(store string){w.pull, w.pull, w.pull, w.tag, w.rm, w.rm, w.gc, w.gc, w.fsck, w.mount}
	for w.ctx.Err() == nil {
		ops[w.rng.IntN(len(ops))](w.stores[w.rng.IntN(len(w.stores))])
	}
	for _, store := range w.stores {
		for _, name := range w.own() {
			w.look(store, name)
		}
	}
}

func (w *worker) own() []string {
	return []string{fmt.Sprintf("w%d-a", w.number), fmt.Sprintf("w%d-b", w.number), fmt.Sprintf("w%d-c", w.number)}
}

func (w *worker) name() string { return w.own()[w.rng.IntN(3)] }

func key(store, name string) string { return store + " " + name }

func (w *worker) may(store, name string) allowed {
	if a := w.names[key(store, name)]; a != nil {
		return a
	}
	return allowed{""}
}

// becomes notes that a command wanted a name to lead to one of these.
func (w *worker) becomes(o outcome, store, name string, to allowed) {
	if o.killed {
		to = append(slices.Clone(w.may(store, name)), to...)
		slices.Sort(to)
		to = slices.Compact(to)
	}
	w.names[key(store, name)] = to
}

func (w *worker) image() string {
	return []string{kit.V1, kit.V2, kit.Other}[w.rng.IntN(3)]
}

func (w *worker) pull(store string) {
	name, image := w.name(), w.image()
	o := w.command(w.number, "pull", "--store", store, "oci:"+w.layout+":"+image, "--name", name)
	if !o.killed && (o.status != 0 || strings.TrimSpace(o.stdout) != w.digests[image]) {
		w.failf("pull of %s as %s: %+v", image, name, o)
	}
	w.becomes(o, store, name, allowed{w.digests[image]})
}

func (w *worker) tag(store string) {
	from, to := w.name(), w.name()
	o := w.command(w.number, "tag", "--store", store, from, to)
	have := w.may(store, from)
	switch missing := strings.Contains(o.stderr, "no such image"); {
	case o.killed || o.status == 0 && !slices.Equal(have, allowed{""}):
		w.becomes(o, store, to, slices.DeleteFunc(slices.Clone(have), func(d string) bool { return d == "" && !o.killed }))
	case o.status == 1 && missing && slices.Contains(have, ""):
		w.names[key(store, from)] = allowed{""}
	default:
		w.failf("tag %s %s, which may lead to %q: %+v", from, to, have, o)
	}
}

func (w *worker) rm(store string) {
	name := w.name()
	o := w.command(w.number, "rm", "--store", store, name)
	missing := o.status == 1 && strings.Contains(o.stderr, "no such image")
	if have := w.may(store, name); !o.killed && !(o.status == 0 || missing && slices.Contains(have, "")) {
		w.failf("rm %s, which may lead to %q: %+v", name, have, o)
	}
	w.becomes(o, store, name, allowed{""})
}

func (w *worker) gc(store string) {
	args := []string{"gc", "--store", store}
	switch w.rng.IntN(4) {
	case 0:
		args = append(args, "--full")
	case 1:
		args = append(args, "--dry-run")
	}
	if o := w.command(w.number, args...); !o.killed && o.status != 0 {
		w.failf("%v: %+v", args, o)
	}
}

func (w *worker) fsck(store string) {
	args := []string{"fsck", "--store", store}
	if w.rng.IntN(3) == 0 {
		args = append(args, "--quick")
	}
	if o := w.command(w.number, args...); !o.killed && o.status != 0 {
		w.failf("%v: a false alarm, or damage: %+v", args, o)
	}
}

// mount mounts a name, takes the name away, and reads while others collect garbage.
func (w *worker) mount(store string) {
	name := w.name()
	have := w.may(store, name)
	dir := filepath.Join(w.dir, fmt.Sprintf("mount%d", w.number))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.failf("%v", err)
		return
	}
	defer w.unmount(dir)
	mode := []string{"auto", "native", "hybrid", "fuse"}[w.rng.IntN(4)]
	o := w.command(w.number, "mount", "--store", store, "-o", "mode="+mode, name, dir)
	switch {
	case o.killed:
		return
	case o.status != 0 && slices.Contains(have, "") && strings.Contains(o.stderr, "no such image"):
		w.names[key(store, name)] = allowed{""}
		return
	case o.status != 0:
		w.failf("mount %s, which may lead to %q: %+v", name, have, o)
		return
	}
	if w.rng.IntN(2) == 0 {
		w.rmName(store, name)
	}
	for range 1 + w.rng.IntN(3) {
		if err := readAll(dir); err != nil {
			w.failf("read the mount of %s: %v", name, err)
			return
		}
		w.gc(store)
	}
	if err := readAll(dir); err != nil {
		w.failf("read the mount of %s after gc: %v", name, err)
	}
	if o := w.command(w.number, "umount", dir); !o.killed && o.status != 0 {
		w.failf("umount %s: %+v", dir, o)
	}
}

func (w *worker) rmName(store, name string) {
	o := w.command(w.number, "rm", "--store", store, name)
	if !o.killed && o.status != 0 {
		w.failf("rm %s, which is mounted: %+v", name, o)
	}
	w.becomes(o, store, name, allowed{""})
}

// readAll reads every file. Others than the one that it can come to here checks what they hold.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = os.ReadFile(path)
		}
		return err
	})
}

func (s *soak) unmount(dir string) {
	for unix.Unmount(dir, unix.MNT_DETACH) == nil {
	}
}

func (s *soak) unmountAll() {
	for n := range workers {
		s.unmount(filepath.Join(s.dir, fmt.Sprintf("mount%d", n)))
	}
}

// look compares what a name leads to with what it may.
func (w *worker) look(store, name string) {
	out, err := kit.Run(w.flatroot, "inspect", "--store", store, "--json", name)
	have := w.may(store, name)
	switch {
	case err != nil:
		w.failf("%v", err)
	case out.Status != 0 && strings.Contains(out.Stderr, "no such image"):
		if !slices.Contains(have, "") {
			w.failf("%s has lost %s, which led to %q", store, name, have)
		}
	case out.Status != 0:
		w.failf("inspect %s: %+v", name, out)
	default:
		if !slices.ContainsFunc(have, func(d string) bool { return d != "" && strings.Contains(out.Stdout, `"image":"`+d+`"`) }) {
			w.failf("%s leads elsewhere than to %q: %s", name, have, out.Stdout)
		}
	}
}

// finish checks the stores by fsck and by something else, then collects garbage, after which nothing may be left over.
func (s *soak) finish() {
	s.unmountAll()
	for _, store := range s.stores {
		s.must("fsck", "--store", store, "--verify-tars")
		st, err := kit.Check(store)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range st.Problems {
			s.t.Errorf("%s: %s", store, p)
		}
		s.must("gc", "--store", store)
		if st, err = kit.Check(store); err != nil {
			s.t.Fatal(err)
		}
		for _, p := range slices.Concat(st.Problems, st.Leftovers) {
			s.t.Errorf("%s: after gc: %s", store, p)
		}
	}
}
