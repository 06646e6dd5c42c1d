package dir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/dir"
	"github.com/flatroot/flatroot/oci/ocitest"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

func TestSource(t *testing.T) {
	ocitest.TestSource(t, func(t *testing.T, b *ocitest.Built) func(oci.Platform) (oci.Source, error) {
		path := t.TempDir()
		if err := b.WriteDir(path); err != nil {
			t.Fatal(err)
		}
		return func(p oci.Platform) (oci.Source, error) {
			return dir.Open(oci.Reference{Transport: oci.Dir, Path: path}, dir.Options{Platform: p})
		}
	}, ocitest.Unclaimed)
}

// read opens a directory and reads the image and its layers.
func read(path string) error {
	src, err := dir.Open(oci.Reference{Transport: oci.Dir, Path: path}, dir.Options{})
	if err != nil {
		return err
	}
	m, err := src.Image(context.Background())
	if err != nil {
		return errors.Join(err, src.Close())
	}
	for _, l := range m.Layers {
		r, oerr := src.OpenBlob(context.Background(), l.Descriptor)
		if oerr == nil {
			oerr = r.Close()
		}
		err = errors.Join(err, oerr)
	}
	return errors.Join(err, src.Close())
}

func TestBadDirs(t *testing.T) {
	replace := func(name string, make func(path string) error) func(string, string) error {
		return func(path, layer string) error {
			path = filepath.Join(path, strings.ReplaceAll(name, "LAYER", layer))
			return errors.Join(os.RemoveAll(path), make(path))
		}
	}
	text := func(s string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(s), 0o644) }
	}
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o644) }
	link := func(path string) error { return os.Symlink("/etc/passwd", path) }
	gone := func(string) error { return nil }
	for name, c := range map[string]struct {
		damage func(path, layer string) error
		want   string
	}{
		"no version":        {replace("version", gone), "no file version"},
		"version 1.0":       {replace("version", text("Directory Transport Version: 1.0\n")), `says "Directory Transport Version: 1.0"`},
		"version 1.10":      {replace("version", text("Directory Transport Version: 1.10\n")), "says"},
		"version too long":  {replace("version", text(strings.Repeat(" ", 5000))), "more than 4096"},
		"version a pipe":    {replace("version", fifo), "is a pipe"},
		"no manifest":       {replace("manifest.json", gone), "no such file"},
		"manifest no JSON":  {replace("manifest.json", text("<html>")), `begins "<html>"`},
		"manifest a link":   {replace("manifest.json", link), "is a symbolic link"},
		"manifest too long": {replace("manifest.json", text(strings.Repeat(" ", 5<<20))), "more than 4194304"},
		"no layer":          {replace("LAYER", gone), "no such file"},
		"layer a link":      {replace("LAYER", link), "is a symbolic link"},
		"layer cut":         {replace("LAYER", text("x")), "has 1 bytes, its descriptor says"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			b, err := ocitest.Sample(amd64).Build()
			if err != nil {
				t.Fatal(err)
			}
			if err := b.WriteDir(path); err != nil {
				t.Fatal(err)
			}
			if err := read(path); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(path, b.Find("layer").Descriptor.Digest.Encoded()); err != nil {
				t.Fatal(err)
			}
			if err := read(path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	path := t.TempDir()
	b, err := ocitest.Sample(amd64).Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.WriteDir(path); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(path))
	src, err := dir.Open(oci.Reference{Transport: oci.Dir, Path: filepath.Base(path)}, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if got := src.Origin(); got != "dir:"+path {
		t.Errorf("got %s", got)
	}
}
