package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/erofs"
	"github.com/flatroot/flatroot/tests/testenv"
)

// Names of the processes that serve a mount.
const (
	serverName = "flatroot-server"
	keeperName = "flatroot-keeper"
)

// processesNamed are those of our namespace.
func processesNamed(t testing.TB, name string) (pids []int) {
	t.Helper()
	for pid, command := range look(t).processes {
		if strings.HasPrefix(command, name) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// restless kills each mode's server again and again, or has its keeper take a new one.
type restless struct {
	t             *testing.T
	modes         int
	pause         time.Duration // between a server's start and its end
	kills, others int
	before        func() // each time
}

// run goes on for a time, or until a reader fails.
func (r *restless) run(d time.Duration, failed *atomic.Bool) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end) && !failed.Load(); time.Sleep(r.pause) {
		r.before()
		servers := r.servers()
		if len(servers) != r.modes {
			r.t.Errorf("%d servers for %d mounts", len(servers), r.modes)
			return
		}
		// Every fourth time another program takes over; that it is the same again is enough to see that nobody notices.
		if r.others*3 < r.kills {
			for _, pid := range processesNamed(r.t, keeperName) {
				must(r.t, unix.Kill(pid, unix.SIGHUP))
				r.others++
			}
			continue
		}
		for _, pid := range servers {
			unix.Kill(pid, unix.SIGKILL) // not there any more: replaced meanwhile
			r.kills++
		}
	}
}

// servers are there for all mounts after a while, and no more.
func (r *restless) servers() (pids []int) {
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if pids = processesNamed(r.t, serverName); len(pids) == r.modes {
			break
		}
	}
	return pids
}

// busy is a mounted tree that is read all the time.
type busy struct {
	name  string
	dir   string
	data  []byte
	count atomic.Int64
	last  atomic.Int64 // unix nanoseconds of the last that was done
}

// TestKilledServers kills all servers, while readers of all kinds verify what they get.
func TestKilledServers(t *testing.T) {
	needMounts(t)
	before := look(t)
	t.Run("readers", func(t *testing.T) {
		all := mountBusy(t)
		var failed atomic.Bool
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for _, b := range all {
			for range 2 {
				readers.Go(func() {
					if err := b.readUntil(stop); err != nil {
						failed.Store(true)
						t.Errorf("%s: %v", b.name, err)
					}
				})
			}
		}
		r := &restless{t: t, modes: len(all), pause: 100 * time.Millisecond, before: func() { progress(t, all) }}
		r.run(time.Duration(times(8, 300))*time.Second, &failed)
		close(stop)
		readers.Wait()
		for _, b := range all {
			t.Logf("%s: %d reads", b.name, b.count.Load())
		}
		t.Logf("%d servers killed, %d replaced", r.kills, r.others)
	})
	before.same(t, "servers killed")
}

// progress fails if a reader did nothing since a while ago: a request that was lost waits for ever.
func progress(t *testing.T, all []*busy) {
	t.Helper()
	const patience = 5 * time.Second
	for _, b := range all {
		if since := time.Since(time.Unix(0, b.last.Load())); since > patience {
			t.Errorf("%s: nothing was read for %v", b.name, since)
		}
	}
}

// mountBusy mounts in all modes that have a server.
func mountBusy(t *testing.T) (all []*busy) {
	t.Helper()
	dir := tmpfs(t)
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	data := randomBytes(8<<20, 9)
	b.xattrs(b.file("/data", 0o644, data), userXattr("user.colour", "green"))
	b.symlink("/link", "data")
	b.dir("/dir", 0o755)
	for i := range 1000 {
		b.file(fmt.Sprintf("/dir/%04d", i), 0o644, fmt.Appendf(nil, "%d", i))
	}
	b.tree.Canonicalize()
	img := writeImage(t, dir, "busy", b.tree, b.objects, erofs.Format1)
	for _, m := range modes() {
		target, _ := m.mount(t, img)
		all = append(all, &busy{name: m.name, dir: target, data: data})
		all[len(all)-1].last.Store(time.Now().UnixNano())
	}
	return all
}

