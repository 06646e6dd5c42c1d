package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// world is what mounts could leave behind. All processes are those of our namespace, so nobody else's are counted.
type world struct {
	descriptors int // of this process
	mounts      int
	processes   map[int]string // but threads that are about to end
	memory      int            // sealed images that some process holds
	loops       int            // loop devices of such, and of files below our directories
}

func (w world) String() string {
	return fmt.Sprintf("%d descriptors, %d mounts, %d images in memory, %d loop devices, processes %v",
		w.descriptors, w.mounts, w.memory, w.loops, w.processes)
}

// memoryImage is how the kernel names the sealed copies of images.
const memoryImage = "/memfd:flatroot-image"

func look(t testing.TB) world {
	t.Helper()
	w := world{processes: map[int]string{}}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	w.mounts = strings.Count(string(mounts), "\n")
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		fds := descriptors(dir)
		if pid == os.Getpid() {
			w.descriptors = len(fds)
		}
		for _, f := range fds {
			if strings.HasPrefix(f, memoryImage) {
				w.memory++
			}
		}
		if name := nameOf(dir); name != "" {
			w.processes[pid] = name
		}
	}
	w.loops = loops(t)
	return w
}

// descriptors are what a process has open, but for the descriptor that lists them.
func descriptors(dir string) (to []string) {
	list, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil // ended
	}
	for _, e := range list {
		if l, err := os.Readlink(dir + "/fd/" + e.Name()); err == nil {
			to = append(to, l)
		}
	}
	return to
}

// nameOf is a process's command line, "(defunct)" if it has none left; empty: there is no such process any more.
func nameOf(dir string) string {
	b, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return ""
	}
	if len(b) == 0 {
		return "(defunct)"
	}
	return strings.ReplaceAll(strings.TrimSuffix(string(b), "\x00"), "\x00", " ")
}

func loops(t testing.TB) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f) // gone again: nobody's
		if err == nil && (strings.HasPrefix(string(b), memoryImage) || strings.HasPrefix(string(b), os.TempDir())) {
			n++
		}
	}
	return n
}

// settleTime is what the kernel may take to end what nobody uses any more. Loop devices may also be those of other packages'
// tests, which end some time.
const settleTime = 15 * time.Second

// same fails if there is more than there was before.
func (w world) same(t testing.TB, when string) {
	t.Helper()
	var now world
	for end := time.Now().Add(settleTime); ; time.Sleep(20 * time.Millisecond) {
		now = look(t)
		if now.descriptors <= w.descriptors && now.mounts <= w.mounts && len(now.processes) <= len(w.processes) &&
			now.memory <= w.memory && now.loops <= w.loops {
			return
		}
		if time.Now().After(end) {
			break
		}
	}
	t.Errorf("%s:\nbefore %v\nnow    %v", when, w, now)
}

// mountedAt tells whether something is mounted on a directory.
func mountedAt(t testing.TB, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Contains(string(b), " "+dir+" ")
}

// soon does something that may hang, and gives up after a while.
func soon(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(settleTime):
		return unix.ETIMEDOUT
	}
}
