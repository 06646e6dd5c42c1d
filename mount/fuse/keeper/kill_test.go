package keeper

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/tests/testenv"
	"github.com/flatroot/flatroot/tree"
)

// TestKilledServer kills the server again and again while files are read.
func TestKilledServer(t *testing.T) {
	needSessions(t)
	k := mountSample(t, Options{})
	for_, reading := 10*time.Second, 4
	if testenv.Nightly() {
		for_ = time.Minute
	}
	r := k.startReaders(reading)
	kills, last := 0, 0
	for end := time.Now().Add(for_); time.Now().Before(end); {
		last = k.server(t, last)
		time.Sleep(100 * time.Millisecond)
		must(t, unix.Kill(last, unix.SIGKILL))
		kills++
	}
	reads, err := r.finish()
	if err != nil {
		t.Error(err)
	}
	if reads < int64(kills) {
		t.Errorf("%d reads beside %d kills: readers stand still", reads, kills)
	}
	t.Logf("%d servers killed, %d files read", kills, reads)
	k.unmount(t)
}

// TestKilledWhileReading kills a server in the middle of a READ, which its
// successor has to answer. The objects are on another kept file system, whose
// server is stopped so that the READ takes as long as the test wants.
func TestKilledWhileReading(t *testing.T) {
	needSessions(t)
	below := newSample(t)
	objects := mountObjects(t, below)
	above := *below
	above.objects = objects.dir
	k, err := tryMount(t, &above, Options{})
	must(t, err)

	stopped := objects.server(t)
	must(t, unix.Kill(stopped, unix.SIGSTOP))
	waitThreads(t, stopped, "stat", ") T ")
	done := make(chan error, 1)
	go func() {
		done <- readUncached(filepath.Join(k.dir, "f00"), make([]byte, sampleSize), k.content["f00"])
	}()
	last := 0
	for range 3 {
		last = k.server(t, last)
		waitThreads(t, last, "wchan", "request_wait_answer")
		must(t, unix.Kill(last, unix.SIGKILL))
	}
	waitThreads(t, k.server(t, last), "wchan", "request_wait_answer") // by the request that three have died of
	select {
	case err := <-done:
		t.Errorf("read before there was anything: %v", err)
	default:
	}
	must(t, unix.Kill(stopped, unix.SIGCONT))
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("no answer after 10 s")
	}
	k.unmount(t)
	objects.unmount(t)
}

// mountObjects mounts a tree that is the object directory of s.
func mountObjects(t *testing.T, s *sample) *kept {
	t.Helper()
	tr := tree.New(fsverity.SHA256, tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
	for _, c := range s.content {
		d := fsverity.Sum(fsverity.SHA256, c)
		dir, name, _ := strings.Cut(d.ObjectPath(), "/")
		parent, err := tr.Add(tree.Root, []byte(dir), tree.Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2})
		must(t, err)
		n, err := tr.Add(parent, []byte(name), tree.Attr{Mode: unix.S_IFREG | 0o444, Nlink: 1, Size: uint64(len(c))})
		must(t, err)
		must(t, tr.SetObject(n, d))
	}
	o := &sample{image: filepath.Join(t.TempDir(), "image"), objects: s.objects}
	o.write(t, tr)
	k, err := tryMount(t, o, Options{})
	must(t, err)
	return k
}

// waitThreads waits until a file in /proc of a thread of the process has the text,
// or of all threads if it is about their state.
func waitThreads(t *testing.T, pid int, file, text string) {
	t.Helper()
	for range 500 {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/%s", pid, file))
		n := 0
		for _, f := range threads {
			if b, _ := os.ReadFile(f); strings.Contains(string(b), text) {
				n++
			}
		}
		if n > 0 && (file != "stat" || n == len(threads)) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("server %d has no %q in %s after 5 s", pid, text, file)
}

// TestKilledPassthrough: a file that is open with a backing file of the dead server
// can be read and opened again.
func TestKilledPassthrough(t *testing.T) {
	needSessions(t)
	s := newSample(t)
	s.passthrough = true
	k, err := tryMount(t, s, Options{})
	must(t, err)
	path, buf := filepath.Join(k.dir, "f00"), make([]byte, sampleSize)
	held, err := os.Open(path)
	must(t, err)
	defer held.Close()
	server := k.server(t)
	must(t, unix.Kill(server, unix.SIGKILL))
	k.server(t, server)
	if _, err := held.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, k.content["f00"]) {
		t.Errorf("open from before: %v", err)
	}
	for _, name := range []string{"f00", "f00", "f01", "f00"} {
		if err := readUncached(filepath.Join(k.dir, name), buf, k.content[name]); err != nil {
			t.Error(err)
		}
	}
	must(t, held.Close())
	if err := readUncached(path, buf, k.content["f00"]); err != nil {
		t.Errorf("when nothing is open from before: %v", err)
	}
	k.unmount(t)
}
