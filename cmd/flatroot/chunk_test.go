package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/index"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/tree"
)

// TestChunkFails: where something goes wrong while layers are written, nothing is published, and nothing stays.
func TestChunkFails(t *testing.T) {
	text := strings.Repeat("text ", 100)
	for _, tc := range []struct {
		name, want string
		content    func(end context.CancelFunc) (io.ReadCloser, error) // of /usr/file; nil: what is there
	}{
		{"written anew", "/root/usr/file: it changed while it was read", nil},
		// It has other contents in the layers than when it was looked at.
		{"changed", "was not published: /usr/file is changed (it changed underfoot", func(context.CancelFunc) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("FILE" + text)), nil
		}},
		{"gone", os.ErrNotExist.Error(), func(context.CancelFunc) (io.ReadCloser, error) { return nil, os.ErrNotExist }},
		{"interrupted", "canceled", func(end context.CancelFunc) (io.ReadCloser, error) {
			end()
			return io.NopCloser(strings.NewReader("file" + text)), nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, end := context.WithCancel(context.Background())
			defer end()
			j, dir := chunkOfTwo(t, text)
			if err := j.src.dir.Hash(ctx, noMeter{}); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/root/usr/file", []byte("FILE"+text), 0o644); err != nil {
				t.Fatal(err)
			}
			right := j.src.content
			j.src.content = func(n tree.Node) (io.ReadCloser, error) {
				if tc.content != nil && j.src.tree.Path(n) == "/usr/file" {
					return tc.content(end)
				}
				return right(n)
			}
			_, err := j.write(ctx)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("%v, %v is there, want the root alone", err, entries)
			}
		})
	}
}

