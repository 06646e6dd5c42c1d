package layout_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/layout"
)

// TestLeftovers puts what a killed process leaves where it leaves it: into a
// directory that has become no layout yet, and into a layout.
func TestLeftovers(t *testing.T) {
	b := sample(t, "one")
	for name, before := range map[string]func(dir string) error{
		"half made": func(dir string) error { return nil },
		"layout":    func(dir string) error { return b.WriteLayout(dir, "old") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := before(dir); err != nil {
				t.Fatal(err)
			}
			left := filepath.Join(dir, ".flatroot-LEFT")
			if err := os.WriteFile(left, []byte("half a bl"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := put(create(t, dir, "new"), b); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestLeftoverOfOthers makes sure that only files go, and that a directory
// with anything else in it is no place for a layout.
func TestLeftoverOfOthers(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, ".flatroot-dir")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Create(context.Background(), oci.Reference{Transport: oci.OCI, Path: dir}); !errors.Is(err, layout.ErrNoLayout) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(other); err != nil {
		t.Error(err)
	}
}

// TestSweepBesideWriter opens a layout while somebody writes a blob to it:
// the blob must arrive.
func TestSweepBesideWriter(t *testing.T) {
	dir := t.TempDir()
	b := sample(t, "one")
	s := create(t, dir, "one")
	layer := b.Find("layer")
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- s.PutBlob(context.Background(), layer.Descriptor, r) }()
	half := len(layer.Data) / 2
	if _, err := w.Write(layer.Data[:half]); err != nil {
		t.Fatal(err)
	}
	create(t, dir, "two")
	if _, err := w.Write(layer.Data[half:]); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasBlob(context.Background(), layer.Descriptor); !has || err != nil {
		t.Errorf("there %t, %v", has, err)
	}
}
