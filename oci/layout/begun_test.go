package layout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
)

// open opens a sink that the test closes itself.
func open(t *testing.T, dir, name string) *layout.Sink {
	t.Helper()
	s, err := layout.Create(context.Background(), oci.Reference{Transport: oci.OCI, Path: dir, Tag: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeSink(t *testing.T, s *layout.Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// list is what is below a directory, directories with a slash.
func list(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && path != dir {
			name := strings.TrimPrefix(path, dir+"/")
			if d.IsDir() {
				name += "/"
			}
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestNothingStays: a layout that was made for an image which did not come is taken away, with what was put, but nothing else is.
func TestNothingStays(t *testing.T) {
	b := sample(t, "x")
	putOne := func(t *testing.T, s *layout.Sink) {
		if err := s.PutBlob(context.Background(), b.Blobs[0].Descriptor, bytes.NewReader(b.Blobs[0].Data)); err != nil {
			t.Error(err)
		}
	}
	const made = "a/ a/l/ a/l/blobs/ a/l/blobs/sha256/ a/l/oci-layout"
	for _, tc := range []struct {
		name   string
		before func(t *testing.T, dir string)
		use    func(t *testing.T, s *layout.Sink, dir string)
		want   string
	}{
		{"nothing was put", nil, nil, ""},
		{"a blob was put", nil, func(t *testing.T, s *layout.Sink, _ string) { putOne(t, s) }, ""},
		{"staged blobs were there, published or not", nil, func(t *testing.T, s *layout.Sink, _ string) {
			for n := range 2 {
				blob, err := s.Stage()
				if err != nil {
					t.Fatal(err)
				}
				_, err = fmt.Fprint(blob, n)
				if n == 0 && err == nil {
					err = blob.Publish(context.Background())
				}
				if err = errors.Join(err, blob.Close()); err != nil {
					t.Error(err)
				}
			}
		}, ""},
		{"an empty directory was there", func(t *testing.T, dir string) { makeDir(t, dir+"/a/l") }, nil, "a/ a/l/"},
		{"the directory above was there", func(t *testing.T, dir string) { makeDir(t, dir+"/a") }, nil, "a/"},
		{"something is beside it", nil, func(t *testing.T, _ *layout.Sink, dir string) { makeDir(t, dir+"/a/other") }, "a/ a/other/"},
		{"the layout was there", func(t *testing.T, dir string) {
			makeDir(t, dir+"/a/l")
			overwrite(t, dir+"/a/l", "oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
		}, nil, made},
		{"somebody's blob is there", nil, func(t *testing.T, _ *layout.Sink, dir string) {
			overwrite(t, dir+"/a/l", "blobs/sha256/other", "")
		}, strings.Replace(made, "sha256/", "sha256/ a/l/blobs/sha256/other", 1)},
		{"somebody's image is there", nil, func(t *testing.T, _ *layout.Sink, dir string) {
			overwrite(t, dir+"/a/l", "index.json", "{}")
		}, strings.Replace(made, " a/l/oci-layout", " a/l/index.json a/l/oci-layout", 1)},
		{"somebody has taken it away", nil, func(t *testing.T, _ *layout.Sink, dir string) {
			if err := os.RemoveAll(dir + "/a"); err != nil {
				t.Error(err)
			}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.before != nil {
				tc.before(t, dir)
			}
			s := open(t, dir+"/a/l", "v1")
			if tc.use != nil {
				tc.use(t, s, dir)
			}
			closeSink(t, s)
			if got := list(t, dir); got != tc.want {
				t.Errorf("there is %q, want %q", got, tc.want)
			}
		})
	}
}

func makeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestOthersStay: a layout in which another sink is at work is left to that.
func TestOthersStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l")
	first, second := open(t, dir, "v1"), open(t, dir, "v2")
	closeSink(t, first)
	if err := put(second, sample(t, "x")); err != nil {
		t.Error(err)
	}
	closeSink(t, second)
	if _, err := image(dir, ":v2", oci.Platform{}); err != nil {
		t.Error(err)
	}
}

// TestCreateWhileTakenAway: sinks come and go, some with an image. None is lost, and none fails.
func TestCreateWhileTakenAway(t *testing.T) {
	for round := range 30 {
		dir := filepath.Join(t.TempDir(), "l")
		var wg sync.WaitGroup
		for i := range 8 {
			b, ref := sample(t, fmt.Sprint(i)), oci.Reference{Transport: oci.OCI, Path: dir, Tag: fmt.Sprintf("v%d", i)}
			wg.Go(func() {
				s, err := layout.Create(context.Background(), ref)
				if err == nil && i == round%8 {
					err = put(s, b)
				}
				if err == nil {
					err = s.Close()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := image(dir, fmt.Sprintf(":v%d", round%8), oci.Platform{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCreateFailsClean: what is made before an error goes away.
func TestCreateFailsClean(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	overwrite(t, dir, "file", "")
	for _, path := range []string{dir + "/file/a/b", dir + "/file"} {
		if _, err := layout.Create(ctx, oci.Reference{Transport: oci.OCI, Path: path}); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	if got := list(t, dir); got != "file" {
		t.Errorf("there is %q", got)
	}
}
