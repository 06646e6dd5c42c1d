package stream

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
)

// shelf is a store of the simplest kind.
type shelf struct {
	t    *testing.T
	dir  string
	open int
}

func (s *shelf) put(w *Writer) fsverity.Digest {
	s.t.Helper()
	return s.putBytes(written(s.t, w))
}

func (s *shelf) putBytes(b []byte) fsverity.Digest {
	s.t.Helper()
	d := fsverity.Sum(fsverity.SHA256, b)
	must(s.t, os.WriteFile(filepath.Join(s.dir, d.String()), b, 0o600))
	return d
}

type counted struct {
	*os.File
	s *shelf
}

func (c counted) Close() error {
	c.s.open--
	return c.File.Close()
}

func (s *shelf) get(id fsverity.Digest) (Object, error) {
	f, err := os.Open(filepath.Join(s.dir, id.String()))
	if err != nil {
		return nil, err
	}
	s.open++
	return counted{f, s}, nil
}

func newStream(t *testing.T, ct ContentType, named map[string]fsverity.Digest) *Writer {
	t.Helper()
	w := NewWriter(fsverity.SHA256, ct, WriterOptions{})
	t.Cleanup(func() { w.Close() })
	for name, id := range named {
		must(t, w.NamedRef(name, id))
	}
	return w
}

func TestFindImage(t *testing.T) {
	s := &shelf{t: t, dir: t.TempDir()}
	image := digest(fsverity.SHA256, 1)
	layer := digest(fsverity.SHA256, 2)
	config := s.put(newStream(t, OCIConfig, map[string]fsverity.Digest{ImageV1: image, "sha256:aa": layer}))
	manifest := s.put(newStream(t, OCIManifest, map[string]fsverity.Digest{"config:sha256:bb": config, "sha256:aa": layer}))

	got, err := FindImage(s.get, manifest, ImageV1)
	if err != nil || got != image {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := FindImage(s.get, manifest, ImageV2); !errors.Is(err, ErrNoRef) || !strings.Contains(err.Error(), ImageV2) {
		t.Errorf("no such image: %v", err)
	}
	if _, err := FindImage(s.get, config, ImageV1); !errors.Is(err, ErrInvalid) {
		t.Errorf("config for a manifest: %v", err)
	}
	for name, named := range map[string]map[string]fsverity.Digest{
		"no config":   {"sha256:aa": config},
		"two configs": {"config:sha256:aa": config, "config:sha256:bb": manifest},
		"lost config": {"config:sha256:aa": layer},
		"loop":        {"config:sha256:aa": manifest},
	} {
		if _, err := FindImage(s.get, s.put(newStream(t, OCIManifest, named)), ImageV1); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := FindImage(s.get, image, ImageV1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no manifest: %v", err)
	}
	if s.open != 0 {
		t.Errorf("%d objects left open", s.open)
	}
}

func TestCopy(t *testing.T) {
	s := &shelf{t: t, dir: t.TempDir()}
	id := s.putBytes([]byte("object"))
	w := newStream(t, OCIBlob, nil)
	must(t, w.Inline([]byte("before ")))
	must(t, w.External(id, 6))
	must(t, w.Inline([]byte(" between ")))
	must(t, w.External(id, 6))
	var b bytes.Buffer
	n, err := open(t, written(t, w)).Copy(&b, s.get)
	if want := "before object between object"; err != nil || b.String() != want || n != int64(len(want)) {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
	w = newStream(t, OCIBlob, nil)
	must(t, w.External(digest(fsverity.SHA256, 5), 6))
	if _, err := open(t, written(t, w)).Copy(&b, s.get); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing object: %v", err)
	}
	if s.open != 0 {
		t.Errorf("%d objects left open", s.open)
	}
}
