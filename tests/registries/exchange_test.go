package registries

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// TestMemoryRegistry goes all the way with the registry that is a library: what any machine can do.
func TestMemoryRegistry(t *testing.T) { roundTrips(t, memoryRegistry(t), 3<<20, false) }

// TestDockerRegistry goes all the way with the one that most registries are made of.
func TestDockerRegistry(t *testing.T) { roundTrips(t, dockerRegistry(t), 40<<20, true) }

// roundTrips pushes images of all kinds, with a layer of some size in bytes, and pulls them again. A registry either mounts blobs of other repositories, or keeps
// one lot for all of them.
func roundTrips(t *testing.T, host string, size int, mounts bool) {
	for _, c := range []struct {
		name  string
		image ocitest.Image
	}{
		{"gzip", ocitest.Image{}},
		{"zstd", ocitest.Image{Compression: []ocitest.Compression{ocitest.Zstd}}},
		{"tar", ocitest.Image{Compression: []ocitest.Compression{ocitest.None}}},
		{"docker", ocitest.Image{Docker: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			want := p.image(c.image, size, 1<<20, 100)
			first := p.report("pull", "oci:layout:image", "--keep-blobs")
			dest := "docker://" + host + "/org/" + c.name + ":v1"
			r := p.report("push", "layout:image", dest)
			if r.Manifest != want || !r.Same || r.Originals != 3 {
				t.Errorf("pushed %+v, want manifest %s", r, want)
			}
			p.checkByCrane(dest, want)
			if r := p.report("pull", dest); r.fetched() != 0 || r.Layers.Fetched != 0 || r.Manifest != want || r.Image != first.Image {
				t.Errorf("pulled again: %+v", r)
			}
			if r := p.report("push", "layout:image", dest); r.Layers.Reused != 3 || r.Manifest != want {
				t.Errorf("pushed again: %+v", r)
			}
			// Another store has no blobs: it has them from the registry, and another repository from there.
			p.run("rm", "-rf", p.path("store"))
			p.flatroot("init")
			if r := p.report("pull", dest, "--name", "again"); r.Kept.Total != 0 || r.Image != first.Image {
				t.Errorf("pulled into another store: %+v", r)
			}
			other := "docker://" + host + "/other/" + c.name + ":v1"
			r = p.report("push", "again", other)
			if r.Manifest != want || r.Layers.Reused != 3 || mounts && r.Mounted != 3 {
				t.Errorf("pushed to another repository: %+v", r)
			}
			p.checkByCrane(other, r.Manifest)
			// Compressed anew it is another manifest of the same image.
			r = p.report("push", "again", dest+"-gzip", "--compress", "gzip")
			p.checkByCrane(dest+"-gzip", r.Manifest)
			if r := p.report("pull", dest+"-gzip"); r.fetched() != 0 || r.Image != first.Image {
				t.Errorf("compressed anew: %+v", r)
			}
		})
	}
}

// checkByCrane has go-containerregistry read all of an image and compare it.
func (p *place) checkByCrane(ref, manifest string) {
	p.Helper()
	at, err := name.ParseReference(ref[len("docker://"):], name.Insecure)
	if err != nil {
		p.Fatal(err)
	}
	img, err := remote.Image(at)
	if err != nil {
		p.Errorf("%s: %v", ref, err)
		return
	}
	if d, err := img.Digest(); err != nil || d.String() != manifest {
		p.Errorf("%s: manifest %s, want %s, %v", ref, d, manifest, err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) == 0 {
		p.Errorf("%s: %d layers, %v", ref, len(layers), err)
	}
	for _, l := range layers {
		for _, c := range []struct {
			want func() (v1.Hash, error)
			open func() (io.ReadCloser, error)
		}{{l.Digest, l.Compressed}, {l.DiffID, l.Uncompressed}} {
			r, err := c.open()
			if err != nil {
				p.Fatal(err)
			}
			got, _, err := v1.SHA256(r)
			if err := errors.Join(err, r.Close()); err != nil {
				p.Fatal(err)
			}
			if want, err := c.want(); got != want || err != nil {
				p.Errorf("%s: a layer is %s, want %s, %v", ref, got, want, err)
			}
		}
	}
}

// TestSkopeo has skopeo read what was pushed, and copy it.
func TestSkopeo(t *testing.T) {
	skopeo := testenv.Peer(t, "skopeo")
	host := dockerRegistry(t)
	p := newPlace(t)
	want := p.image(ocitest.Image{}, 1<<20, 5000)
	p.flatroot("pull", "oci:layout:image", "--keep-blobs")
	for _, c := range []string{"original", "gzip", "zstd", "none"} {
		ref := "docker://" + host + "/app:" + c
		r := p.report("push", "layout:image", ref, "--compress", c)
		if c == "original" && r.Manifest != want {
			t.Errorf("manifest %s, want %s", r.Manifest, want)
		}
		var seen struct {
			Digest string
			Layers []string
		}
		p.decode(p.run(skopeo, "inspect", "--tls-verify=false", ref), &seen)
		if seen.Digest != r.Manifest || len(seen.Layers) != 2 {
			t.Errorf("%s: skopeo sees %+v, want %s", c, seen, r.Manifest)
		}
		p.run(skopeo, "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false", ref, "oci:copy:"+c)
		if got, want := p.diffIDs("copy", c), p.diffIDs("layout", "image"); !slices.Equal(got, want) {
			t.Errorf("%s: diffIDs %v, want %v", c, got, want)
		}
		if got := p.flatroot("digest", "oci:copy:"+c); got != p.flatroot("digest", "layout:image") {
			t.Errorf("%s: the copy is image %s", c, got)
		}
	}
}

func (p *place) decode(text string, to any) {
	p.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		p.Fatalf("%s: %v", text, err)
	}
}

