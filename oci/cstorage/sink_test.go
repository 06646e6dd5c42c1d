//go:build !cgo || exclude_graphdriver_btrfs

package cstorage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tests/testenv"
)

// image is one that is to be put into a store.
type image struct {
	*ocitest.Built
	layers [][]byte // tars
}

func newImage(t *testing.T, layers ...[]byte) image {
	t.Helper()
	b, err := ocitest.Image{Platform: amd64, Layers: layers}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return image{b, layers}
}

// destination is a store of a test that is written to.
type destination struct{ dir, driver string }

func newDestination(t *testing.T, driver string) destination {
	t.Helper()
	testenv.Need(t, "root", "mount")
	d := destination{t.TempDir(), driver}
	t.Cleanup(func() { _ = unix.Unmount(d.graph()+"/"+driver, unix.MNT_DETACH) }) // which a process that is killed leaves
	return d
}

func (d destination) graph() string { return filepath.Join(d.dir, "graph") }

func (d destination) reference(name string) oci.Reference {
	return oci.Reference{Transport: oci.ContainersStorage, Path: fmt.Sprintf("[%s@%s+%s]%s", d.driver, d.graph(), filepath.Join(d.dir, "run"), name)}
}

func (d destination) stored() *stored { return &stored{dir: d.graph(), driver: d.driver} }

