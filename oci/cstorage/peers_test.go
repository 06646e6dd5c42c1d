package cstorage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// subordinate is the first of the IDs that the user namespace of the tests has; it is who owns it, too.
const subordinate = 100000

// inNamespace has a command run as root of a user namespace, as podman does for an ordinary user.
func inNamespace(cmd *exec.Cmd) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: subordinate, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{},
	}
	cmd.Env = append(cmd.Env, "_CONTAINERS_USERNS_CONFIGURED=done", fmt.Sprintf("_CONTAINERS_ROOTLESS_UID=%d", subordinate))
}

// asOwner has a command run as the user who owns the namespace, outside of it.
func asOwner(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: subordinate, Gid: subordinate}}
}

// everything is a layer with what unpackers and tar-split treat in different ways.
func everything(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data string) {
		t.Helper()
		h.Size = int64(len(data))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write([]byte(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("long/", 40)
	add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "etc/shadow", Mode: 0o600, Uid: 33, Gid: 33}, "of another user")
	add(tar.Header{Name: "usr/bin/tool", Mode: 0o4755}, strings.Repeat("tool", 1000))
	add(tar.Header{Name: "usr/bin/hard", Typeflag: tar.TypeLink, Linkname: "usr/bin/tool"}, "")
	add(tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin", Mode: 0o777}, "")
	add(tar.Header{Name: "bin/through", Format: tar.FormatPAX}, "a file through a symlink")
	add(tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: "/etc", Mode: 0o777}, "")
	add(tar.Header{Name: "abs/through"}, "a file through an absolute one")
	add(tar.Header{Name: "/rooted"}, "a name that begins with a slash")
	add(tar.Header{Name: "gnu/" + long + "name", Format: tar.FormatGNU}, "gnu")
	add(tar.Header{Name: "pax/" + long + "ü\xff", Format: tar.FormatGNU}, "not UTF-8")
	add(tar.Header{Name: "xattr", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}, Format: tar.FormatPAX}, "with an attribute")
	add(tar.Header{Name: "empty"}, "")
	add(tar.Header{Name: "large"}, strings.Repeat("0123456789abcdef", 1<<17))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out.Write(make([]byte, 10<<10)) // as GNU tar pads
	return out.Bytes()
}

// helperVariable tells the test program to read the image v1 in a store, DRIVER@DIR or else that of storage.conf, and to run
// no tests.
const helperVariable = "FLATROOT_TEST_CSTORAGE"

func TestMain(m *testing.M) {
	if Helper() {
		return
	}
	place, ok := os.LookupEnv(helperVariable)
	if !ok {
		os.Exit(m.Run())
	}
	if err := readAs(place); err != nil {
		fmt.Println("error:", err)
	}
}

func readAs(place string) error {
	if place == "" {
		src, err := Open(oci.Reference{Transport: oci.ContainersStorage, Path: "v1"}, Options{})
		if err != nil {
			return err
		}
		_, err = src.Image(context.Background())
		return errors.Join(err, src.Close())
	}
	driver, dir, _ := strings.Cut(place, "@")
	return (&stored{dir: dir, driver: driver}).read(context.Background(), "v1", Options{})
}

// help runs the test program as somebody else and returns what it says.
func help(t *testing.T, place string, as func(*exec.Cmd)) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), helperVariable+"="+place)
	as(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	return string(out)
}

// TestPodman reads what podman has pulled, as root and in a user namespace. Nothing may be left of it in the store, which the
// library of podman could not say of itself.
func TestPodman(t *testing.T) {
	podman := testenv.Peer(t, "podman")
	base := t.TempDir()
	for _, dir := range []string{base, filepath.Dir(base)} { // for the user
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layout := filepath.Join(base, "layout")
	upper := ocitest.Tar(ocitest.File{Name: "etc/"}, ocitest.File{Name: "etc/.wh.shadow"}, ocitest.File{Name: "etc/new", Data: "new"})
	image := ocitest.Image{Layers: [][]byte{everything(t), upper, upper}, Compression: []ocitest.Compression{ocitest.Gzip, ocitest.Zstd}}
	want, err := image.WriteLayout(layout, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		driver   string
		rootless bool
	}{{"overlay", false}, {"vfs", false}, {"overlay", true}, {"vfs", true}} {
		t.Run(fmt.Sprintf("%s rootless=%t", c.driver, c.rootless), func(t *testing.T) {
			dir := filepath.Join(base, fmt.Sprintf("%s-%t", c.driver, c.rootless))
			graph := filepath.Join(dir, "graph")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(podman, "--root", graph, "--runroot", dir+"/run", "--storage-driver", c.driver, "pull", "-q", "oci:"+layout+":v1")
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
			if c.rootless {
				if err := os.Chown(dir, subordinate, subordinate); err != nil {
					t.Fatal(err)
				}
				inNamespace(cmd)
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("podman pull: %v\n%s", err, out)
			}
			_ = unix.Unmount(filepath.Join(graph, c.driver), unix.MNT_DETACH) // which podman leaves
			before, mounted := listing(t, dir), mounts(t)
			src, err := open(graph, c.driver, "v1", Options{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := src.Image(context.Background())
			if err != nil || m.Descriptor.Digest != want.Digest {
				t.Errorf("got %+v, %v; want manifest %s", m, err, want.Digest)
			}
			src.Close()
			if err := (&stored{dir: graph, driver: c.driver}).read(context.Background(), "v1", Options{}); err != nil {
				t.Error(err)
			}
			if c.rootless {
				if out := help(t, c.driver+"@"+graph, inNamespace); strings.Contains(out, "error:") {
					t.Errorf("in the namespace: %s", out)
				}
				if out := help(t, c.driver+"@"+graph, asOwner); !strings.Contains(out, "podman unshare flatroot pull") {
					t.Errorf("outside of the namespace: %s", out)
				}
			}
			if after := listing(t, dir); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if mounts(t) != mounted {
				t.Error("there are other mounts")
			}
		})
	}
}

// TestPodmanSparse has a layer that podman takes and can't give back.
func TestPodmanSparse(t *testing.T) {
	podman := testenv.Peer(t, "podman")
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse")
	if err := os.WriteFile(sparse, []byte("begin"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 16<<20); err != nil {
		t.Fatal(err)
	}
	layer, err := exec.Command("tar", "-C", dir, "--sparse", "--format=posix", "--hole-detection=raw", "-c", "sparse").Output()
	if err != nil {
		t.Fatal(err)
	}
	layout, graph := filepath.Join(dir, "layout"), filepath.Join(dir, "graph")
	if _, err := (ocitest.Image{Layers: [][]byte{layer}}).WriteLayout(layout, "v1"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(podman, "--root", graph, "--runroot", dir+"/run", "--storage-driver", "vfs", "pull", "-q", "oci:"+layout+":v1").CombinedOutput()
	if err != nil {
		t.Fatalf("podman pull: %v\n%s", err, out)
	}
	err = (&stored{dir: graph, driver: "vfs"}).read(context.Background(), "v1", Options{})
	if err == nil || !strings.Contains(err.Error(), "sparse files") {
		t.Errorf("got %v", err)
	}
}
