package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is a copy of this one, which can be replaced.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flatroot")
	install(t, path)
	return path
}

// install replaces the program as package managers do, by a new file.
func install(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(path+".new", b, 0o755))
	must(t, os.Rename(path+".new", path))
}

// runs waits until the process pid runs the file at path.
func runs(t *testing.T, pid int, path string) {
	t.Helper()
	want, err := os.Stat(path)
	must(t, err)
	for range 500 {
		got, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && os.SameFile(got, want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d doesn't run %s after 5 s", pid, path)
}

// TestUpgrade replaces the program of a mounted file system while it is read.
func TestUpgrade(t *testing.T) {
	needSessions(t)
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough=%v", passthrough), func(t *testing.T) { testUpgrade(t, passthrough) })
	}
}

func testUpgrade(t *testing.T, passthrough bool) {
	exe := program(t)
	s := newSample(t)
	s.passthrough = passthrough
	k, err := tryMount(t, s, Options{Exe: exe})
	must(t, err)
	r := k.startReaders(4)
	server := k.server(t)
	for range 5 {
		install(t, exe)
		must(t, unix.Kill(k.PID(), unix.SIGHUP))
		server = k.server(t, server)
		runs(t, server, exe)
		runs(t, k.PID(), exe)
	}
	// What the keeper has become still does all that it did.
	must(t, unix.Kill(server, unix.SIGKILL))
	runs(t, k.server(t, server), exe)
	time.Sleep(100 * time.Millisecond)
	reads, err := r.finish()
	if err != nil || reads == 0 {
		t.Errorf("%d files read, errors: %v", reads, err)
	}
	k.unmount(t)
}

// TestFailedUpgrade: a program that doesn't work is not taken.
func TestFailedUpgrade(t *testing.T) {
	needSessions(t)
	exe := program(t)
	k := mountSample(t, Options{Exe: exe})
	server := k.server(t)
	for _, c := range []struct {
		text string
		mode os.FileMode
	}{
		{"#!/bin/sh\nexit 3\n", 0o755},
		{"no program\n", 0o755},
		{"#!/bin/sh\nexit 3\n", 0o644},
		{"", 0},
	} {
		os.Remove(exe)
		if c.mode != 0 {
			must(t, os.WriteFile(exe, []byte(c.text), c.mode))
		}
		before := logged(t, k)
		must(t, unix.Kill(k.PID(), unix.SIGHUP))
		for range 500 {
			if logged(t, k) > before {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := logged(t, k); n != before+1 {
			t.Errorf("%q: %d messages instead of one", c.text, n-before)
		}
		if got := k.server(t); got != server {
			t.Errorf("%q: server %d was replaced", c.text, server)
		}
	}
	if err := readUncached(filepath.Join(k.dir, "f00"), make([]byte, sampleSize), k.content["f00"]); err != nil {
		t.Error(err)
	}
	k.unmount(t)
}

func logged(t *testing.T, k *kept) int {
	t.Helper()
	b, err := os.ReadFile(k.log)
	must(t, err)
	return strings.Count(string(b), "the server that runs goes on")
}

// TestFailedUpgradePassthrough: there the server that runs stops first, and another
// of the same program follows.
func TestFailedUpgradePassthrough(t *testing.T) {
	needSessions(t)
	exe := program(t)
	s := newSample(t)
	s.passthrough = true
	k, err := tryMount(t, s, Options{Exe: exe})
	must(t, err)
	server := k.server(t)
	for _, text := range []string{"#!/bin/sh\nexit 3\n", "no program\n"} {
		must(t, os.Remove(exe))
		must(t, os.WriteFile(exe, []byte(text), 0o755))
		must(t, unix.Kill(k.PID(), unix.SIGHUP))
		for range 500 {
			if unix.Kill(server, 0) != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := readUncached(filepath.Join(k.dir, "f00"), make([]byte, sampleSize), k.content["f00"]); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		server = k.server(t, server)
	}
	k.unmount(t)
}
