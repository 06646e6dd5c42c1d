// Package testenv tells tests what the machine can do, and decides whether a test that finds less skips or fails.
//
// A capability is a word: "root", "mount", "erofs", "overlay", "loop", "fuse", "verity", "ptrace", "crash", "user", or else
// the name of a program, such as "mkcomposefs" or "fsck.erofs". Each belongs to a suite, and FLATROOT_TEST says which suite runs:
//
//	(unset)  whatever the machine can do; what it can't is skipped
//	unit     nothing beyond Go and any user's rights, and "user" (not being root) where it holds: `make test`
//	root     also root, mount, erofs, overlay, loop, fuse and the programs of rootPrograms: `make test-root`
//	peers    all of root, and every other program, first looked for in $FLATROOT_PEERS/bin: `make test-peers`
//	vm       all of root but its programs, and verity, in a virtual machine whose kernel has fs-verity: `make test-vm`
//	crash    all of root, ptrace and crash: `make crash`, which runs tests/crash, tests/powercut and tests/soak
//
// With FLATROOT_NO_SKIP=1, as in CI, a capability that the running suite has but the machine lacks fails the test. One that
// the suite doesn't have is always a skip, since another suite demands it. That makes a skipped test visible once, where it
// matters, and lets `make test` pass as any user.
//
//	func TestMount(t *testing.T) {
//		testenv.Need(t, "mount", "erofs")
//		...
//	}
//	func TestAgainstC(t *testing.T) {
//		mkcomposefs := testenv.Peer(t, "mkcomposefs")
//		...
//	}
//	testscript.Params{Condition: testenv.Condition}   // [root] [mkcomposefs] in a script
//
// Two more switches: FLATROOT_NIGHTLY=1 asks for long figures (Nightly), FLATROOT_UPDATE=1 for golden files to be written
// anew instead of compared with (Update).
//
// The package imports nothing of flatroot's, so that any package's tests may use it.
package testenv

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// The suites that FLATROOT_TEST may name.
const (
	unit  = "unit"
	root  = "root"
	peers = "peers"
	vm    = "vm"
	crash = "crash"
)

// Need skips the test, or fails it, unless the machine has all the capabilities and the running suite uses them.
func Need(t testing.TB, capabilities ...string) {
	t.Helper()
	for _, c := range capabilities {
		demanded, err := check(c)
		switch {
		case err == nil:
		case demanded:
			t.Fatalf("FLATROOT_NO_SKIP forbids to skip: %v", err)
		default:
			t.Skipf("skipped: %v", err)
		}
	}
}

// Peer is Need for one program and returns its path.
func Peer(t testing.TB, name string) string {
	t.Helper()
	Need(t, name)
	path, err := lookPath(name)
	if err != nil {
		t.Fatal(err) // it was there a moment ago
	}
	return path
}

// Condition tells a script of testscript whether a capability is there: `[!root] skip 'needs root'`. The error, which fails
// the script, is for one that must be there and isn't.
func Condition(capability string) (bool, error) {
	demanded, err := check(capability)
	if err != nil && demanded {
		return false, fmt.Errorf("FLATROOT_NO_SKIP forbids to skip: %w", err)
	}
	return err == nil, nil
}

// Nightly tells whether to run at the sizes of `make nightly`, which may take hours, or at those of every change.
func Nightly() bool { return os.Getenv("FLATROOT_NIGHTLY") == "1" }

// OneGoroutine skips, where the race detector watches, a long test that has one goroutine only: there it finds nothing that
// it doesn't find without.
func OneGoroutine(t testing.TB) {
	t.Helper()
	if Racing {
		t.Skip("has one goroutine only: nothing for the race detector to find")
	}
}

// Update tells whether to write golden files anew, as `make golden` does.
func Update() bool { return os.Getenv("FLATROOT_UPDATE") == "1" }

// check returns why the capability can't be used, or nil, and whether that must not be.
func check(capability string) (demanded bool, err error) {
	running := os.Getenv("FLATROOT_TEST")
	if running == "" {
		return false, probe(capability)
	}
	suites := suitesOf(capability)
	if !slices.Contains(suites, running) {
		return false, fmt.Errorf("%s is for the suites %v, this is %s", capability, suites, running)
	}
	return running != unit && os.Getenv("FLATROOT_NO_SKIP") == "1", probe(capability)
}

// suitesOf names the suites that use a capability.
func suitesOf(capability string) []string {
	switch {
	case capability == "verity":
		return []string{vm}
	case capability == "ptrace" || capability == "crash":
		return []string{crash}
	case capability == "user":
		return []string{unit}
	case probes[capability] != nil:
		return []string{root, peers, vm, crash}
	case slices.Contains(rootPrograms, capability):
		return []string{root, peers, crash} // the virtual machine has no programs but our own
	default:
		return []string{peers}
	}
}