func describe(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// put puts an image in as index.Push does, and counts the layers that were written.
func (d destination) put(name string, m image) (int, error) { return put(d.reference(name), m) }

func put(ref oci.Reference, m image) (written int, err error) {
	ctx := context.Background()
	s, err := Create(ref)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for n, l := range m.layers {
		put, err := s.PutLayer(ctx, describe(ocispec.MediaTypeImageLayer, l), m.Blobs[n].Descriptor, bytes.NewReader(l))
		if err != nil {
			return written, err
		}
		if put {
			written++
		}
	}
	return written, finish(s, m)
}

// finish puts the documents of an image whose layers have been put.
func finish(s oci.LayerSink, m image) error {
	config, manifest := m.Find("config"), m.Find("manifest")
	if err := s.PutBlob(context.Background(), config.Descriptor, bytes.NewReader(config.Data)); err != nil {
		return err
	}
	return s.PutManifest(context.Background(), manifest.Data, manifest.Descriptor)
}

// check reads an image from the store as any source is read, and counts the layers that the store has.
func (d destination) check(t *testing.T, name string, want image, layers int) {
	t.Helper()
	src, err := open(d.graph(), d.driver, name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	m, err := src.Image(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if m.Descriptor.Digest != want.Find("manifest").Descriptor.Digest || !bytes.Equal(m.Config, want.Find("config").Data) {
		t.Errorf("%s: manifest %s, config %s", name, m.Descriptor.Digest, m.Config)
	}
	if err := d.stored().read(context.Background(), name, Options{}); err != nil {
		t.Error(err)
	}
	if all := d.layers(t); len(all) != layers {
		t.Errorf("the store has %d layers, want %d: %v", len(all), layers, all)
	}
}

// layers are the records of the layers.
func (d destination) layers(t *testing.T) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.graph(), d.driver+"-layers", "layers.json"))
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// unmounted makes sure that nothing is mounted in the store.
func (d destination) unmounted(t *testing.T) {
	t.Helper()
	if strings.Contains(mounts(t), d.dir) {
		t.Error("there are mounts in the store")
	}
}

// empty makes sure that nothing is left of a push, neither in the records nor beside them.
func (d destination) empty(t *testing.T) {
	t.Helper()
	if all := d.layers(t); len(all) > 0 {
		t.Errorf("there are layers: %v", all)
	}
	for _, pattern := range []string{"*-layers/*.gz", "*-layers/tmp/*", "overlay/*/diff", "overlay/l/*", "overlay/tempdirs/*", "vfs/dir/*", "*-images/*/manifest"} {
		if left, err := filepath.Glob(filepath.Join(d.graph(), pattern)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// nodes is a layer with what has no contents, and a capability.
func nodes(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "dev/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "dev/loop", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 7},
		{Name: "dev/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/ping", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00" + strings.Repeat("\x00", 12)}},
		{Name: "bin/hard", Typeflag: tar.TypeLink, Linkname: "bin/ping", Mode: 0o755},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// whiteouts is a layer that hides things of everything and nodes.
func whiteouts() []byte {
	return ocitest.Tar(ocitest.File{Name: "etc/"}, ocitest.File{Name: "etc/.wh.shadow"}, ocitest.File{Name: "dev/"},
		ocitest.File{Name: "dev/.wh..wh..opq"}, ocitest.File{Name: "dev/new", Data: "new"})
}

// TestSink puts images in and reads them.
func TestSink(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			d := newDestination(t, driver)
			lower, upper := everything(t), textLayer("f", "another")
			first := newImage(t, lower, nodes(t), whiteouts(), whiteouts())
			for n, want := range []int{4, 0} {
				if written, err := d.put("localhost/web:v1", first); err != nil || written != want {
					t.Fatalf("push %d: %d layers written, want %d, %v", n+1, written, want, err)
				}
				d.check(t, "localhost/web:v1", first, 4)
			}
			// The name moves to another image, which shares a layer; the first one is still there without it.
			second := newImage(t, lower, upper)
			if written, err := d.put("localhost/web:v1", second); err != nil || written != 1 {
				t.Fatalf("%d layers written, %v", written, err)
			}
			d.check(t, "localhost/web:v1", second, 5)
			d.check(t, "@"+first.Find("config").Descriptor.Digest.Encoded(), first, 5)
			// The same layer on another one is another layer; a name without a registry is docker.io's.
			third := newImage(t, upper)
			if written, err := d.put("web", third); err != nil || written != 1 {
				t.Fatalf("%d layers written, %v", written, err)
			}
			d.check(t, "docker.io/library/web:latest", third, 6)
			// Without the driver's name the store is still the one of that driver.
			ref := d.reference("web")
			ref.Path = strings.Replace(ref.Path, driver+"@", "", 1)
			if _, err := put(ref, third); err != nil {
				t.Fatal(err)
			}
			d.check(t, "docker.io/library/web:latest", third, 6)
			// No layers at all.
			none := newImage(t)
			if _, err := d.put("none", none); err != nil {
				t.Fatal(err)
			}
			d.check(t, "none", none, 6)
			d.unmounted(t)
		})
	}
}

// TestSinkRecords has what other tools look for in the records: layers by the IDs that they would give them, and the blobs
// that are known to unpack to them.
func TestSinkRecords(t *testing.T) {
	d := newDestination(t, "vfs")
	m := newImage(t, textLayer("a", "1"), textLayer("b", "2"))
	if _, err := d.put("localhost/web", m); err != nil {
		t.Fatal(err)
	}
	a, b := digest.FromBytes(m.layers[0]), digest.FromBytes(m.layers[1])
	upper := digest.FromString(a.Encoded() + "+" + b.Encoded()).Encoded()
	for n, want := range []map[string]any{
		{"id": a.Encoded(), "diff-digest": a.String()}, {"id": upper, "diff-digest": b.String(), "parent": a.Encoded()},
	} {
		want["compressed-diff-digest"], want["compressed-size"] = m.Blobs[n].Descriptor.Digest.String(), float64(m.Blobs[n].Descriptor.Size)
		got := d.layers(t)[n]
		for key, value := range want {
			if got[key] != value {
				t.Errorf("layer %d: %s is %v, want %v", n, key, got[key], value)
			}
		}
	}
}

// TestSinkAnotherManifest has an image come twice, with two manifests: it is one image, known by both.
func TestSinkAnotherManifest(t *testing.T) {
	d := newDestination(t, "vfs")
	layer := textLayer("f", "content")
	m := newImage(t, layer)
	b, err := ocitest.Image{Platform: amd64, Layers: m.layers, Compression: []ocitest.Compression{ocitest.None}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	plain := image{b, m.layers}
	for n, one := range []image{m, plain, plain} {
		if written, err := d.put("localhost/web", one); err != nil || written != 0 && n > 0 {
			t.Fatalf("%d layers written, %v", written, err)
		}
		d.check(t, "localhost/web", one, 1)
	}
	d.check(t, "localhost/web@"+m.Find("manifest").Descriptor.Digest.String(), m, 1)
}

// TestSinkFails has pushes that come to nothing: nothing must be left of them.
func TestSinkFails(t *testing.T) {
	good, big := textLayer("f", "content"), textLayer("g", strings.Repeat("more of it", 100_000))
	m := newImage(t, good, big)
	tar := describe(ocispec.MediaTypeImageLayer, big)
	another := newImage(t, good)
	for _, c := range []struct {
		name, want string
		push       func(ctx context.Context, s oci.LayerSink) error
	}{
		{"read", "the disk is gone", func(ctx context.Context, s oci.LayerSink) error {
			_, err := s.PutLayer(ctx, tar, tar, io.MultiReader(bytes.NewReader(big[:len(big)/2]), iotest.ErrReader(errors.New("the disk is gone"))))
			return err
		}},
		{"read at the end", "the disk is gone", func(ctx context.Context, s oci.LayerSink) error {
			_, err := s.PutLayer(ctx, tar, tar, io.MultiReader(bytes.NewReader(big), iotest.ErrReader(errors.New("the disk is gone"))))
			return err
		}},
		{"digest", "has digest", func(ctx context.Context, s oci.LayerSink) error {
			_, err := s.PutLayer(ctx, tar, tar, bytes.NewReader(textLayer("g", strings.Repeat("less of it", 100_000))))
			return err
		}},
		{"size", "longer than", func(ctx context.Context, s oci.LayerSink) error {
			_, err := s.PutLayer(ctx, tar, tar, bytes.NewReader(append(bytes.Clone(big), 0)))
			return err
		}},
		{"no tar", "tar", func(ctx context.Context, s oci.LayerSink) error {
			junk := bytes.Repeat([]byte("no tar at all"), 1000)
			_, err := s.PutLayer(ctx, describe("", junk), ocispec.Descriptor{}, bytes.NewReader(junk))
			return err
		}},
		{"compressed", "begins as a compressed file", func(ctx context.Context, s oci.LayerSink) error {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			if _, err := w.Write(big); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			_, err := s.PutLayer(ctx, describe("", z.Bytes()), ocispec.Descriptor{}, bytes.NewReader(z.Bytes()))
			return err
		}},
		{"called off", "context canceled", func(ctx context.Context, s oci.LayerSink) error {
			ctx, cancel := context.WithCancel(ctx)
			_, err := s.PutLayer(ctx, tar, tar, io.MultiReader(bytes.NewReader(big[:len(big)/2]), calling(cancel), bytes.NewReader(big[len(big)/2:])))
			return err
		}},
		{"called off at the end", "context canceled", func(ctx context.Context, s oci.LayerSink) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			manifest := another.Find("manifest")
			return s.PutManifest(ctx, manifest.Data, manifest.Descriptor)
		}},
		{"layers are missing", "it lists 2 layers, and 1 have been put", func(_ context.Context, s oci.LayerSink) error { return finish(s, m) }},
		{"config is missing", "config sha256:[0-9a-f]+, which it lists, has not been put", func(ctx context.Context, s oci.LayerSink) error {
			manifest := another.Find("manifest")
			return s.PutManifest(ctx, manifest.Data, manifest.Descriptor)
		}},
		{"manifest", "manifest has digest", func(ctx context.Context, s oci.LayerSink) error {
			manifest := another.Find("manifest")
			return s.PutManifest(ctx, bytes.ToUpper(manifest.Data), manifest.Descriptor)
		}},
		{"index", "an image index is no image", func(ctx context.Context, s oci.LayerSink) error {
			raw := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`)
			return s.PutManifest(ctx, raw, describe(ocispec.MediaTypeImageIndex, raw))
		}},
		{"blob", "kept unpacked", func(ctx context.Context, s oci.LayerSink) error {
			return s.PutBlob(ctx, m.Blobs[0].Descriptor, bytes.NewReader(m.Blobs[0].Data))
		}},
		{"large config", "more than", func(ctx context.Context, s oci.LayerSink) error {
			return s.PutBlob(ctx, ocispec.Descriptor{Digest: tar.Digest, Size: oci.MaxManifestSize + 1}, bytes.NewReader(nil))
		}},
		{"another config", "has digest", func(ctx context.Context, s oci.LayerSink) error {
			config := m.Find("config")
			return s.PutBlob(ctx, config.Descriptor, bytes.NewReader(bytes.ToUpper(config.Data)))
		}},
	} {
		for _, driver := range drivers {
			t.Run(driver+" "+c.name, func(t *testing.T) {
				d := newDestination(t, driver)
				s, err := Create(d.reference("localhost/web:v1"))
				if err != nil {
					t.Fatal(err)
				}
				put, err := s.PutLayer(context.Background(), describe("", good), ocispec.Descriptor{}, bytes.NewReader(good))
				if err != nil || !put {
					t.Fatal(put, err)
				}
				wantError(t, c.push(context.Background(), s), c.want)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				d.empty(t)
				d.unmounted(t)
			})
		}
	}
}

// calling is a reader without bytes that calls something when it is read.
func calling(f func()) io.Reader {
	return readerFunc(func([]byte) (int, error) {
		f()
		return 0, io.EOF
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestSinkShared has a push fail whose layer has become another image's, and one that loses a race for a layer. Stores of vfs
// are locked meanwhile.
func TestSinkShared(t *testing.T) {
	d := newDestination(t, "overlay")
	m := newImage(t, textLayer("f", "content"))
	layer := describe("", m.layers[0])
	s, err := Create(d.reference("localhost/fails"))
	if err != nil {
		t.Fatal(err)
	}
	put, err := s.PutLayer(context.Background(), layer, ocispec.Descriptor{}, bytes.NewReader(m.layers[0]))
	if err != nil || !put {
		t.Fatal(put, err)
	}
	if written, err := d.put("localhost/web", m); err != nil || written != 0 {
		t.Fatalf("%d layers written, %v", written, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	d.check(t, "localhost/web", m, 1)

	d = newDestination(t, "overlay")
	if s, err = Create(d.reference("localhost/late")); err != nil {
		t.Fatal(err)
	}
	late := calling(func() {
		if written, err := d.put("localhost/web", m); err != nil || written != 1 {
			t.Errorf("%d layers written, %v", written, err)
		}
	})
	put, err = s.PutLayer(context.Background(), layer, ocispec.Descriptor{}, io.MultiReader(late, bytes.NewReader(m.layers[0])))
	if err != nil || put {
		t.Errorf("the layer was put after another, %t, %v", put, err)
	}
	if err := errors.Join(finish(s, m), s.Close()); err != nil {
		t.Error(err)
	}
	d.check(t, "localhost/late", m, 1)
}

// TestSinkBusy has a container run meanwhile: its files stay where they are.
func TestSinkBusy(t *testing.T) {
	for _, driver := range drivers {
		d := newDestination(t, driver)
		m := newImage(t, textLayer("f", "content"))
		if _, err := d.put("localhost/web", m); err != nil {
			t.Fatal(err)
		}
		s, err := storage.GetStore(storage.StoreOptions{GraphDriverName: driver, GraphRoot: d.graph(), RunRoot: d.dir + "/run"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.CreateContainer("", nil, m.Find("config").Descriptor.Digest.Encoded(), "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		files, err := s.Mount(c.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.put("localhost/more", newImage(t, m.layers[0], textLayer("g", "more"))); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(filepath.Join(files, "f")); err != nil || string(b) != "content" {
			t.Errorf("%s: %s, %v", driver, b, err)
		}
		if _, err := s.Unmount(c.ID, true); err != nil {
			t.Error(err)
		}
		if _, err := s.Shutdown(true); err != nil {
			t.Error(err)
		}
		s.Free()
	}
}

// TestSinkSparse has layers with sparse files. The library takes those of one format, though they can't be read again.
func TestSinkSparse(t *testing.T) {
	d := newDestination(t, "vfs")
	sparse := filepath.Join(d.dir, "sparse")
	if err := errors.Join(os.WriteFile(sparse, []byte("begin"), 0o600), os.Truncate(sparse, 16<<20)); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{"gnu": "unhandled tar header type 83", "posix": ""} {
		layer, err := exec.Command("tar", "-C", d.dir, "--sparse", "--format="+format, "--hole-detection=raw", "-c", "sparse").Output()
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.put("localhost/"+format, newImage(t, layer))
		if want == "" {
			want = "sparse files"
			if err == nil {
				err = d.stored().read(context.Background(), "localhost/"+format, Options{})
			}
		}
		wantError(t, err, want)
	}
}

// TestSinkDistrusts has stores with records that are not what their IDs promise.
func TestSinkDistrusts(t *testing.T) {
	m := newImage(t, textLayer("a", "1"), textLayer("b", "2"))
	first, top := digest.FromBytes(m.layers[0]).String(), digest.FromBytes(m.layers[1]).String()
	for _, c := range []struct{ file, old, new, want string }{
		{"vfs-layers/layers.json", `"diff-digest":"` + top, `"diff-digest":"` + first, "another layer under its ID"},
		{"vfs-layers/layers.json", `"parent":`, `"metadata":`, "another layer under its ID"},
		{"vfs-images/images.json", `"layer":"`, `"layer":"0`, "is there with other layers"},
	} {
		d := newDestination(t, "vfs")
		if _, err := d.put("localhost/web", m); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(d.graph(), c.file)
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), c.old) {
			t.Fatalf("%s, %v", b, err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), c.old, c.new)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = d.put("localhost/web:v2", m)
		wantError(t, err, c.want)
		if n := len(d.layers(t)); n != 2 {
			t.Errorf("%d layers are left", n)
		}
	}
}

// TestSinkRefuses has references that can't be written to.
func TestSinkRefuses(t *testing.T) {
	for path, want := range map[string]string{
		"[vfs@/nowhere]web@sha256:" + strings.Repeat("0", 64): "to a digest or an ID: want a name",
		"[vfs@/nowhere]@123456":                               "to a digest or an ID: want a name",
		"[vfs@/nowhere]Web":                                   "is no repository",
		"[vfs@nowhere]web":                                    "no absolute path",
		"[vfs@/nowhere":                                       "not closed",
	} {
		_, err := Create(oci.Reference{Transport: oci.ContainersStorage, Path: path})
		wantError(t, err, want)
	}
	t.Run("driver", func(t *testing.T) {
		testenv.Need(t, "root")
		_, err := Create(oci.Reference{Transport: oci.ContainersStorage, Path: "[btrfs@/nowhere]web"})
		wantError(t, err, "storage driver btrfs can't be written to")
	})
	t.Run("user", func(t *testing.T) {
		testenv.Need(t, "user")
		_, err := Create(oci.Reference{Transport: oci.ContainersStorage, Path: "[vfs@/nowhere]web"})
		wantError(t, err, "podman unshare flatroot push")
	})
}

// pushVariable tells the test program to push pushedImage: HOW@DRIVER@DIR, where HOW is all, or half to stop in the middle of
// the second layer.
const pushVariable = "FLATROOT_TEST_CSTORAGE_PUSH"

// pushedImage is what is pushed there.
func pushedImage(t *testing.T) image {
	return newImage(t, nodes(t), ocitest.Tar(ocitest.File{Name: "dev/"}, ocitest.File{Name: "dev/.wh.fifo"},
		ocitest.File{Name: "etc/"}, ocitest.File{Name: "etc/new", Data: strings.Repeat("more of it", 100_000)}))
}

// pusher is the test program that pushes.
func (d destination) pusher(how string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSinkKilled$")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), pushVariable+"="+how+"@"+d.driver+"@"+d.dir, "HOME="+d.dir, "XDG_RUNTIME_DIR="+d.dir)
	return cmd
}

// TestSinkKilled kills a push in the middle of a layer. What is left of it is in nobody's way, and the library takes it away.
func TestSinkKilled(t *testing.T) {
	if how, place, ok := strings.Cut(os.Getenv(pushVariable), "@"); ok {
		driver, dir, _ := strings.Cut(place, "@")
		pushAs(t, how, destination{dir, driver})
		return
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			d := newDestination(t, driver)
			d.killed(t)
			m := pushedImage(t)
			if written, err := d.put("localhost/web:v1", m); err != nil || written != 1 {
				t.Errorf("after the kill %d layers were written, %v", written, err)
			}
			d.check(t, "localhost/web:v1", m, 2)
			d.whole(t)
		})
	}
}

// whole makes sure that of what was killed nothing is left.
func (d destination) whole(t *testing.T) {
	t.Helper()
	for _, l := range d.layers(t) {
		if l["flags"] != nil {
			t.Errorf("layer %v", l)
		}
	}
	if left, err := filepath.Glob(filepath.Join(d.graph(), "overlay/tempdirs/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// killed has another process push half an image, and kills it.
func (d destination) killed(t *testing.T) {
	t.Helper()
	cmd := d.pusher("half")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, len(half))
	if _, err := io.ReadFull(out, said); err != nil || string(said) != half {
		rest, _ := io.ReadAll(out)
		t.Errorf("%s%s, %v", said, rest, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// half is said when half of a layer has been read.
const half = "half\n"

func pushAs(t *testing.T, how string, d destination) {
	m := pushedImage(t)
	if how == "all" {
		if _, err := d.put("localhost/web:v1", m); err != nil {
			t.Fatal(err)
		}
		return
	}
	s, err := Create(d.reference("localhost/web:v1"))
	if err != nil {
		t.Fatal(err)
	}
	for n, l := range m.layers {
		var r io.Reader = bytes.NewReader(l)
		if n == 1 {
			r = io.MultiReader(bytes.NewReader(l[:len(l)/2]), calling(func() {
				fmt.Print(half)
				select {}
			}))
		}
		if _, err := s.PutLayer(context.Background(), describe("", l), ocispec.Descriptor{}, r); err != nil {
			t.Fatal(err)
		}
	}
}
