//go:build !cgo || exclude_graphdriver_btrfs

package cstorage

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/tests/testenv"
)

// podmanAt is podman for a store.
func (d destination) podmanAt(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(testenv.Peer(t, "podman"), append([]string{"--root", d.graph(), "--runroot", d.dir + "/run", "--storage-driver", d.driver}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+d.dir, "XDG_RUNTIME_DIR="+d.dir)
	return cmd
}

// run runs a command and returns what it prints on standard output.
func run(t *testing.T, cmd *exec.Cmd, as func(*exec.Cmd)) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	as(cmd)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, &stderr)
	}
	return string(out)
}

func asRoot(*exec.Cmd) {}

// TestPodmanSink has podman look at what was pushed, as root and in a user namespace: by its check of all that a store has, too,
// which puts each layer's tar together. Then podman pulls the same image, and finds that it has all of its layers.
func TestPodmanSink(t *testing.T) {
	testenv.Peer(t, "podman")
	for _, c := range []struct {
		driver   string
		rootless bool
	}{{"overlay", false}, {"vfs", false}, {"overlay", true}, {"vfs", true}} {
		t.Run(fmt.Sprintf("%s rootless=%t", c.driver, c.rootless), func(t *testing.T) {
			d, as := newDestination(t, c.driver), asRoot
			if c.rootless {
				as = inNamespace
				d.lend(t)
			}
			m := pushedImage(t)
			run(t, d.pusher("all"), as)
			d.inspect(t, m, as)
			if !c.rootless { // it takes device nodes, which nobody else can make, for missing files
				run(t, d.podmanAt(t, "system", "check"), as)
			}
			layout := m.layout(t, d)
			for n := range m.layers { // which podman does not miss
				if err := os.Remove(filepath.Join(layout, "blobs/sha256", m.Blobs[n].Descriptor.Digest.Encoded())); err != nil {
					t.Fatal(err)
				}
			}
			run(t, d.podmanAt(t, "pull", "-q", "oci:"+layout+":v1"), as)
			d.inspect(t, m, as)
			if n := len(d.layers(t)); n != 2 {
				t.Errorf("podman has made layers: there are %d", n)
			}
		})
	}
}

// layout is a layout that has the image as v1.
func (m image) layout(t *testing.T, d destination) string {
	t.Helper()
	path := filepath.Join(d.dir, "layout")
	if err := m.WriteLayout(path, "v1"); err != nil {
		t.Fatal(err)
	}
	return path
}

// lend gives a store's place to the user of the namespace.
func (d destination) lend(t *testing.T) {
	t.Helper()
	for _, dir := range []string{d.dir, filepath.Dir(d.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(d.dir, subordinate, subordinate); err != nil {
		t.Fatal(err)
	}
}

func (d destination) inspect(t *testing.T, want image, as func(*exec.Cmd)) {
	t.Helper()
	var seen []struct {
		ID          string `json:"Id"`
		RepoDigests []string
		RootFS      struct{ Layers []string }
	}
	out := run(t, d.podmanAt(t, "image", "inspect", "localhost/web:v1"), as)
	if err := json.Unmarshal([]byte(out), &seen); err != nil || len(seen) != 1 {
		t.Fatalf("%s: %v", out, err)
	}
	var diffIDs []string
	for _, l := range want.layers {
		diffIDs = append(diffIDs, describe("", l).Digest.String())
	}
	manifest := "localhost/web@" + want.Find("manifest").Descriptor.Digest.String()
	if s := seen[0]; s.ID != want.Find("config").Descriptor.Digest.Encoded() || !slices.Contains(s.RepoDigests, manifest) || !slices.Equal(s.RootFS.Layers, diffIDs) {
		t.Errorf("podman has %+v, want manifest %s, layers %v", s, manifest, diffIDs)
	}
}

// TestPodmanAfterKill has podman go on with a store in which a push was killed in the middle of a layer.
func TestPodmanAfterKill(t *testing.T) {
	testenv.Peer(t, "podman")
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			d := newDestination(t, driver)
			d.killed(t)
			m := pushedImage(t)
			run(t, d.podmanAt(t, "pull", "-q", "oci:"+m.layout(t, d)+":v1"), asRoot)
			run(t, d.podmanAt(t, "system", "check"), asRoot)
			d.whole(t)
			if n := len(d.layers(t)); n != 2 {
				t.Errorf("there are %d layers", n)
			}
			if written, err := d.put("localhost/again", m); err != nil || written != 0 {
				t.Errorf("of what podman has pulled %d layers were written, %v", written, err)
			}
		})
	}
}
