// Package registries exchanges images with a real registry, and has other tools read what flatroot has written there.
package registries

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// program is the flatroot under test.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "registries-")
	if err != nil {
		log.Fatal(err)
	}
	program = filepath.Join(dir, "flatroot")
	// With the tag it can write to containers-storage if it is built with cgo, too.
	build := exec.Command("go", "build", "-tags", "exclude_graphdriver_btrfs", "-o", program, "../../cmd/flatroot")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// place is where a test works: a store, and no credentials.
type place struct {
	*testing.T
	dir string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t, t.TempDir()}
	p.flatroot("init")
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// run runs a program and returns its standard output.
func (p *place) run(name string, args ...string) string {
	p.Helper()
	out, err := p.try(name, args...)
	if err != nil {
		p.Fatal(err)
	}
	return out
}

func (p *place) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, p.dir
	cmd.Env = append(os.Environ(), "FLATROOT_STORE="+p.path("store"), "HOME="+p.dir, "REGISTRY_AUTH_FILE=", "XDG_RUNTIME_DIR="+p.dir)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (p *place) flatroot(args ...string) string {
	p.Helper()
	return p.run(program, append([]string{"--progress", "none"}, args...)...)
}

// report runs a command of flatroot for its report.
func (p *place) report(args ...string) (r report) {
	p.Helper()
	out := p.flatroot(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		p.Fatalf("%s: %v", out, err)
	}
	return r
}

// report has what tests look at of those of pull and push.
type report struct {
	Manifest  string
	Image     string
	Originals int
	Mounted   int
	Same      bool `json:"same_manifest"`
	Layers    struct{ Total, Reused, Fetched int }
	Bytes     json.RawMessage
	Kept      struct{ Total, New int } `json:"kept_blobs"`
}

// fetched is how many bytes of layers a pull read.
func (r report) fetched() int64 {
	var b struct{ Fetched int64 }
	if json.Unmarshal(r.Bytes, &b) != nil {
		return -1
	}
	return b.Fetched
}

// image makes an image with layers of these sizes in bytes, which don't compress, as a layout, and returns its manifest's digest.
func (p *place) image(o ocitest.Image, sizes ...int) string {
	p.Helper()
	r := rand.NewChaCha8([32]byte{byte(len(sizes))})
	for i, size := range sizes {
		b := make([]byte, size)
		_, _ = r.Read(b)
		o.Layers = append(o.Layers, ocitest.Tar(ocitest.File{Name: "usr/"}, ocitest.File{Name: fmt.Sprintf("usr/layer%d", i), Data: string(b)}))
	}
	d, err := o.WriteLayout(p.path("layout"), "image")
	if err != nil {
		p.Fatal(err)
	}
	return d.Digest.String()
}

// memoryRegistry is go-containerregistry's.
func memoryRegistry(t *testing.T) string {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// dockerRegistry starts the one of the distribution project.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	binary := testenv.Peer(t, "docker-registry")
	dir := t.TempDir()
	host := freePort(t)
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s/data\nhttp:\n  addr: %s\n", dir, host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the registry said:\n%s", &out)
		}
	})
	for range 200 {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the registry does not answer")
	return ""
}

// freePort finds a port on the loopback interface that nobody has.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