// TestChunkFindLayer: a blob of the build before is taken if it is of the very tar, whatever the plan says.
func TestChunkFindLayer(t *testing.T) {
	j, dir := chunkOfTwo(t, strings.Repeat("text ", 100))
	sink, err := openSink(context.Background(), j.o.ref, noMeter{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	w := &layerWriting{chunkJob: j, sink: sink, meter: noMeter{}, compressor: index.LayerCompressor{Compression: j.o.compression}}
	first := j.layers()[0]
	if err := w.compress(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	staged := first.blob.(oci.StagedBlob)
	defer staged.Close()
	if err := staged.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
	j.before = &chunkBefore{}
	other := first.Layer
	other.DiffID = oci.DiffID("sha256:" + strings.Repeat("0", 64))
	for _, tc := range []struct {
		before *oci.Layer
		want   bool
	}{{nil, false}, {&first.Layer, true}, {&other, false}} {
		l := j.layers()[0]
		l.before = tc.before
		has, err := w.find(context.Background(), l)
		if has != tc.want || err != nil || has && l.Descriptor.Digest != first.Descriptor.Digest {
			t.Errorf("%v in %s: %t, %v", tc.before, dir, has, err)
		}
	}
}

// TestChunkSwapped: contents under each other's names are found though nothing was known of them before.
func TestChunkSwapped(t *testing.T) {
	j, _ := chunkOfTwo(t, strings.Repeat("text ", 100))
	layers, err := j.writeLayers(context.Background(), nil, noMeter{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range layers {
			l.blob.Close()
		}
	}()
	for _, l := range layers {
		slices.Reverse(l.opened)
	}
	if _, err := j.prove(context.Background(), layers); err == nil || !strings.Contains(err.Error(), "was not published: /usr/file is changed") {
		t.Error(err)
	}
	for _, l := range layers {
		l.opened = l.opened[:max(len(l.opened)-1, 0)]
	}
	if _, err := j.prove(context.Background(), layers); err == nil || !strings.Contains(err.Error(), "contents where") {
		t.Error(err)
	}
}

// chunkOfTwo is a plan for two files, in a directory of its own.
func chunkOfTwo(t *testing.T, text string) (*chunkJob, string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	if err := os.MkdirAll(dir+"/root/usr", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"other", "file"} {
		if err := os.WriteFile(dir+"/root/usr/"+name, []byte(name+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := chunkOptions{
		source: dir + "/root", dest: "oci:" + dir + "/new/out:latest", layers: 4, mtime: chunk.MtimeKeep, compression: "zstd", jobs: 2,
	}
	var err error
	if o.ref, err = readDest(o.dest); err != nil {
		t.Fatal(err)
	}
	c := console{stderr: io.Discard, progress: progressNone}
	src, err := c.openChunkSource(context.Background(), o.source, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	j := &chunkJob{console: c, o: o, src: src}
	if err := j.plan(context.Background()); err != nil {
		t.Fatal(err)
	}
	return j, dir
}

// TestChunksOfOthers: what chunkah has annotated is shown with the sizes of blobs, and nothing that would be ours.
func TestChunksOfOthers(t *testing.T) {
	dir := t.TempDir()
	img := ocitest.Image{
		Layers:     [][]byte{ocitest.Tar(ocitest.File{Name: "a", Data: "a"}), ocitest.Tar(ocitest.File{Name: "b", Data: "b"})},
		EditConfig: func(c *ocispec.Image) { c.History = []ocispec.History{{CreatedBy: "by hand"}, {CreatedBy: "no more"}} },
		EditManifest: func(m *ocispec.Manifest) {
			m.Layers[1].Annotations = map[string]string{"org.chunkah.component": "rpm/a rpm/b rpm/c rpm/d rpm/e"}
		},
	}
	if _, err := img.WriteLayout(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	t.Setenv(storeVariable, dir+"/store")
	mustRun(t, "init")
	mustRun(t, "pull", "oci:"+dir+":v1", "--name", "other")
	out := mustRun(t, "chunks", "oci:"+dir+":v1")
	if stored := mustRun(t, "chunks", "other"); stored != out {
		t.Errorf("in the store it is\n%s\nelsewhere\n%s", stored, out)
	}
	if out := mustRun(t, "chunk", "other", "--dry-run", "--previous", "other"); !strings.Contains(out, "from the build before (chunkah)") {
		t.Errorf("as the build before:\n%s", out)
	}
	for _, want := range []string{
		`(?m)^1 +[0-9]+ B +history: by hand$`, `(?m)^2 +[0-9]+ B +rpm/a rpm/b rpm/c rpm/d and 1 more$`,
		`2 layers, [0-9]+ B compressed; cut by chunkah`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got\n%s\nwant %s", out, want)
		}
	}
}

// TestPreviousPlatform: of an image for another platform no plan is taken; one that doesn't say for which it is may be any.
func TestPreviousPlatform(t *testing.T) {
	config := []byte(`{"config":{"Labels":{"` + chunk.PlanLabel + `":"{\"version\":1,\"layers\":[{\"c\":[{\"n\":\"a\"}]}]}"}}}`)
	for _, tc := range []struct{ have, want, err string }{
		{"linux/amd64", "linux/amd64", ""},
		{"linux/arm64/v8", "linux/arm64", ""},
		{"linux/arm/v6", "linux/arm/v7", ""},
		{"", "linux/amd64", ""},
		{"linux/s390x", "linux/amd64", "it is for linux/s390x, and the new image for linux/amd64"},
	} {
		platform := func(s string) (p oci.Platform) {
			if s != "" {
				var err error
				if p, err = oci.ParsePlatform(s); err != nil {
					t.Fatal(err)
				}
			}
			return p
		}
		_, err := previousPlan(&oci.Image{Config: config, Platform: platform(tc.have)}, platform(tc.want))
		if got := fmt.Sprint(err); err == nil && tc.err != "" || err != nil && got != tc.err {
			t.Errorf("%s for %s: %v", tc.have, tc.want, err)
		}
	}
}

func TestLargestFirst(t *testing.T) {
	var layers []*chunkLayer
	for n, size := range []int64{3, 9, 0, 9, 4} {
		layers = append(layers, &chunkLayer{size: size, title: string(rune('0' + n))})
	}
	got := ""
	for _, l := range largestFirst(layers) {
		got += l.title
	}
	if got != "13402" {
		t.Error(got)
	}
}
