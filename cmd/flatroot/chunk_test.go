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

// TestChunkFails: where something goes wrong while layers are written, nothing is published, and nothing stays.
func TestChunkFails(t *testing.T) {
	text := strings.Repeat("text ", 100)
	for _, tc := range []struct {
		name, want string
		content    func(end context.CancelFunc) (io.ReadCloser, error) // of /usr/file
	}{
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
			right := j.src.content
			j.src.content = func(n tree.Node) (io.ReadCloser, error) {
				if j.src.tree.Path(n) == "/usr/file" {
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

func TestLargestFirst(t *testing.T) {
	got := largestFirst([]int64{3, 9, 0, 9, 4})
	for i, want := range []int{1, 3, 4, 0, 2} {
		if got[i] != want {
			t.Fatalf("%v", got)
		}
	}
}
