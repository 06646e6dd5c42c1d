package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/mount"
	"github.com/flatroot/flatroot/tests/testenv"
)

const exampleUnit = "../../doc/examples/srv-web.mount"

// TestUnit: the example has options that we know.
func TestUnit(t *testing.T) {
	b, err := os.ReadFile(exampleUnit)
	must(t, err)
	found := false
	for line := range strings.Lines(string(b)) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), "Options="); ok {
			found = true
			_, err := mount.ParseOptions(list, false)
			must(t, err)
		}
	}
	if !found {
		t.Error("no options")
	}
}

// TestUnitVerify: systemd takes the example as it is.
func TestUnitVerify(t *testing.T) {
	testenv.Need(t, "root")
	analyze := testenv.Peer(t, "systemd-analyze")
	unit, err := filepath.Abs(exampleUnit)
	must(t, err)
	// It tells of mistakes, and exits 0 all the same.
	if code, out := tool(t, analyze, "verify", "--man=no", unit); code != 0 || strings.TrimSpace(out) != "" {
		t.Errorf("exit %d: %s", code, out)
	}
}
