package index

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// heavyEnv tells a process that it is a child of TestMemory: it imports the layout that is its first argument into the store
// that is its second.
const heavyEnv = "FLATROOT_TEST_HEAVY"

// heavyBound is how much memory an import may take whatever it imports, in bytes.
const heavyBound = 512 << 20

func TestMain(m *testing.M) {
	if os.Getenv(heavyEnv) != "" {
		if err := importHeavy(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// heavyImage has layers that are written as they are made.
type heavyImage struct {
	layers int
	tar    func(w *tarWriter, layer int)
	window int // of zstd, in bytes; 0: the usual
	err    string
}

// heavyImages are images of which each costs much, if only they are let.
var heavyImages = map[string]heavyImage{
	"a million entries": {layers: 1, tar: func(w *tarWriter, _ int) {
		for i := range 1_000_000 {
			w.entry(head{name: fmt.Sprintf("usr/share/directory-%d/file-%d", i/1000, i), data: "x"})
		}
	}},
	"long names": {layers: 1, err: "--max-image-metadata", tar: func(w *tarWriter, _ int) {
		for i := range 200_000 {
			w.entry(head{name: "x"}, fmt.Sprintf("path=%s%d", strings.Repeat("usr/share/", 380), i))
		}
	}},
	"long targets in many layers": {layers: 8, err: "--max-image-metadata", tar: func(w *tarWriter, layer int) {
		for i := range 20_000 {
			w.entry(head{typ: typeSymlink, name: fmt.Sprint(i)}, fmt.Sprintf("linkpath=%d/%d/%s", layer, i, strings.Repeat("target/", 580)))
		}
	}},
	"long targets that just fit": {layers: 8, tar: func(w *tarWriter, layer int) {
		for i := range 6_000 {
			w.entry(head{typ: typeSymlink, name: fmt.Sprint(i)}, fmt.Sprintf("linkpath=%d/%d/%s", layer, i, strings.Repeat("target/", 580)))
		}
	}},
	"many capabilities": {layers: 4, err: "--max-image-metadata", tar: func(w *tarWriter, layer int) {
		for i := range 3000 {
			w.entry(head{name: fmt.Sprint(i)}, fmt.Sprintf("SCHILY.xattr.security.capability=%d/%d/%s", layer, i, strings.Repeat("c", 30000)))
		}
	}},
	"missing directories": {layers: 1, err: "--max-image-entries", tar: func(w *tarWriter, _ int) {
		for i := range 10_000 {
			w.entry(head{name: "x"}, fmt.Sprintf("path=%d/%sx", i, strings.Repeat("d/", 2040)))
		}
	}},
	"large windows": {layers: 4, window: 128 << 20, tar: func(w *tarWriter, layer int) {
		w.raw(head{name: fmt.Sprint(layer), size: 300 << 20}.block())
		for range 300 {
			w.raw(make([]byte, 1<<20))
		}
	}},
}

// tarWriter writes a tar as it grows.
type tarWriter struct {
	tarBuilder
	to  io.Writer
	err error
}

// flush passes on what was built.
func (w *tarWriter) flush() {
	if w.err == nil {
		_, w.err = w.to.Write(w.buf.Bytes())
	}
	w.buf.Reset()
}

func (w *tarWriter) raw(b []byte) {
	w.tarBuilder.raw(b)
	w.flush()
}

func (w *tarWriter) entry(h head, records ...string) {
	if len(records) > 0 {
		w.pax(records...)
	}
	w.add(h)
	w.flush()
}

// layout writes the image to a directory.
func (h heavyImage) layout(t *testing.T, dir string) {
	t.Helper()
	var layers []ocispec.Descriptor
	var ids []digest.Digest
	for i := range h.layers {
		path := filepath.Join(dir, fmt.Sprint(i))
		d, id, err := h.writeLayer(path, i)
		if err != nil {
			t.Fatal(err)
		}
		layers, ids = append(layers, d), append(ids, id)
	}
	m := ocitest.Image{
		EditConfig:   func(c *ocispec.Image) { c.RootFS.DiffIDs = ids },
		EditManifest: func(m *ocispec.Manifest) { m.Layers = layers },
	}
	if _, err := m.WriteLayout(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	for i, d := range layers {
		if err := os.Rename(filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, "blobs/sha256", d.Digest.Encoded())); err != nil {
			t.Fatal(err)
		}
	}
}

// writeLayer writes a layer's blob, and says what to call blob and tar.
func (h heavyImage) writeLayer(path string, layer int) (d ocispec.Descriptor, id digest.Digest, err error) {
	f, err := os.Create(path)
	if err != nil {
		return d, id, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	blob, tar, size := digest.SHA256.Digester(), digest.SHA256.Digester(), &countWriter{}
	options := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)}
	if h.window > 0 {
		options = append(options, zstd.WithWindowSize(h.window))
	}
	z, err := zstd.NewWriter(io.MultiWriter(f, blob.Hash(), size), options...)
	if err != nil {
		return d, id, err
	}
	w := &tarWriter{to: io.MultiWriter(z, tar.Hash())}
	h.tar(w, layer)
	err = errors.Join(w.err, z.Close())
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: blob.Digest(), Size: size.n}, tar.Digest(), err
}

// importHeavy is what the child process does.
func importHeavy(from, dir string) error {
	ref, err := oci.ParseReference("oci:" + from + ":v1")
	if err != nil {
		return err
	}
	src, err := layout.Open(ref, layout.Options{})
	if err != nil {
		return err
	}
	s, err := store.Open(dir, store.OpenOptions{})
	if err != nil {
		return err
	}
	_, err = Import(context.Background(), s, src, ImportOptions{Image: writeImage, Name: "heavy"})
	return errors.Join(err, s.Close(), src.Close(), tellPeak())
}

// tellPeak prints the memory that this process had at most. What wait4 tells of a child includes the parent's before exec.
func tellPeak() error {
	status, err := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	fmt.Println(strings.TrimSpace(line))
	return err
}

// TestMemory imports images that want much, each in a process of its own, and measures what it takes.
func TestMemory(t *testing.T) {
	for name, h := range heavyImages {
		t.Run(name, func(t *testing.T) {
			if raceDetector || testing.Short() {
				t.Skip("takes seconds, and says nothing of memory under the race detector: run without -race and -short")
			}
			s := storetest.New(t, store.InitOptions{})
			dir := t.TempDir()
			h.layout(t, dir)
			cmd := exec.Command(os.Args[0], dir, s.Dir())
			cmd.Env = append(os.Environ(), heavyEnv+"=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if h.err == "" && err != nil || h.err != "" && (err == nil || !strings.Contains(stderr.String(), h.err)) {
				t.Errorf("%v: %s; want %q", err, &stderr, h.err)
			}
			var peak int64
			if _, err := fmt.Sscanf(string(out), "%d kB", &peak); err != nil {
				t.Fatalf("%q is no peak: %v", out, err)
			}
			t.Logf("%d MiB, %v: %s", peak>>10, cmd.ProcessState.UserTime(), &stderr)
			if peak<<10 > heavyBound {
				t.Errorf("%d MiB of memory, %d are allowed", peak>>10, int64(heavyBound)>>20)
			}
			if h.err != "" {
				checkUnnamed(t, s)
			}
		})
	}
}

// TestRealBomb reads a bomb at its real size: the limit on the ratio works from a GiB on.
func TestRealBomb(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("inflates a GiB: run without -race and -short")
	}
	member := gzipped(make([]byte, 64<<20))
	var blob bytes.Buffer
	w := gzip.NewWriter(&blob)
	if _, err := w.Write(buildTar(t, "file a data=x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		blob.Write(member)
	}
	b := badImage{
		name: "real bomb", layers: text(t, "file a"), blob: func([]byte) []byte { return blob.Bytes() },
		err: []string{"layer 1", "ratio of the layer's tar to its blob: ", "over the limit of 500 (--max-ratio raises it)"},
	}
	s := storetest.New(t, store.InitOptions{})
	_, err := Import(context.Background(), s, b.build(t), ImportOptions{Image: writeImage, Name: "image"})
	checkError(t, err, b.err)
	checkUnnamed(t, s)
	checkDescriptors(t, s)
}
