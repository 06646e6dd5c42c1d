package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci/ocitest"
)

// brokenRegistry is a real registry with an image of one layer, behind faults.
func brokenRegistry(t *testing.T) (f *ocitest.Faults, layer ocitest.Blob, ref string) {
	t.Helper()
	t.Setenv("CONTAINERS_REGISTRIES_CONF", os.DevNull)
	data := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	b, err := ocitest.Image{Layers: [][]byte{ocitest.Tar(ocitest.File{Name: "random", Data: string(data)})}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	f = &ocitest.Faults{Registry: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	if err := b.Push(srv.URL, "os/web", "v1"); err != nil {
		t.Fatal(err)
	}
	f.Forget()
	return f, b.Blobs[0], strings.TrimPrefix(srv.URL, "http://") + "/os/web:v1"
}

// strikeLayer does something to the requests for a layer, the first n of them.
func strikeLayer(f *ocitest.Faults, layer ocitest.Blob, n int, fault ocitest.Fault) {
	f.StrikeBy(func(r *http.Request) ocitest.Fault {
		if !strings.HasSuffix(r.URL.Path, layer.Descriptor.Digest.String()) || n == 0 {
			return ocitest.Fault{}
		}
		n--
		return fault
	})
}

// program is a path at which this test is the command.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/flatroot"
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs the command as a process of its own.
func start(t *testing.T, stderr io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// waitUntil waits for something that takes no longer than half a minute.
func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in half a minute", what)
		}
	}
}

