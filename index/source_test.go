package index

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
)

// memSource is an image in memory. Its blobs are whatever a test says they are.
type memSource struct {
	name  string
	built *ocitest.Built
	// open, if there is one for a blob, gives its bytes.
	open map[digest.Digest]func(context.Context) io.ReadCloser
}

func newSource(t testing.TB, m ocitest.Image) *memSource {
	t.Helper()
	b, err := m.Build()
	if err != nil {
		t.Fatal(err)
	}
	return &memSource{name: "test:image", built: b, open: map[digest.Digest]func(context.Context) io.ReadCloser{}}
}

func (s *memSource) String() string { return s.name }
func (s *memSource) Close() error   { return nil }

func (s *memSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	return s.built.Root(), nil
}

func (s *memSource) Image(context.Context) (*oci.Image, error) {
	return oci.ParseImage(s.built.Root(), s.built.Find("manifest").Data, s.built.Find("config").Data)
}

func (s *memSource) OpenBlob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if open := s.open[d.Digest]; open != nil {
		return open(ctx), nil
	}
	for _, b := range s.built.Blobs {
		if b.Descriptor.Digest == d.Digest {
			return io.NopCloser(bytes.NewReader(b.Data)), nil
		}
	}
	return nil, fmt.Errorf("no blob %s", d.Digest)
}

// named lists all links and notes of a store, which are what it has names for.
func named(t testing.TB, s *store.Store) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.Dir(), func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, s.Dir()+string(os.PathSeparator))
		if err == nil && !e.IsDir() && !strings.HasPrefix(name, "objects/") && name != "meta.json" {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// mustEntry is the stream that an entry leads to.
func mustEntry(t testing.TB, s *store.Store, entry string) fsverity.Digest {
	t.Helper()
	id, err := s.Entry(store.Streams, entry)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
