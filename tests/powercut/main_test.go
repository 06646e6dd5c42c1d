// Package powercut cuts the power: it records what file systems tell their disk while the program flatroot works on a store,
// and looks at what a cut at any moment would have left of it.
//
// The words: the disk is a file of a FUSE server in this process, with a loop device over it and ext4, XFS or btrfs on that.
// Its recording is the list of its events in the disk's own order: writes, flushes, and marks, which say that a command has
// announced success. A state is what the disk may hold after a cut: all that was written up to the last flush before it,
// and of later writes all, or some in their order, the last one perhaps torn at a sector. Each state is mounted as a disk of
// its own, which replays the journal, and is checked.
//
// What is assumed of a disk: a write that it had finished before it was told to flush is there after the flush; sectors of
// 512 bytes are written as a whole, and what else file systems need whole (see filesystems).
package powercut

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/flatroot/flatroot/tests/testenv"
)

func TestMain(m *testing.M) {
	if code, done := testenv.InOwnMounts(); done {
		os.Exit(code)
	}
	os.Exit(run(m))
}

// program is the path of flatroot, which is built where it can be tested.
var program string

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "powercut")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	if canCut() {
		program = filepath.Join(dir, "flatroot")
		build := exec.Command("go", "build", "-o", program, "../../cmd/flatroot")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build flatroot: %v: %s", err, text)
			return 2
		}
	}
	return m.Run()
}

var (
	seed      = flag.Uint64("seed", uint64(time.Now().UnixNano()), "`number` that the choice of states follows from")
	keptIn    = flag.String("recording", "", "`file` in which TestPowerCut has kept a recording: try its states again")
	onlyState = flag.Int("state", -1, "`number` of the only state to try")
)

// canCut tells whether there is anything to run here that needs more than arithmetic.
func canCut() bool {
	for _, c := range needed {
		if ok, _ := testenv.Condition(c); !ok {
			return false
		}
	}
	return true
}

var needed = []string{"crash", "root", "mount", "fuse", "loop", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"}

func need(t *testing.T) {
	t.Helper()
	testenv.Need(t, needed...)
}

// pick is one number in CI and another one in the nightly run.
func pick(ci, nightly int) int {
	if testenv.Nightly() {
		return nightly
	}
	return ci
}

// forEach runs a test on each file system, all at once: most of their time they wait for one another's disks.
func forEach(t *testing.T, test func(t *testing.T, r *rig)) {
	need(t)
	for _, f := range filesystems {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			t.Logf("-seed=%d", *seed)
			test(t, newRig(t, f))
		})
	}
}

// rig is a server, and a place to mount the file systems on its disks.
type rig struct {
	filesystem
	*server
	at string // where the file system is mounted
}

func newRig(t *testing.T, f filesystem) *rig {
	t.Helper()
	s, err := serve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("end the server of disks: %v", err)
		}
	})
	return &rig{f, s, t.TempDir()}
}

// record records what work does to a file system on a disk; a nil disk is a new one.
func (r *rig) record(t *testing.T, disk *blocks, work func(dir string, mark func())) *recording {
	t.Helper()
	d := newDisk(disk)
	if disk == nil {
		d = newDisk(newBlocks(r.size))
	}
	file := r.add("recorded", d)
	defer r.remove("recorded")
	if disk == nil {
		if err := r.format(file); err != nil {
			t.Fatal(err)
		}
	}
	d.record()
	m, err := r.mount(file, r.at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.unmount(); err != nil {
			t.Error(err)
		}
	}()
	work(r.at, d.mark)
	rec := d.recorded()
	rec.sector, rec.intact = r.sector, r.intact
	return rec
}

func (r *rig) format(file string) error {
	l, err := attach(file)
	if err != nil {
		return err
	}
	defer l.Close()
	return r.make(l.Name())
}

// tryAll tries states of a recording.
func (r *rig) tryAll(t *testing.T, rec *recording, states []state, check func(s state, dir string)) {
	t.Helper()
	b := rec.builder()
	for _, s := range states {
		if *onlyState >= 0 && s.number != *onlyState {
			continue
		}
		if err := r.try(b.build(s), s, check); err != nil {
			t.Errorf("%s, %v: %v", r.name, s, err)
		}
	}
}

// try mounts a state, has it checked, and takes it away. The error is about the file system.
func (r *rig) try(b *blocks, s state, check func(s state, dir string)) (err error) {
	const name = "state"
	m, err := r.mount(r.add(name, newDisk(b)), r.at)
	defer r.remove(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.unmount()) }()
	check(s, r.at)
	return nil
}