// readUntil does one thing after another that needs the server's answer.
func (b *busy) readUntil(stop chan struct{}) error {
	f, err := os.Open(b.dir + "/data")
	if err != nil {
		return err
	}
	defer f.Close()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		var err error
		switch i % 4 {
		case 0:
			err = b.readAnew(f)
		case 1:
			err = b.missing()
		case 2:
			err = b.attribute()
		case 3:
			err = b.small()
		}
		if err != nil {
			return err
		}
		b.count.Add(1)
		b.last.Store(time.Now().UnixNano())
	}
}

// readAnew reads what it has dropped from the cache before.
func (b *busy) readAnew(f *os.File) error {
	off := rand.IntN(len(b.data) - 300_000)
	part := make([]byte, 1+rand.IntN(300_000))
	if err := unix.Fadvise(int(f.Fd()), int64(off), int64(len(part)), unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop from the cache: %w", err)
	}
	if _, err := f.ReadAt(part, int64(off)); err != nil {
		return err
	}
	if !bytes.Equal(part, b.data[off:][:len(part)]) {
		return fmt.Errorf("%d bytes at %d are wrong", len(part), off)
	}
	return nil
}

// missing looks up a name that nobody asked for before.
func (b *busy) missing() error {
	name := fmt.Sprintf("%s/dir/no-%d", b.dir, rand.Uint64())
	if err := unix.Lstat(name, new(unix.Stat_t)); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("look up a name that isn't there: %w", err)
	}
	return nil
}

func (b *busy) attribute() error {
	value := make([]byte, 100)
	n, err := unix.Getxattr(b.dir+"/link", "user.colour", value)
	if err != nil || string(value[:n]) != "green" {
		return fmt.Errorf("xattr %q: %w", value[:max(n, 0)], err)
	}
	return nil
}

func (b *busy) small() error {
	i := rand.IntN(1000)
	got, err := os.ReadFile(fmt.Sprintf("%s/dir/%04d", b.dir, i))
	if err == nil && string(got) != fmt.Sprint(i) {
		err = fmt.Errorf("file %d has %q", i, got)
	}
	return err
}

// TestKilledServersFio is the same with fio's readers, which verify each block.
func TestKilledServersFio(t *testing.T) {
	fio := testenv.Peer(t, "fio")
	needMounts(t)
	img := fioImage(t, fio)
	runtime := time.Duration(times(20, 600)) * time.Second
	var failed atomic.Bool
	var jobs sync.WaitGroup
	for _, m := range allModes() {
		target, _ := m.mount(t, img)
		for _, direct := range []string{"--direct=0", "--direct=1"} {
			// A pause after each read leaves processor time to the others, of which there are many.
			cmd := exec.Command(fio, append(fioJob(target+"/fio"), "--rw=randread", "--readonly", "--time_based", "--verify_fatal=1",
				"--thinktime=1000", fmt.Sprintf("--runtime=%d", int(runtime.Seconds())), direct)...)
			cmd.Dir = t.TempDir()
			jobs.Go(func() {
				if text, err := cmd.CombinedOutput(); err != nil {
					failed.Store(true)
					t.Errorf("%s: fio %s: %v\n%s", m.name, direct, err, text)
				}
			})
		}
	}
	time.Sleep(time.Second) // fio looks at its files first
	r := &restless{t: t, modes: len(modes()), pause: time.Second, before: func() {}}
	r.run(runtime-time.Second, &failed)
	jobs.Wait()
	t.Logf("%d servers killed, %d replaced", r.kills, r.others)
}

const fioSize = 8 << 20

func fioJob(file string) []string {
	return []string{"--name=job", "--filename=" + file, fmt.Sprintf("--size=%d", fioSize), "--bs=4k", "--verify=crc32c",
		"--verify_state_save=0", "--ioengine=psync"}
}

// fioImage has a file that fio wrote, of which it can verify each block.
func fioImage(t *testing.T, fio string) image {
	t.Helper()
	dir := tmpfs(t)
	file := filepath.Join(dir, "fio")
	cmd := exec.Command(fio, append(fioJob(file), "--rw=write", "--do_verify=0")...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fio: %v\n%s", err, text)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	b := newBuilder(t, newObjects(t, filepath.Join(dir, "objects")))
	b.file("/fio", 0o644, data)
	return writeImage(t, dir, "image", b.tree, b.objects, erofs.Format1)
}
