package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// TestScrubUnits: systemd takes the units as they are, and the command that they run does its work.
func TestScrubUnits(t *testing.T) {
	testenv.Need(t, "root")
	analyze := testenv.Peer(t, "systemd-analyze")
	program, err := exec.LookPath("flatroot")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"flatroot-fsck.service", "flatroot-fsck.timer"} {
		b, err := os.ReadFile("../../doc/examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		unit := strings.ReplaceAll(string(b), "/usr/local/bin/flatroot", program)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		if line, ok := execStart(unit); ok {
			tryLine(t, append(strings.Fields(line), "--store", filepath.Join(dir, "store")))
		} else if strings.HasSuffix(name, ".service") {
			t.Errorf("%s runs nothing", name)
		}
	}
	// It tells of mistakes, and exits 0 all the same.
	out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "flatroot-fsck.timer")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%v: %s", err, out)
	}
}

func execStart(unit string) (string, bool) {
	for line := range strings.Lines(unit) {
		if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
			return command, true
		}
	}
	return "", false
}

// tryLine runs a command line on a new store, of which it is to note that it has read it.
func tryLine(t *testing.T, argv []string) {
	t.Helper()
	store := argv[len(argv)-1]
	flatroot := func(args ...string) []string { return append(append([]string{argv[0]}, args...), "--store", store) }
	for _, line := range [][]string{flatroot("init"), flatroot("build", "../../doc", "--name", "doc"), argv} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", line, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(store, "flatroot/scrub.json")); err != nil {
		t.Error(err)
	}
}
