package store_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/flatroot/flatroot/fsverity"
	"github.com/flatroot/flatroot/store"
)

// benchStore is on tmpfs where there is one, so that the disk is not what is
// measured.
func benchStore(b *testing.B) *store.Store {
	base := b.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "store-*"); err == nil {
		base = dir
		b.Cleanup(func() { os.RemoveAll(dir) })
	}
	dir := filepath.Join(base, "store")
	must(b, store.Init(dir, store.InitOptions{}))
	s, err := store.Open(dir, store.OpenOptions{})
	must(b, err)
	b.Cleanup(func() { s.Close() })
	return s
}

// BenchmarkPutObject stores new objects of 4 KiB; the digest is part of it only in
// "hashed".
func BenchmarkPutObject(b *testing.B) {
	for _, hashed := range []bool{false, true} {
		name := map[bool]string{false: "given", true: "hashed"}[hashed]
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			content := make([]byte, 4096)
			b.SetBytes(int64(len(content)))
			raw := make([]byte, 32)
			for i := range b.N {
				binary.LittleEndian.PutUint64(content, uint64(i))
				binary.LittleEndian.PutUint64(raw, uint64(i)*0x9e3779b97f4a7c15)
				d, _ := fsverity.NewDigest(fsverity.SHA256, raw)
				if hashed {
					d = fsverity.Sum(fsverity.SHA256, content)
				}
				if _, err := s.PutObject(d, content); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPutExisting finds the object there.
func BenchmarkPutExisting(b *testing.B) {
	s := benchStore(b)
	content := make([]byte, 4096)
	d := fsverity.Sum(fsverity.SHA256, content)
	for range b.N {
		if _, err := s.PutObject(d, content); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkObjectWriter is BenchmarkPutObject/hashed for content that flows.
func BenchmarkObjectWriter(b *testing.B) {
	s := benchStore(b)
	content := make([]byte, 4096)
	b.SetBytes(int64(len(content)))
	for i := range b.N {
		binary.LittleEndian.PutUint64(content, uint64(i))
		w, err := s.NewObject()
		must(b, err)
		_, err = w.Write(content)
		must(b, err)
		if _, _, err := w.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
