package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/chunk"
	"github.com/flatroot/flatroot/tree"
)

// TestChunkChangedSource: what has other contents in the layers than when it was looked at is not published.
func TestChunkChangedSource(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	if err := os.MkdirAll(dir+"/root/usr", 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("text ", 100)
	for _, name := range []string{"other", "file"} {
		if err := os.WriteFile(dir+"/root/usr/"+name, []byte(name+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := chunkOptions{
		source: dir + "/root", dest: "oci:" + dir + "/out:latest", layers: 4, mtime: chunk.MtimeKeep, compression: "zstd", jobs: 2,
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
	defer src.Close()
	j := &chunkJob{console: c, o: o, src: src}
	if err := j.plan(context.Background()); err != nil {
		t.Fatal(err)
	}
	right := src.content
	src.content = func(n tree.Node) (io.ReadCloser, error) {
		if src.tree.Path(n) == "/usr/file" {
			return io.NopCloser(strings.NewReader("FILE" + text)), nil
		}
		return right(n)
	}
	_, err = j.write(context.Background())
	if err == nil || !strings.Contains(err.Error(), "was not published: /usr/file is changed (it changed underfoot") {
		t.Errorf("%v, want that /usr/file changed", err)
	}
	if _, err := os.Stat(dir + "/out/index.json"); err == nil {
		t.Error("something was published")
	}
}

func TestLargestFirst(t *testing.T) {
	got := largestFirst([]int64{3, 9, 0, 9, 4})
	for i, want := range []int{1, 3, 4, 0, 2} {
		if got[i] != want {
			t.Fatalf("%v", got)
		}
	}
}
