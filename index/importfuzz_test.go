package index

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/flatroot/flatroot/oci"
	"github.com/flatroot/flatroot/oci/ocitest"
	"github.com/flatroot/flatroot/store"
	"github.com/flatroot/flatroot/store/storetest"
)

// fuzzStore is a store that is thrown away when it has taken many imports.
type fuzzStore struct {
	*store.Store
	imports int
}

func (f *fuzzStore) renew(t testing.TB) {
	if f.imports++; f.Store != nil && f.imports%500 != 0 {
		return
	}
	f.remove(t)
	dir, err := os.MkdirTemp("", "flatroot-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Init(dir, store.InitOptions{Verity: store.VerityOff}); err != nil {
		t.Fatal(err)
	}
	if f.Store, err = store.Open(dir, store.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (f *fuzzStore) remove(t testing.TB) {
	if f.Store == nil {
		return
	}
	storetest.Check(t, f.Dir())
	if err := errors.Join(f.Close(), os.RemoveAll(f.Dir())); err != nil {
		t.Error(err)
	}
	f.Store = nil
}

// FuzzImport imports tars and checks that the store gives back each of them, or has no name for what it refused.
func FuzzImport(f *testing.F) {
	for _, b := range goodTars(f) {
		f.Add(b)
	}
	f.Add(buildTar(f, "dir usr\nfile usr/a data=x\nhard usr/b -> usr/a\nfile usr/.wh.c\nfile run/a size=2000000"))
	f.Add(buildTar(f, "dir usr size=1\nfile usr/a size=100\nhard x -> y"))
	f.Add(buildTar(f, "global size=100\nfile usr/a size=100"))
	for _, bad := range badTars() {
		if b := bad.tar.end(); len(b) < 4<<10 {
			f.Add(b)
		}
	}
	s := new(fuzzStore)
	f.Cleanup(func() { s.remove(f) })
	f.Fuzz(func(t *testing.T, tar []byte) {
		s.renew(t)
		checkImport(t, s.Store, tar)
	})
}

func checkImport(t *testing.T, s *store.Store, tar []byte) {
	ctx := context.Background()
	src := newSource(t, ocitest.Image{Layers: [][]byte{tar}, Compression: []ocitest.Compression{ocitest.None}})
	src.name = "" // an origin note as small as can be
	diffID := oci.DiffID(src.built.Blobs[0].Descriptor.Digest)
	before := named(t, s)
	_, err := Import(ctx, s, src, ImportOptions{Image: writeImage, Name: "fuzz", Limits: fuzzLimits})
	var compressed bool
	if bytes.HasPrefix(tar, []byte{0x1f, 0x8b}) || isZstd(tar) {
		compressed = true // its diffID is a lie
	}
	switch entry := new(EntryError); {
	case err == nil && compressed:
		t.Fatal("compressed bytes passed for their own diffID")
	case err == nil:
		var b bytes.Buffer
		if err := WriteTar(ctx, s, diffID, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), tar) {
			t.Fatal("the store gives back another tar")
		}
		if _, err := loadLayer(ctx, s, diffID, mustEntry(t, s, LayerEntry(diffID)), fuzzLimits, newBounds(fuzzLimits)); err != nil {
			t.Fatalf("read the stored layer: %v", err)
		}
	case errors.As(err, &entry) || compressed:
		if after := named(t, s); !slices.Equal(after, before) {
			t.Fatalf("%v, and these names:\n%q\nbefore:\n%q", err, after, before)
		}
	default: // the layer is whole, but makes no tree
		if _, err := s.Entry(store.Streams, LayerEntry(diffID)); err != nil {
			t.Error(err)
		}
	}
}
