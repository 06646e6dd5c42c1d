package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/mount"
)

// descriptorsOf tells what each descriptor of a process is, sorted, without those
// that the server has for waiting, and the Go runtime for that and to learn of the
// processors that its control group may use.
func descriptorsOf(t *testing.T, pid int) (list []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		must(t, err)
		kind, _, _ := strings.Cut(target, ":[")
		if !strings.HasPrefix(kind, "anon_inode") && !strings.HasPrefix(kind, "/sys/fs/cgroup/") {
			list = append(list, kind)
		}
	}
	slices.Sort(list)
	return list
}

func compareLists(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func procField(t *testing.T, pid int, file, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	must(t, err)
	if key == "" {
		return strings.TrimSuffix(string(b), "\n")
	}
	_, rest, _ := strings.Cut(string(b), "\n"+key+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// named waits until a process has its name, which it takes when somebody whom it
// keeps waiting has been served.
func named(t *testing.T, pid int, name string) {
	t.Helper()
	for range 500 {
		if procField(t, pid, "comm", "") == name {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("name %q, want %q", procField(t, pid, "comm", ""), name)
}

// TestProcesses looks at what keeper and server were given, and nothing else.
func TestProcesses(t *testing.T) {
	needSessions(t)
	t.Setenv("FLATROOT_TEST_SECRET", "1")
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // inherited, if nobody takes care
	must(t, err)
	defer unix.Close(leak)
	const readers = 3
	k := mountSample(t, Options{Readers: readers})
	server := k.server(t)
	named(t, k.PID(), "flatroot-keeper")
	named(t, server, "flatroot-server")

	both := append(slices.Repeat([]string{"/dev/fuse"}, readers), "/dev/null", "/dev/null", k.objects, "pipe", "socket")
	compareLists(t, "server", descriptorsOf(t, server), slices.Clone(both))
	compareLists(t, "keeper", descriptorsOf(t, k.PID()),
		append(both, "/dev/fuse", "/dev/null", k.log, "/memfd:flatroot-image (deleted)"))

	for pid, name := range map[int]string{k.PID(): "flatroot-keeper", server: "flatroot-server"} {
		if got := procField(t, pid, "environ", ""); got != "" && got != "GOMAXPROCS=1\x00" {
			t.Errorf("%s has environment %q", name, got)
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
			t.Errorf("%s is in %s, %v", name, cwd, err)
		}
		if sid, err := unix.Getsid(pid); err != nil || sid != pid {
			t.Errorf("%s is in session %d, not its own (%d), %v", name, sid, pid, err)
		}
		if !strings.Contains(procField(t, pid, "cmdline", ""), k.digest.String()) {
			t.Errorf("%s doesn't show the image's digest to ps", name)
		}
		checkRights(t, pid, name)
	}
	k.unmount(t)
}

// checkRights wants just the capabilities of confine.
func checkRights(t *testing.T, pid int, name string) {
	t.Helper()
	caps, err := strconv.ParseUint(procField(t, pid, "status", "CapPrm"), 16, 64)
	must(t, err)
	if extra := caps &^ (1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_RESOURCE); extra != 0 {
		t.Errorf("%s has capabilities %#x too many", name, extra)
	}
	if procField(t, pid, "status", "NoNewPrivs") != "1" {
		t.Errorf("%s can get new privileges", name)
	}
}

// TestSignals sends the keeper what terminals and service managers send.
func TestSignals(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{})
	server := k.server(t)
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE} {
		must(t, unix.Kill(k.PID(), s))
	}
	must(t, unix.Kill(server, unix.SIGHUP))
	must(t, unix.Kill(server, unix.SIGTERM)) // a crash, to the keeper
	k.server(t, server)
	if err := readUncached(filepath.Join(k.dir, "f00"), make([]byte, sampleSize), k.content["f00"]); err != nil {
		t.Error(err)
	}
	k.unmount(t)
}

// TestKeeperKilled: without the keeper all ends, and nobody waits for ever.
func TestKeeperKilled(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{})
	server := k.server(t)
	must(t, unix.Kill(k.PID(), unix.SIGKILL))
	if err := k.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("wait: %v", err)
	}
	waitGone(t, server)
	// ECONNABORTED if the last thread of a dead process still had a descriptor when the request was made.
	if _, err := os.ReadDir(k.dir); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("read: %v", err)
	}
	must(t, unix.Unmount(k.dir, 0))
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if isGone(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d is still there after 5 s", pid)
}

// isGone also says so of a process that is dead and not reaped, which is its
// adoptive parent's business.
func isGone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err != nil || strings.Contains(string(b), "\nState:\tZ")
}

// TestNoRestart is also what happens where the kernel can't send requests again.
func TestNoRestart(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{NoRestart: true})
	must(t, unix.Kill(k.server(t), unix.SIGKILL))
	if err := k.Wait(); err == nil {
		t.Error("keeper ended as after unmounting")
	}
	if _, err := os.ReadDir(k.dir); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("read: %v", err)
	}
	if log, err := os.ReadFile(k.log); err != nil || !strings.Contains(string(log), "signal 9") {
		t.Errorf("log %q, %v", log, err)
	}
	must(t, unix.Unmount(k.dir, 0))
}

