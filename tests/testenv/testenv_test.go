package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

// outcome runs Need in a test of its own, without letting it end ours.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Skipf(string, ...any)  { o.skipped = true; panic(o) }
func (o *outcome) Fatalf(string, ...any) { o.failed = true; panic(o) }

func need(capability string) (o *outcome) {
	o = new(outcome)
	defer func() {
		if r := recover(); r != nil && r != any(o) {
			panic(r)
		}
	}()
	Need(o, capability)
	return o
}

func TestNeed(t *testing.T) {
	const absent = "no-such-program-of-anyone"
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "present"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FLATROOT_PEERS", dir)

	for _, c := range []struct {
		suite, noSkip, capability string
		skipped, failed           bool
	}{
		{"", "", "present", false, false},
		{"", "", absent, true, false},
		{"", "1", absent, true, false},
		{unit, "1", "present", true, false},
		{unit, "1", absent, true, false},
		{unit, "1", "root", true, false},
		{unit, "1", "user", os.Geteuid() == 0, false},
		{root, "1", absent, true, false},
		{root, "1", "verity", true, false},
		{peers, "1", "present", false, false},
		{peers, "", absent, true, false},
		{peers, "1", absent, false, true},
		{peers, "1", "ptrace", true, false},
		{vm, "1", absent, true, false},
		{vm, "1", rootPrograms[0], true, false},
		{crash, "1", absent, true, false},
	} {
		t.Setenv("FLATROOT_TEST", c.suite)
		t.Setenv("FLATROOT_NO_SKIP", c.noSkip)
		o := need(c.capability)
		if o.skipped != c.skipped || o.failed != c.failed {
			t.Errorf("suite %q, no skip %q, %s: skipped %t, failed %t; want %t, %t",
				c.suite, c.noSkip, c.capability, o.skipped, o.failed, c.skipped, c.failed)
		}
		have, err := Condition(c.capability)
		if have == (c.skipped || c.failed) || (err != nil) != c.failed {
			t.Errorf("suite %q, no skip %q, [%s]: %t, %v", c.suite, c.noSkip, c.capability, have, err)
		}
	}
}

func TestPeerPath(t *testing.T) {
	t.Setenv("FLATROOT_TEST", "")
	t.Setenv("FLATROOT_PEERS", "")
	dir := t.TempDir()
	want := filepath.Join(dir, "tool")
	if err := os.WriteFile(want, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got := Peer(t, "tool"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProbes(t *testing.T) {
	for name := range probes {
		t.Logf("%s: %v", name, probe(name)) // whatever the answer, none may panic or hang
	}
	if (probeRoot() == nil) == (probeUser() == nil) {
		t.Error("root and user must exclude each other")
	}
}
