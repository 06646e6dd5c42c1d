package mounts

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReopened opens files of which others have been open since before the server was replaced.
func TestReopened(t *testing.T) {
	needMounts(t)
	img := writeGround(t, tmpfs(t), fewEntries)
	for _, m := range modes() {
		for name, replace := range map[string]func(t *testing.T){"killed": killServer, "upgraded": upgradeServer} {
			t.Run(m.name+", "+name, func(t *testing.T) {
				dir, _ := m.mount(t, img)
				var open []*os.File
				for range 4 {
					for range 2 {
						f, err := os.Open(dir + "/file")
						must(t, err)
						defer f.Close()
						open = append(open, f)
					}
					replace(t)
				}
				f, err := os.Open(dir + "/file")
				must(t, err)
				defer f.Close()
				for i, f := range append(open, f) {
					checkOpen(t, i, f)
				}
			})
		}
	}
}

// checkOpen reads a file and a mapping of it.
func checkOpen(t *testing.T, i int, f *os.File) {
	t.Helper()
	b := make([]byte, len(groundData)+1)
	n, _ := f.ReadAt(b, 0)
	if !bytes.Equal(b[:n], groundData) {
		t.Errorf("file %d: %d bytes", i, n)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(groundData), unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(m)
	if !bytes.Equal(m, groundData) {
		t.Errorf("mapping of file %d is wrong", i)
	}
}

func theServer(t *testing.T) int {
	t.Helper()
	pids := processesNamed(t, serverName)
	if len(pids) != 1 {
		t.Fatalf("servers: %v", pids)
	}
	return pids[0]
}

// killServer returns when another one answers.
func killServer(t *testing.T) {
	t.Helper()
	replaceServer(t, func(server int) { unix.Kill(server, unix.SIGKILL) })
}

func upgradeServer(t *testing.T) {
	t.Helper()
	replaceServer(t, func(int) {
		for _, pid := range processesNamed(t, keeperName) {
			must(t, unix.Kill(pid, unix.SIGHUP))
		}
	})
}

// replaceServer asks for another server until there is one. A keeper that has just become another program itself, after the
// request before, doesn't hear of it.
func replaceServer(t *testing.T, ask func(server int)) {
	t.Helper()
	old := theServer(t)
	for range 10 {
		ask(old)
		for end := time.Now().Add(settleTime / 5); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if pids := processesNamed(t, serverName); len(pids) == 1 && pids[0] != old {
				time.Sleep(60 * time.Millisecond) // one that dies sooner counts as one that can't run
				return
			}
		}
	}
	t.Fatalf("still server %d", old)
}