// pullReport pulls and reads the report.
func pullReport(t *testing.T, ref string) (r index.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(mustRun(t, "pull", ref, "--json")), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestKilledPull kills pulls while a layer comes: the next one goes on where they were, and gc removes what was kept.
func TestKilledPull(t *testing.T) {
	f, layer, ref := brokenRegistry(t)
	dir := t.TempDir()
	t.Setenv(storeVariable, dir+"/whole")
	mustRun(t, "init")
	want := pullReport(t, ref)
	t.Setenv(storeVariable, dir+"/store")
	mustRun(t, "init")
	partial := dir + "/store/flatroot/partial/" + layer.Descriptor.Digest.String()
	kill := func(at int64) {
		t.Helper()
		strikeLayer(f, layer, 1, ocitest.Fault{Cut: at, Stall: true})
		cmd := start(t, nil, "pull", ref)
		waitUntil(t, "the layer's beginning", func() bool {
			st, err := os.Stat(partial)
			return err == nil && st.Size() == at
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if out := mustRun(t, "images"); out != "" {
			t.Errorf("an image was named: %s", out)
		}
		if out := mustRun(t, "fsck"); !strings.Contains(out, "unfinished") {
			t.Errorf("fsck says %q", out)
		}
	}
	size := layer.Descriptor.Size
	kill(size / 3)
	kill(size / 2)
	f.Forget()
	r := pullReport(t, ref)
	if r.Image != want.Image || r.Bytes.Resumed != size/2 || r.Bytes.Fetched != size-size/2 {
		t.Errorf("%+v", r)
	}
	requests := f.Blobs()[layer.Descriptor.Digest.String()]
	if len(requests) != 1 || requests[0].First != size/2 {
		t.Errorf("asked for %v", requests)
	}

	mustRun(t, "rm", ref)
	mustRun(t, "gc")
	kill(size / 4)
	mustRun(t, "gc")
	if _, err := os.Stat(partial); !os.IsNotExist(err) {
		t.Errorf("gc left it: %v", err)
	}
	if r := pullReport(t, ref); r.Bytes.Resumed != 0 || r.Image != want.Image {
		t.Errorf("%+v", r)
	}
}

// TestPullTells says why a pull waits, and ends the wait when it is interrupted.
func TestPullTells(t *testing.T) {
	f, layer, ref := brokenRegistry(t)
	t.Setenv(storeVariable, t.TempDir()+"/store")
	mustRun(t, "init")
	strikeLayer(f, layer, 1, ocitest.Fault{Cut: 500_000})
	status, _, stderr := flatroot(t, "pull", ref, "--progress=plain")
	if status != exitOK || !strings.Contains(stderr, "broke off after 500000 of ") || !strings.Contains(stderr, "; trying again in ") {
		t.Errorf("status %d: %s", status, stderr)
	}
	mustRun(t, "rm", ref)
	mustRun(t, "gc")

	strikeLayer(f, layer, 1, ocitest.Fault{Status: 503, RetryAfter: "200"})
	var talk bytes.Buffer
	cmd := start(t, &talk, "pull", ref, "--progress=plain")
	waitUntil(t, "the refusal", func() bool { return len(f.Blobs()[layer.Descriptor.Digest.String()]) == 3 })
	time.Sleep(100 * time.Millisecond) // it waits, or will at once
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_ = cmd.Wait() // its status is looked at
	if d := time.Since(begin); cmd.ProcessState.ExitCode() != exitFailed || d > 10*time.Second || !strings.HasSuffix(talk.String(), "flatroot: interrupted\n") {
		t.Errorf("status %d after %v: %s", cmd.ProcessState.ExitCode(), d, talk.String())
	}

	if status, _, stderr := flatroot(t, "pull", ref, "--jobs", "0"); status != exitUsage || !strings.Contains(stderr, "--jobs=0: want 1 to 64") {
		t.Errorf("status %d: %s", status, stderr)
	}
	mustRun(t, "pull", ref, "--jobs", "1")
}

// TestPullFromMirror pulls from a mirror what is called by the registry's name.
func TestPullFromMirror(t *testing.T) {
	_, _, ref := brokenRegistry(t)
	host, _, _ := strings.Cut(ref, "/")
	conf := t.TempDir() + "/registries.conf"
	text := "[[registry]]\nprefix = \"img.example\"\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"" + host + "\"\n" +
		"[[registry]]\nlocation = \"bad.example\"\nblocked = true\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir() + "/store"
	run := func(args ...string) (string, error) {
		cmd := exec.Command(program(t), args...)
		cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+conf, storeVariable+"="+store)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("init"); err != nil {
		t.Fatal(out)
	}
	if out, err := run("pull", "img.example/os/web:v1"); err != nil {
		t.Fatal(out)
	}
	out, err := run("images", "--json")
	if err != nil || !strings.Contains(out, `"img.example/os/web:v1"`) || strings.Contains(out, host) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("pull", "bad.example/os/web:v1"); err == nil || !strings.Contains(out, "blocks this registry") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestPullTellsOfMirrors says which host gave a layer wrong, and what was wrong with it.
func TestPullTellsOfMirrors(t *testing.T) {
	f, layer, ref := brokenRegistry(t)
	t.Setenv(storeVariable, t.TempDir()+"/store")
	mustRun(t, "init")
	want := mustRun(t, "pull", ref, "--progress=none")
	mustRun(t, "rm", ref)
	mustRun(t, "gc")
	mirror := &ocitest.Faults{Registry: f.Registry}
	srv := httptest.NewServer(mirror)
	t.Cleanup(srv.Close)
	host, _, _ := strings.Cut(ref, "/")
	at := strings.TrimPrefix(srv.URL, "http://")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", tempFile(t, "registries.conf",
		fmt.Appendf(nil, "[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", host, at)))
	strikeLayer(mirror, layer, 1, ocitest.Fault{Spoil: true})
	var stderr bytes.Buffer
	cmd := exec.Command(program(t), "pull", ref, "--progress=plain") // a process of its own, since the file is read once
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	said := "blob " + layer.Descriptor.Digest.String() + ": " + at + " gave it wrong: "
	if err != nil || string(out) != want || !strings.Contains(stderr.String(), said) || !strings.Contains(stderr.String(), "; asking "+host+"\n") {
		t.Errorf("%v, %q: %s", err, out, &stderr)
	}
}
