package registries

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// imageIndex makes an image index with images of two platforms, and attestations of them, as a layout, and returns its digest.
func (p *place) imageIndex() string {
	p.Helper()
	x := ocitest.Index{Attested: true}
	for _, arch := range []string{"amd64", "s390x"} {
		x.Images = append(x.Images, ocitest.Image{
			Layers: [][]byte{
				ocitest.Tar(ocitest.File{Name: "usr/"}, ocitest.File{Name: "usr/shared", Data: strings.Repeat("shared ", 1000)}),
				ocitest.Tar(ocitest.File{Name: "usr/arch", Data: strings.Repeat(arch+" ", 1000)}),
			},
			Platform: oci.Platform{OS: "linux", Architecture: arch}, // and gzip, as skopeo notes of zstd layers in the index that they are
		})
	}
	d, err := x.WriteLayout(p.path("layout"), "index")
	if err != nil {
		p.Fatal(err)
	}
	return d.Digest.String()
}

func TestIndexMemoryRegistry(t *testing.T) { indexRoundTrip(t, memoryRegistry(t)) }

// TestIndexDockerRegistry goes to a registry that refuses an image index if it lacks what that lists.
func TestIndexDockerRegistry(t *testing.T) { indexRoundTrip(t, dockerRegistry(t)) }

// indexRoundTrip sends an image index from a layout to a registry, and from there to another repository.
func indexRoundTrip(t *testing.T, host string) {
	p := newPlace(t)
	want := p.imageIndex()
	first := p.flatroot("pull", "oci:layout:index", "--platform", "all", "--keep-blobs", "--name", "a")
	for n, from := range []string{"a", "b"} {
		dest := host + "/org" + from + "/index:v1"
		if r := p.report("push", from, "docker://"+dest); r.Manifest != want || !r.Same || r.Layers.Total != 4 {
			t.Errorf("pushed %+v, want index %s", r, want)
		}
		p.checkIndex(dest, want)
		if n > 0 {
			break
		}
		p.run("rm", "-rf", p.path("store"))
		p.flatroot("init")
		if again := p.flatroot("pull", dest, "--platform", "all", "--keep-blobs", "--name", "b"); again != first {
			t.Errorf("pulled\n%s\n, want\n%s", again, first)
		}
	}
	// Compressed anew it is another index, of the same images.
	r := p.report("push", "b", "docker://"+host+"/anew/index:v1", "--compress", "zstd")
	if r.Same {
		t.Errorf("pushed %+v", r)
	}
	p.checkIndex(host+"/anew/index:v1", r.Manifest)
	if again := p.flatroot("pull", host+"/anew/index:v1", "--platform", "all"); again != first {
		t.Errorf("pulled\n%s\n, want\n%s", again, first)
	}
}

// checkIndex has go-containerregistry read all images of an index, and compare what it can.
func (p *place) checkIndex(ref, want string) {
	p.Helper()
	at, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		p.Fatal(err)
	}
	x, err := remote.Index(at)
	if err != nil {
		p.Fatalf("%s: %v", ref, err)
	}
	if d, err := x.Digest(); err != nil || d.String() != want {
		p.Errorf("%s: index %s, want %s, %v", ref, d, want, err)
	}
	m, err := x.IndexManifest()
	if err != nil {
		p.Fatal(err)
	}
	for _, d := range m.Manifests {
		if d.Platform.OS != "unknown" {
			p.checkByCrane("docker://"+at.Context().Digest(d.Digest.String()).String(), d.Digest.String())
		} else if _, err := x.Image(d.Digest); err != nil {
			p.Errorf("%s: %v", ref, err)
		}
	}
}

// TestIndexSkopeo has skopeo bring an image index to a registry and copy it back from there, with a store in between.
func TestIndexSkopeo(t *testing.T) {
	skopeo := testenv.Peer(t, "skopeo")
	host := dockerRegistry(t)
	p := newPlace(t)
	want := p.imageIndex()
	ref := "docker://" + host + "/skopeo:v1"
	p.run(skopeo, "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:layout:index", ref)
	p.run(skopeo, "copy", "--quiet", "--all", "--preserve-digests", "oci:layout:index", "dir:"+p.path("dir"))
	for name, src := range map[string]string{"registry": ref, "dir": "dir:dir", "layout": "oci:layout:index"} {
		p.flatroot("pull", src, "--platform", "all", "--keep-blobs", "--name", name)
		dest := "docker://" + host + "/" + name + ":v1"
		if r := p.report("push", name, dest, "--compress", "original"); r.Manifest != want || !r.Same {
			t.Errorf("%s: pushed %+v, want index %s", name, r, want)
		}
		p.run(skopeo, "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", dest, "oci:copy:"+name)
		var seen struct{ Manifests []struct{ Digest string } }
		p.decode(p.run(skopeo, "inspect", "--raw", "oci:copy:"+name), &seen)
		if len(seen.Manifests) != 4 {
			t.Errorf("%s: skopeo sees %+v", name, seen)
		}
		p.flatroot("push", name, "oci:written:"+name)
		p.run(skopeo, "copy", "--quiet", "--all", "--preserve-digests", "oci:written:"+name, "oci:copy:"+name+"-written")
	}
}