// diffIDs are those of the config of an image in a layout.
func (p *place) diffIDs(dir, tag string) []string {
	p.Helper()
	read := func(name string, to any) {
		b, err := os.ReadFile(filepath.Join(p.path(dir), name))
		if err != nil {
			p.Fatal(err)
		}
		p.decode(string(b), to)
	}
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	read("index.json", &index)
	for _, m := range index.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == tag {
			var manifest struct{ Config struct{ Digest string } }
			read("blobs/sha256/"+m.Digest[len("sha256:"):], &manifest)
			var config struct {
				Rootfs struct {
					DiffIDs []string `json:"diff_ids"`
				}
			}
			read("blobs/sha256/"+manifest.Config.Digest[len("sha256:"):], &config)
			return config.Rootfs.DiffIDs
		}
	}
	p.Fatalf("no %s in %s", tag, dir)
	return nil
}

// TestPodman has podman pull what was pushed, into a storage of its own.
func TestPodman(t *testing.T) {
	testenv.Need(t, "root", "mount")
	podman := testenv.Peer(t, "podman")
	host := dockerRegistry(t)
	p := newPlace(t)
	want := p.image(ocitest.Image{}, 1<<20, 5000)
	p.flatroot("pull", "oci:layout:image", "--keep-blobs")
	storage := []string{"--root", p.path("storage"), "--runroot", p.path("run"), "--storage-driver", "vfs"}
	for _, c := range []string{"original", "gzip", "zstd"} {
		ref := host + "/app:" + c
		r := p.report("push", "layout:image", "docker://"+ref, "--compress", c)
		p.run(podman, append(storage, "pull", "--quiet", "--tls-verify=false", "docker://"+ref)...)
		var seen []struct {
			Digest string
			RootFS struct{ Layers []string }
		}
		p.decode(p.run(podman, append(storage, "image", "inspect", ref)...), &seen)
		if len(seen) != 1 || seen[0].Digest != r.Manifest || !slices.Equal(seen[0].RootFS.Layers, p.diffIDs("layout", "image")) {
			t.Errorf("%s: podman has %+v, want manifest %s", c, seen, r.Manifest)
		}
		if c == "original" && r.Manifest != want {
			t.Errorf("manifest %s, want %s", r.Manifest, want)
		}
	}
}

// TestContainersStorage has podman and skopeo read what was pushed to a store, and flatroot pull it from there again.
func TestContainersStorage(t *testing.T) {
	testenv.Need(t, "root", "mount")
	skopeo := testenv.Peer(t, "skopeo")
	// They start themselves again for each layer, which can't be done under the loader of the peers' root alone.
	peers := filepath.Dir(filepath.Dir(skopeo))
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			p := newPlace(t)
			peer := func(args ...string) string {
				return p.run(filepath.Join(peers, "run"), append([]string{peers}, args...)...)
			}
			podman := func(args ...string) string {
				return peer(append([]string{"podman", "--root", p.path("storage"), "--runroot", p.path("run"), "--storage-driver", driver}, args...)...)
			}
			want := p.image(ocitest.Image{}, 1<<20, 5000, 300)
			p.flatroot("pull", "oci:layout:image")
			at := "containers-storage:[" + driver + "@" + p.path("storage") + "+" + p.path("run") + "]localhost/app:"
			for n, written := range []int{3, 0} {
				if r := p.report("push", "layout:image", at+"v1"); r.Manifest != want || !r.Same || r.Layers.Fetched != written {
					t.Errorf("push %d: %+v, want manifest %s", n+1, r, want)
				}
			}
			var seen []struct {
				Digest string
				RootFS struct{ Layers []string }
			}
			diffIDs := p.diffIDs("layout", "image")
			p.decode(podman("image", "inspect", "localhost/app:v1"), &seen)
			if len(seen) != 1 || seen[0].Digest != want || !slices.Equal(seen[0].RootFS.Layers, diffIDs) {
				t.Errorf("podman has %+v, want manifest %s", seen, want)
			}
			podman("system", "check")
			podman("create", "--quiet", "--name", "one", "--network", "none", "localhost/app:v1", "true")
			podman("export", "--output", p.path("files.tar"), "one")
			podman("rm", "one")
			if list := p.run("tar", "-tvf", p.path("files.tar"), "usr/layer2"); !strings.Contains(list, " 300 ") {
				t.Errorf("a container of the image has the file %s", list)
			}
			// Out again.
			peer("skopeo", "copy", "--quiet", at+"v1", "oci:back:v1")
			if got := p.diffIDs("back", "v1"); !slices.Equal(got, diffIDs) {
				t.Errorf("skopeo copies diffIDs %v, want %v", got, diffIDs)
			}
			digest := p.flatroot("digest", "layout:image")
			p.run("rm", "-rf", p.path("store"))
			p.flatroot("init")
			if r := p.report("pull", at+"v1", "--name", "back"); r.Manifest != want || r.Image != digest {
				t.Errorf("pulled back: %+v, want image %s", r, digest)
			}
			// A tag that moves; what both images have is there once.
			p.run("rm", "-rf", p.path("layout"))
			other := p.image(ocitest.Image{}, 1<<20, 5000, 400)
			p.flatroot("pull", "oci:layout:image", "--name", "other")
			if r := p.report("push", "other", at+"v1"); r.Manifest != other || r.Layers.Reused != 2 {
				t.Errorf("another image: %+v, want manifest %s", r, other)
			}
			p.decode(podman("image", "inspect", "localhost/app:v1"), &seen)
			if seen[0].Digest != other {
				t.Errorf("podman has %+v, want manifest %s", seen, other)
			}
		})
	}
}
