package inguest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What ps shows of the processes behind a FUSE mount.
const (
	serverName = "flatroot-server"
	keeperName = "flatroot-keeper"
)

// processes are those whose argv[0] is the name.
func processes(t *testing.T, name string) (pids []int) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range found {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(b, append([]byte(name), 0)) {
			continue // gone meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		must(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// TestServerKilled kills servers while a tree is read: no reader sees an error, and nothing is left when it is unmounted.
func TestServerKilled(t *testing.T) {
	needGuest(t)
	const kills = 5
	ref := layout(t)
	for _, d := range []disk{verityDisk, plainDisk} {
		t.Run(d.name, func(t *testing.T) {
			v := newVictim(t, d, ref)
			d.each(t, func(t *testing.T, w way) {
				if w.want.Mode == "native" {
					return
				}
				v.again(t)
				target := t.TempDir()
				_, err := w.tryMount(v.dir, target)
				must(t, err)
				looks := v.readWhile(t, target, func() {
					for range kills {
						killServer(t)
					}
				})
				t.Logf("%d looks at all paths while %d servers were killed", looks, kills)
				unmount(t, target)
				for _, name := range []string{serverName, keeperName} {
					waitFor(t, name+" to end", func() bool { return len(processes(t, name)) == 0 })
				}
			})
		})
	}
}

// readWhile looks at all paths again and again until the function returns.
func (v *victim) readWhile(t *testing.T, target string, do func()) (looks int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		v.intact.wantIntact(t, target)
		looks++
		select {
		case <-done:
			return looks
		default:
			dropCaches(t)
		}
	}
}

// killServer kills the only server, when it has served for a moment, and waits for the next one.
func killServer(t *testing.T) {
	time.Sleep(150 * time.Millisecond)
	pids := processes(t, serverName)
	if len(pids) != 1 {
		t.Errorf("servers: %v, want one", pids)
		return
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Error(err)
	}
	waitFor(t, "another server", func() bool {
		next := processes(t, serverName)
		return len(next) == 1 && next[0] != pids[0]
	})
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(serverEnd); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited %v for %s", serverEnd, what)
			return
		}
	}
}
