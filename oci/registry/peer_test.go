package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/oci/registry"
	"github.com/flatroot/flatroot/tests/testenv"
)

// listening is what Docker's registry says once it can be asked.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// dockerRegistry starts Docker's registry on a port of this machine, and ends it after the test.
func dockerRegistry(t *testing.T) (host string) {
	t.Helper()
	program := testenv.Peer(t, "docker-registry")
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n", filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "serve", config)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	said := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				said <- m[1]
			}
		}
	}()
	select {
	case host = <-said:
	case <-time.After(30 * time.Second):
		t.Fatal("docker-registry does not come up")
	}
	return host
}

// TestDockerRegistry cuts the layers of images in Docker's registry.
func TestDockerRegistry(t *testing.T) {
	host := dockerRegistry(t)
	b, err := ocitest.Image{Layers: [][]byte{random(300_000)}, Platform: amd64}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Push("http://"+host, "org/app", "v1"); err != nil {
		t.Fatal(err)
	}
	f := &ocitest.Faults{Registry: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})}
	front := serve(t, f)
	layer := b.Find("layer").Descriptor
	for _, at := range cuts(layer.Size) {
		f.Forget()
		struck := false
		f.StrikeBy(func(r *http.Request) ocitest.Fault {
			if about(b, r) != "layer" || struck {
				return ocitest.Fault{}
			}
			struck = true
			return ocitest.Fault{Cut: at}
		})
		if err := fetch(context.Background(), open(t, front, "org/app:v1", registry.Options{Retry: hasty})); err != nil {
			t.Fatalf("cut at %d: %v", at, err)
		}
		got := f.Blobs()[layer.Digest.String()]
		if len(got) != 2 || got[1].First != at || got[0].Bytes+got[1].Bytes != layer.Size {
			t.Errorf("cut at %d: asked for %v", at, got)
		}
	}
	_, err = open(t, host, "org/app:nothing", registry.Options{}).Image(context.Background())
	wantError(t, err, "404 Not Found", "MANIFEST_UNKNOWN", "/v2/org/app/manifests/nothing")
}