// TestCycles mounts and unmounts, and looks for what stays.
func TestCycles(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{}) // opens what the runtime opens once
	k.unmount(t)
	before := openDescriptors(t)
	cycles := 200
	if raceDetector {
		cycles = 10 // it has each process wait for a second before it ends
	}
	for range cycles {
		l := NewLauncher(Options{})
		p, closeAll := k.plan(t, l.Start, k.dir)
		must(t, p.Do(context.Background()))
		closeAll()
		must(t, unix.Unmount(k.dir, 0))
		must(t, l.Wait())
	}
	if now := openDescriptors(t); now > before {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
	nothingLeft(t)
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestStartFails: the error of the server is the starter's.
func TestStartFails(t *testing.T) {
	needSessions(t)
	s := newSample(t)
	none, err := os.Open("/dev/null")
	must(t, err)
	defer none.Close()
	for name, c := range map[string]struct {
		o      Options
		change func(v *mount.Serving)
		want   func(err error) bool
	}{
		"digest": {change: func(v *mount.Serving) {
			v.Service.Image, v.Digest = mount.ImageBlocks, fsverity.Sum(fsverity.SHA256, nil)
		}, want: says("has digest " + s.digest.String())},
		"image":     {change: func(v *mount.Serving) { v.Image = none }, want: func(err error) bool { return err != nil }},
		"device":    {change: func(v *mount.Serving) { v.Device = none }, want: says("clone")},
		"log":       {o: Options{Log: "/nonexistent/log"}, want: isNotExist},
		"exe":       {o: Options{Exe: "/nonexistent/exe"}, want: isNotExist},
		"no keeper": {o: Options{Exe: "/bin/true"}, want: says("keeper.Main")},
	} {
		v := s.serving(t, rawMount(t))
		if c.change != nil {
			c.change(&v)
		}
		l := NewLauncher(c.o)
		if err := l.Start(context.Background(), v); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		nothingLeft(t)
	}
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

func says(text string) func(error) bool {
	return func(err error) bool { return err != nil && strings.Contains(err.Error(), text) }
}

// nothingLeft wants no child of this process.
func nothingLeft(t *testing.T) {
	t.Helper()
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestLauncherMisuse: one launcher is one keeper.
func TestLauncherMisuse(t *testing.T) {
	l := NewLauncher(Options{})
	if l.Wait() == nil || l.PID() != 0 {
		t.Error("nothing was started")
	}
	needSessions(t)
	k := mountSample(t, Options{})
	if err := k.Start(context.Background(), mount.Serving{}); err == nil {
		t.Error("started twice")
	}
	k.unmount(t)
}

// TestCancelled: nothing is left of a start that nobody waits for any more.
func TestCancelled(t *testing.T) {
	needSessions(t)
	dev := rawMount(t)
	init := make([]byte, 8192)
	_, err := unix.Read(int(dev.Fd()), init) // so the server waits for it in vain
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l := NewLauncher(Options{})
	server := make(chan int, 1)
	go func() {
		server <- grandchild(ctx)
		cancel()
	}()
	if err := l.Start(ctx, newSample(t).serving(t, dev)); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v", err)
	}
	nothingLeft(t)
	waitGone(t, <-server)
}

// grandchild waits until this process has one.
func grandchild(ctx context.Context) int {
	for ctx.Err() == nil {
		for _, c := range children(os.Getpid()) {
			if g := children(c); len(g) > 0 {
				return g[0]
			}
		}
		time.Sleep(time.Millisecond)
	}
	return 0
}

// TestGivesUp: a server that can't begin is not started for ever.
func TestGivesUp(t *testing.T) {
	needSessions(t)
	s := newSample(t)
	s.digest = fsverity.Digest{} // no sealed copy: the file itself is served
	k, err := tryMount(t, s, Options{})
	must(t, err)
	server := k.server(t)
	must(t, os.Truncate(s.image, 100))
	must(t, unix.Kill(server, unix.SIGKILL))
	if err := k.Wait(); err == nil {
		t.Error("keeper ended as after unmounting")
	}
	if _, err := os.ReadDir(k.dir); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("read: %v", err)
	}
	if log, err := os.ReadFile(k.log); err != nil || !strings.Contains(string(log), "died as soon as they ran") {
		t.Errorf("log %q, %v", log, err)
	}
	must(t, unix.Unmount(k.dir, 0))
}

// maxAnonymous is what each process may have in memory of its own, bytes.
const maxAnonymous = 4 << 20

// TestMemory looks at keeper and server when every file was read.
func TestMemory(t *testing.T) {
	needSessions(t)
	if raceDetector {
		t.Skip("the race detector has memory of its own")
	}
	k := mountSample(t, Options{})
	r := k.startReaders(2)
	time.Sleep(200 * time.Millisecond)
	_, err := r.finish()
	must(t, err)
	for name, pid := range map[string]int{"keeper": k.PID(), "server": k.server(t)} {
		var kib int64
		_, err := fmt.Sscanf(procField(t, pid, "status", "RssAnon"), "%d kB", &kib)
		must(t, err)
		t.Logf("%s: RssAnon %d KiB", name, kib)
		if kib<<10 > maxAnonymous {
			t.Errorf("%s has %d KiB, more than %d", name, kib, maxAnonymous>>10)
		}
	}
	k.unmount(t)
}
