package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// flatroot runs the command in this process and returns its status and what it said.
func flatroot(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	status = flatrootMain(args, console{stdin: strings.NewReader(""), stdout: &out, stderr: &talk})
	return status, out.String(), talk.String()
}

// mustRun is flatroot for what has to succeed; it returns standard output.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	status, stdout, stderr := flatroot(t, args...)
	if status != exitOK {
		t.Fatalf("flatroot %s: status %d\n%s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

// fakeRegistry serves images under tags, and remembers what was asked for.
type fakeRegistry struct {
	mu       sync.Mutex
	requests []string
}

func (r *fakeRegistry) serve(t *testing.T, b *ocitest.Built) (host string) {
	h := b.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, q.Method+" "+q.URL.Path)
		r.mu.Unlock()
		h.ServeHTTP(w, q)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// fetched lists the requests since the last call, those of authentication left out.
func (r *fakeRegistry) fetched() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.DeleteFunc(r.requests, func(s string) bool { return strings.HasSuffix(s, " /v2/") })
	r.requests = nil
	return list
}

func TestPullFromRegistry(t *testing.T) {
	t.Setenv(storeVariable, t.TempDir()+"/store")
	b, err := ocitest.Index{Images: []ocitest.Image{
		ocitest.Sample(oci.Platform{OS: "linux", Architecture: "s390x"}), ocitest.Sample(oci.DefaultPlatform()),
	}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	var r fakeRegistry
	ref := r.serve(t, b) + "/os/web:v1"
	mustRun(t, "init")
	var report, again index.Report
	pull := func(into *index.Report) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustRun(t, "pull", ref, "--json")), into); err != nil {
			t.Fatal(err)
		}
	}
	pull(&report)
	if report.Name != ref || report.Layers.Total != 2 || report.Layers.Fetched != 2 || report.Objects.New != 1 {
		t.Errorf("got %+v", report)
	}
	r.fetched()

	pull(&again)
	if want := []string{"HEAD /v2/os/web/manifests/v1"}; !slices.Equal(r.fetched(), want) {
		t.Errorf("to pull again took %q, not %q", r.requests, want)
	}
	if again.Image != report.Image || again.Layers.Reused != 2 || again.Layers.Fetched != 0 {
		t.Errorf("again: %+v", again)
	}

	// A name in the store goes before the registry, unless the transport is given.
	if got := strings.TrimSpace(mustRun(t, "digest", ref)); got != report.Image.String() || len(r.fetched()) > 0 {
		t.Errorf("digest of the name: %s", got)
	}
	if got := strings.TrimSpace(mustRun(t, "digest", "docker://"+ref)); got != report.Image.String() || len(r.fetched()) == 0 {
		t.Errorf("digest of the source: %s", got)
	}
	other := strings.TrimSpace(mustRun(t, "digest", "docker://"+ref, "--platform", "linux/s390x"))
	if other == report.Image.String() {
		t.Error("both platforms have one digest")
	}
	if status, _, stderr := flatroot(t, "pull", ref, "--platform", "linux/riscv64"); status != exitFailed || !strings.Contains(stderr, "linux/riscv64") {
		t.Errorf("a platform that is not there: status %d, %s", status, stderr)
	}
}

// TestInterrupt interrupts a build that waits for its input.
func TestInterrupt(t *testing.T) {
	t.Setenv(storeVariable, t.TempDir()+"/store")
	mustRun(t, "init")
	cmd := exec.Command(program(t), "build", "-", "--name", "x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Signals are caught once the program has come to reading, which it shows by taking bytes.
	if _, err := in.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || stderr.String() == "" {
		t.Errorf("status %d (%v), %q", code, err, stderr.String())
	}
	if !strings.HasSuffix(stderr.String(), "flatroot: interrupted\n") {
		t.Errorf("got %q", stderr.String())
	}
	if out := mustRun(t, "images"); out != "" {
		t.Errorf("an image was named: %s", out)
	}
}
